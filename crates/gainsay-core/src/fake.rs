//! Deterministic stand-ins for models and annotators, exact and without weights: whole pipelines
//! run on them in milliseconds.

use crate::engine::{
    Comparison, Decoding, EngineError, LogProb, Oracle, RewardFn, SampleRequest, Sampler, ScoreItem, SequenceLogp,
};
use crate::oracle::preference;
use crate::record::{Completion, Finish};
use crate::rng::{Key, Stream};

/// The turn-end token of [`FakePolicy`]; tokens below it are bytes.
pub const END: u32 = 256;

/// Number of tokens of [`FakePolicy`].
const VOCABULARY: usize = 257;

/// A policy over bytes and a turn end whose next token does not depend on what came before.
#[derive(Clone, Debug, PartialEq)]
pub struct FakePolicy {
    name: &'static str,
    /// Probability of every token at temperature 1.
    probabilities: Vec<f64>,
}

impl FakePolicy {
    /// Uniform logits: a completion of n tokens has log-prob -n ln 257.
    pub fn uniform() -> Self {
        Self { name: "fake-uniform", probabilities: vec![1.0 / VOCABULARY as f64; VOCABULARY] }
    }

    /// Short lower-case words: P(turn end) = 1/16, letters and spaces share 14/16, everything else
    /// 1/16. Completions differ in length and log-prob, so that conflict is not degenerate.
    pub fn chatty() -> Self {
        let letters = |token: usize| (97..=122).contains(&token) || token == 32;
        let probability = |token: usize| match token {
            256 => 1.0 / 16.0,
            // A space is as likely as six letters; letters get rarer along the alphabet.
            32 => 14.0 / 16.0 * 6.0 / 32.0,
            _ if letters(token) => 14.0 / 16.0 * 26.0 / 32.0 * (123 - token) as f64 / 351.0,
            _ => 1.0 / 16.0 / 229.0,
        };
        Self { name: "fake-chatty", probabilities: (0..VOCABULARY).map(probability).collect() }
    }

    fn logp(&self, token: u32) -> Result<f64, EngineError> {
        let probability = self.probabilities.get(token as usize);
        probability.map(|p| p.ln()).ok_or_else(|| format!("token {token} is not a byte or the turn end").into())
    }

    /// One completion; every token draws from its own place in the stream.
    fn complete(
        &self,
        sampled: &[(u32, f64)],
        decoding: &Decoding,
        stream: &mut Stream,
    ) -> Result<Completion, EngineError> {
        let (mut ids, mut token_logps, mut sum) = (Vec::new(), Vec::new(), 0.0);
        let mut finish = Finish::Length;
        for position in 0..decoding.max_new_tokens {
            let token = pick(sampled, stream.uniform_at(position as u64));
            let logp = self.logp(token)?;
            ids.push(token);
            token_logps.push(logp as f32);
            sum += logp;
            if token == END && !decoding.ignore_eos {
                finish = Finish::Stop;
                break;
            }
        }
        let bytes: Vec<u8> = ids.iter().filter_map(|id| u8::try_from(*id).ok()).collect();
        Ok(Completion {
            text: String::from_utf8_lossy(&bytes).into_owned(),
            n_tokens: Some(ids.len() as u32),
            token_ids: Some(ids),
            logp: Some(sum),
            token_logps: Some(token_logps),
            finish: Some(finish),
            ..Completion::default()
        })
    }
}

/// The tokens that are sampled from, likeliest first, with their probabilities: p^(1/T), cut to
/// the `top_k` likeliest and to the smallest set that reaches `top_p`, normalized.
fn distribution(probabilities: &[f64], decoding: &Decoding) -> Vec<(u32, f64)> {
    let mut tokens: Vec<(u32, f64)> = (0..).zip(probabilities.iter().copied()).collect();
    tokens.sort_by(|a, b| b.1.total_cmp(&a.1));
    if decoding.temperature == 0.0 {
        return vec![(tokens[0].0, 1.0)];
    }
    tokens.iter_mut().for_each(|(_, p)| *p = p.powf(1.0 / decoding.temperature));
    if decoding.top_k > 0 {
        tokens.truncate(decoding.top_k);
    }
    let total: f64 = tokens.iter().map(|(_, p)| p).sum();
    let mut reached = 0.0;
    let kept = tokens.iter().take_while(|(_, p)| {
        let more = reached < decoding.top_p;
        reached += p / total;
        more
    });
    let kept = kept.count();
    tokens.truncate(kept.max(1));
    let total: f64 = tokens.iter().map(|(_, p)| p).sum();
    tokens.iter_mut().for_each(|(_, p)| *p /= total);
    tokens
}

