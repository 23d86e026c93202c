//! The demo's recipe: fixed, so that its two arms are compared on terms set beforehand.

use crate::cli::Dtype;

use super::recipe::{Evaluate, PolicyTraining, Prompts, Proxy, Recipe, RewardTraining, Sample, Select};

/// The whole demo, or its small version.
pub fn recipe(quick: bool) -> Recipe {
    let recipe = full();
    if quick { shrink(recipe) } else { recipe }
}

/// 96 prompts x 8 completions of at most 48 tokens, 300 proxy pairs, two arms of 16 RLOO steps
/// x 32 completions.
fn full() -> Recipe {
    Recipe {
        dtype: Dtype::Bf16,
        prompts: Prompts::default(),
        proxy: Proxy { pairs: 300, kinds: vec!["alarming".into(), "everyday".into()], flip: 0.1, ..Proxy::default() },
        sample: Sample { n: 8, temperature: 0.7, max_new_tokens: 48 },
        select: Select { strategies: vec!["shf-cas".into(), "random".into()], budget: 64, ..Select::default() },
        reward: RewardTraining { epochs: 1, last_layers: 10, ..RewardTraining::default() },
        tune: PolicyTraining { steps: 16, prompts: 8, k: 4, ..PolicyTraining::default() },
        evaluate: Evaluate { n: 4, kl_n: 2, ..Evaluate::default() },
        ..Recipe::default()
    }
}

/// The same stages in a few minutes.
fn shrink(recipe: Recipe) -> Recipe {
    Recipe {
        prompts: Prompts { limit: 12, heldout_limit: 6, ..recipe.prompts },
        proxy: Proxy { pairs: 24, ..recipe.proxy },
        sample: Sample { n: 4, max_new_tokens: 16, ..recipe.sample },
        select: Select { budget: 8, ..recipe.select },
        reward: RewardTraining { epochs: 1, ..recipe.reward },
        tune: PolicyTraining { steps: 2, prompts: 4, k: 2, ..recipe.tune },
        evaluate: Evaluate { n: 4, kl_n: 1, ..Evaluate::default() },
        ..recipe
    }
}
