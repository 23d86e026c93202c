//! What a run will cost, before it starts: the figures of `--dry-run`.

use super::recipe::Recipe;
use crate::cli::Dtype;
use crate::error::Result;
use crate::run::prompts;

/// Tokens of a chat-formatted prompt, about: only lengths of texts are known before loading.
const TEMPLATE_TOKENS: usize = 30;
/// Characters of English a token, about.
const CHARACTERS_PER_TOKEN: f64 = 4.0;

/// Counted work of a whole run.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Cost {
    /// Completions that are sampled.
    pub completions: usize,
    /// Comparisons that are answered, proxy's own pairs not counted.
    pub labels: usize,
    /// Tokens decoded.
    pub sampled_tokens: usize,
    /// Tokens scored (log-probs, rewards, gold).
    pub scored_tokens: usize,
    /// Tokens through training steps.
    pub trained_tokens: usize,
}

/// Speeds that minutes are estimated with, tokens per second.
pub struct Speeds {
    /// Decoding.
    pub sample: f64,
    /// Scoring.
    pub score: f64,
    /// Training with LoRA.
    pub train: f64,
}

impl Speeds {
    /// What the minutes of `--dry-run` are estimated with, for [`REFERENCE_MODEL`] on 2 cores with
    /// AVX-512 and its BF16 products. In bf16, rates that turn the demo's counts, upper bounds all,
    /// into the 13 minutes that it took; in f32, these times the engine's speed in f32 over that
    /// in bf16, kind by kind (LOG.md).
    pub fn reference(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self { sample: 480.0, score: 1300.0, train: 450.0 },
            Dtype::Bf16 => Self { sample: 800.0, score: 2500.0, train: 750.0 },
        }
    }
}

/// The model of [`Speeds::reference`].
pub const REFERENCE_MODEL: &str = "smollm2-135m";

/// Peak memory of the demo, GiB, with [`REFERENCE_MODEL`].
pub const REFERENCE_GIB: f64 = 3.0;

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |a, b| Self {
            completions: a.completions + b.completions,
            labels: a.labels + b.labels,
            sampled_tokens: a.sampled_tokens + b.sampled_tokens,
            scored_tokens: a.scored_tokens + b.scored_tokens,
            trained_tokens: a.trained_tokens + b.trained_tokens,
        })
    }
}

impl Cost {
    /// Seconds at the given speeds.
    pub fn seconds(&self, speeds: &Speeds) -> f64 {
        self.sampled_tokens as f64 / speeds.sample
            + self.scored_tokens as f64 / speeds.score
            + self.trained_tokens as f64 / speeds.train
    }
}

/// Counts the work of a recipe; an upper bound, as every completion is taken to reach its limit.
pub fn count(recipe: &Recipe) -> Result<Cost> {
    let (train, heldout) = prompts::split(recipe)?;
    let characters: usize = train.iter().map(|r| r.prompt.display().chars().count()).sum();
    let prompt = TEMPLATE_TOKENS + (characters as f64 / CHARACTERS_PER_TOKEN / train.len().max(1) as f64) as usize;
    let (arms, rounds) = (recipe.select.strategies.len(), recipe.rounds as usize);
    let length = recipe.sample.max_new_tokens;
    let sequence = prompt + length;
    let pools = 1 + (rounds - 1) * arms;
    let pool = train.len() * recipe.sample.n;
    let evaluation = heldout.len() * (recipe.evaluate.n + recipe.evaluate.kl_n);
    let tuned = if recipe.tune.method == "none" { 0 } else { recipe.tune.steps * recipe.tune.prompts * recipe.tune.k };
    // A look draws one completion a held-out prompt, before the first step too.
    let looks = match (tuned, recipe.tune.look_every) {
        (0, _) | (_, 0) => 0,
        (_, every) => rounds * arms * (1 + recipe.tune.steps.div_ceil(every)) * heldout.len(),
    };
    let tuned_sequence = prompt + recipe.tune.max_new_tokens.unwrap_or(length);
    let evaluations = 1 + rounds * arms;
    let completions = pools * pool + rounds * arms * tuned + evaluations * evaluation + looks;
    let old = if recipe.proxy.model.is_some() { 0 } else { recipe.proxy.pairs };
    let pairs: usize = old + arms * (1..=rounds).map(|round| old + round * recipe.select.budget).sum::<usize>();
    Ok(Cost {
        completions,
        // A pool cannot be asked more than all its pairs.
        labels: rounds * arms * recipe.select.budget.min(pool * (recipe.sample.n - 1) / 2),
        sampled_tokens: completions * length,
        scored_tokens: 2 * pools * pool * sequence
            + 2 * rounds * arms * tuned * tuned_sequence
            + 4 * looks * tuned_sequence
            + 3 * evaluations * evaluation * sequence,
        trained_tokens: pairs * 2 * recipe.reward.epochs * sequence + rounds * arms * tuned * tuned_sequence,
    })
}