/// Inverse of the cumulative distribution at `u` in [0, 1).
fn pick(tokens: &[(u32, f64)], u: f64) -> u32 {
    let mut cumulative = 0.0;
    let reached = tokens.iter().find(|(_, p)| {
        cumulative += p;
        u < cumulative
    });
    reached.or(tokens.last()).map_or(END, |(token, _)| *token)
}

impl Sampler for FakePolicy {
    fn sample(&self, requests: &[SampleRequest], decoding: &Decoding) -> Result<Vec<Vec<Completion>>, EngineError> {
        let sampled = distribution(&self.probabilities, decoding);
        let complete = |request: &SampleRequest, index: usize| {
            let key = Key::new(decoding.seed, &decoding.purpose).round(decoding.round).step(decoding.step);
            self.complete(&sampled, decoding, &mut key.prompt(&request.id).completion(index).stream())
        };
        requests.iter().map(|request| (0..request.n).map(|index| complete(request, index)).collect()).collect()
    }

    fn identity(&self) -> String {
        self.name.into()
    }
}

impl LogProb for FakePolicy {
    fn logps(&self, items: &[ScoreItem<'_>]) -> Result<Vec<SequenceLogp>, EngineError> {
        let score = |item: &ScoreItem<'_>| {
            let logps: Vec<f64> = tokens(item).into_iter().map(|id| self.logp(id)).collect::<Result<_, _>>()?;
            Ok(SequenceLogp { sum: logps.iter().sum(), token_logps: logps.iter().map(|l| *l as f32).collect() })
        };
        items.iter().map(score).collect()
    }

    fn identity(&self) -> String {
        self.name.into()
    }
}

/// The item's tokens: its ids, or the text's bytes and the turn end.
fn tokens(item: &ScoreItem<'_>) -> Vec<u32> {
    match item.token_ids {
        Some(ids) => ids.to_vec(),
        None => {
            let end = (item.finish != Some(Finish::Length)).then_some(END);
            item.text.bytes().map(u32::from).chain(end).collect()
        }
    }
}

/// A reward that is a fixed standard normal number for every prompt and text, plus a length bias:
/// spread * normal(seed, prompt, text) + per_byte * bytes of the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FakeReward {
    /// Different seeds are different tastes.
    pub seed: u64,
    /// Standard deviation of the taste.
    pub spread: f64,
    /// Reward of every byte of the text.
    pub per_byte: f64,
}

impl FakeReward {
    /// A taste of its own, without a length bias.
    pub fn new(seed: u64) -> Self {
        Self { seed, spread: 1.0, per_byte: 0.0 }
    }
}

impl RewardFn for FakeReward {
    fn rewards(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>, EngineError> {
        let reward = |item: &ScoreItem<'_>| {
            let prompt = item.prompt.display();
            let taste = Key::new(self.seed, item.text).prompt(&prompt).stream().normal();
            self.spread * taste + self.per_byte * item.text.len() as f64
        };
        Ok(items.iter().map(reward).collect())
    }

    fn identity(&self) -> String {
        format!("fake-reward seed={} spread={} per_byte={}", self.seed, self.spread, self.per_byte)
    }
}

/// An annotator who prefers the shorter text, and has no answer where both are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefersShorter;

impl Oracle for PrefersShorter {
    fn compare(&self, comparisons: &[Comparison<'_>]) -> Result<Vec<Option<f64>>, EngineError> {
        let answer = |c: &Comparison<'_>| {
            let (first, second) = (c.first.text.len(), c.second.text.len());
            (first + second > 0).then(|| preference(second as f64, first as f64))
        };
        Ok(comparisons.iter().map(answer).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Prompt;

    fn requests() -> Vec<SampleRequest> {
        ["a", "b", "c"].map(|id| SampleRequest { id: id.into(), prompt: Prompt::Text(id.into()), n: 8 }).into()
    }

    #[test]
    fn probabilities_are_probabilities() {
        for policy in [FakePolicy::uniform(), FakePolicy::chatty()] {
            let total: f64 = policy.probabilities.iter().sum();
            assert!((total - 1.0).abs() < 1e-12, "{} {total}", policy.name);
            assert!(policy.probabilities.iter().all(|p| *p > 0.0));
        }
    }

    #[test]
    fn uniform_log_probs_count_tokens() {
        let policy = FakePolicy::uniform();
        let decoding = Decoding { max_new_tokens: 300, ..Decoding::default() };
        for completion in policy.sample(&requests(), &decoding).unwrap().concat() {
            let n = completion.token_ids.as_ref().unwrap().len();
            assert_eq!(completion.n_tokens, Some(n as u32));
            assert!((completion.logp.unwrap() + n as f64 * 257f64.ln()).abs() < 1e-9);
            let stopped = completion.token_ids.as_ref().unwrap().last() == Some(&END);
            assert_eq!(completion.finish, Some(if stopped { Finish::Stop } else { Finish::Length }));
        }
    }

    #[test]
    fn scoring_a_sample_gives_its_log_prob() {
        let policy = FakePolicy::chatty();
        let prompt = Prompt::Text("?".into());
        for completion in policy.sample(&requests(), &Decoding::default()).unwrap().concat() {
            let scored = &policy.logps(&[ScoreItem::of(&prompt, &completion)]).unwrap()[0];
            assert!((scored.sum - completion.logp.unwrap()).abs() < 1e-12);
            assert_eq!(Some(&scored.token_logps), completion.token_logps.as_ref());
            // Where the bytes are text, the text alone gives the same.
            if !completion.text.contains('\u{fffd}') {
                let text = Completion { token_ids: None, ..completion.clone() };
                let again = &policy.logps(&[ScoreItem::of(&prompt, &text)]).unwrap()[0];
                assert!((again.sum - scored.sum).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_the_batch() {
        let policy = FakePolicy::chatty();
        let all = policy.sample(&requests(), &Decoding::default()).unwrap();
        let alone = policy.sample(&requests()[1..2], &Decoding::default()).unwrap();
        assert_eq!(all[1], alone[0]);
        assert_ne!(all[0], all[1]);
        let other = Decoding { seed: 1, ..Decoding::default() };
        assert_ne!(policy.sample(&requests(), &other).unwrap(), all);
    }

    #[test]
    fn cuts_keep_the_likeliest() {
        let probabilities = [0.5, 0.3, 0.15, 0.05];
        let kept = |decoding: Decoding| -> Vec<(u32, f64)> { distribution(&probabilities, &decoding) };
        let at = |temperature, top_k, top_p| Decoding { temperature, top_k, top_p, ..Decoding::default() };
        assert_eq!(kept(at(0.0, 0, 1.0)), [(0, 1.0)]);
        let two = kept(at(1.0, 2, 1.0));
        assert!(two.len() == 2 && (two[0].1 - 0.625).abs() < 1e-12 && (two[1].1 - 0.375).abs() < 1e-12);
        assert_eq!(kept(at(1.0, 0, 0.7)).len(), 2);
        // Temperature 1/2 squares: 0.25, 0.09, 0.0225, 0.0025 of 0.365.
        assert!((kept(at(0.5, 0, 1.0))[0].1 - 0.25 / 0.365).abs() < 1e-12);
        assert_eq!(kept(at(1.0, 0, 1.0)).len(), 4);
    }

    #[test]
    fn rewards_and_preferences_are_fixed() {
        let prompt = Prompt::Text("?".into());
        let item = |text| ScoreItem { prompt: &prompt, text, token_ids: None, finish: None };
        let reward = FakeReward::new(1);
        let both = reward.rewards(&[item("a"), item("b")]).unwrap();
        assert_eq!(reward.rewards(&[item("b")]).unwrap()[0], both[1]);
        assert_ne!(both[0], both[1]);
        let biased = FakeReward { spread: 0.0, per_byte: 2.0, ..reward };
        assert_eq!(biased.rewards(&[item("four")]).unwrap(), [8.0]);
        let compare = |first, second| {
            let comparison = Comparison { id: "p/0-1", first: item(first), second: item(second) };
            PrefersShorter.compare(&[comparison]).unwrap()[0]
        };
        assert_eq!([compare("a", "bb"), compare("aa", "b"), compare("a", "b")], [Some(1.0), Some(0.0), Some(0.5)]);
        assert_eq!(compare("", ""), None);
    }
}
