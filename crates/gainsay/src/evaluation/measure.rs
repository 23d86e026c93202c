//! Figures per prompt out of completions, and their means with intervals. Pure functions.

use std::collections::HashSet;

use gainsay_core::conflict::{kendall_tau_distance, pacs};
use gainsay_core::record::{Completion, PromptRecord};
use gainsay_core::rng::Key;
use gainsay_core::stats::{Interval, bootstrap_mean, bootstrap_paired_difference, mean, pearson};
use gainsay_lm::loss::kl_k3;

use super::types::{Difference, Everyday, Metrics, PromptMetrics, Verdict};

/// Bootstrap resamples of every interval.
pub const RESAMPLES: usize = 2_000;

/// KL(policy || base) of one completion sampled from the policy: k3 ([`kl_k3`]) summed over its tokens,
/// nats. `policy` and `base` hold the same tokens' log-probs under each.
pub fn sequence_kl(policy: &[f32], base: &[f32]) -> f64 {
    policy.iter().zip(base).map(|(p, q)| kl_k3(f64::from(*p), f64::from(*q))).sum()
}

/// P(a random one of `ours` beats a random one of `theirs`), ties 1/2; `None` when either is empty.
pub fn win_rate(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    let points = ours.iter().flat_map(|a| theirs.iter().map(move |b| comparison(*a, *b))).collect::<Vec<_>>();
    mean(&points)
}

/// Share of the pairs with different gold that `rewards` order as `gold` does, reward ties 1/2;
/// `None` when all gold values are equal.
pub fn pair_accuracy(rewards: &[f64], gold: &[f64]) -> Option<f64> {
    let mut points = Vec::new();
    for i in 0..gold.len() {
        for j in i + 1..gold.len() {
            if gold[i] != gold[j] {
                let sign = if gold[i] > gold[j] { 1.0 } else { -1.0 };
                points.push(comparison(sign * rewards[i], sign * rewards[j]));
            }
        }
    }
    mean(&points)
}

/// distinct-n (Li et al., arXiv 1510.03055): different n-grams of words over all n-grams, of the
/// texts together; n-grams do not cross texts. In (0, 1]; `None` without any n-gram.
pub fn distinct_n<'a>(texts: impl Iterator<Item = &'a str>, n: usize) -> Option<f64> {
    let (mut all, mut different) = (0usize, HashSet::new());
    for text in texts {
        let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
        for gram in words.windows(n.max(1)) {
            all += 1;
            different.insert(gram.to_vec());
        }
    }
    (all > 0).then(|| different.len() as f64 / all as f64)
}

/// 1 when a > b, 1/2 when equal, else 0.
fn comparison(a: f64, b: f64) -> f64 {
    match a.partial_cmp(&b) {
        Some(std::cmp::Ordering::Greater) => 1.0,
        Some(std::cmp::Ordering::Less) => 0.0,
        _ => 0.5,
    }
}

/// The figures of one prompt's completions: `logp` under the base policy, `token_logps` under the
/// evaluated one, `reward`, `gold`. What a completion lacks leaves the figure out.
pub fn prompt_metrics(record: &PromptRecord, against: Option<&PromptRecord>) -> PromptMetrics {
    let all =
        |field: fn(&Completion) -> Option<f64>| record.completions.iter().map(field).collect::<Option<Vec<f64>>>();
    let rewards = all(|c| c.reward);
    let gold = all(|c| c.gold);
    let lengths = all(|c| c.n_tokens.map(f64::from));
    let own = all(|c| c.token_logps.as_ref().map(|t| t.iter().map(|v| f64::from(*v)).sum()));
    let theirs = against.and_then(|r| r.completions.iter().map(|c| c.gold).collect::<Option<Vec<f64>>>());
    let (mean_abs_pacs, k) = conflict(rewards.as_deref(), all(|c| c.logp).as_deref());
    let (mean_abs_pacs_own, k_own) = conflict(rewards.as_deref(), own.as_deref());
    let length_correlation = rewards.as_deref().zip(lengths.as_deref()).and_then(|(r, n)| pearson(r, n));
    let distinct = |n| distinct_n(record.completions.iter().map(|c| c.text.as_str()), n);
    PromptMetrics {
        id: record.id.clone(),
        gold_reward: gold.as_deref().and_then(mean),
        proxy_reward: rewards.as_deref().and_then(mean),
        win_rate: gold.as_deref().zip(theirs.as_deref()).and_then(|(a, b)| win_rate(a, b)),
        mean_abs_pacs,
        kendall_tau_distance: k,
        mean_abs_pacs_own,
        kendall_tau_distance_own: k_own,
        kl: None,
        length: lengths.as_deref().and_then(mean),
        nll_per_token: own.zip(lengths).map(|(logps, n)| -logps.iter().sum::<f64>() / n.iter().sum::<f64>()),
        reward_accuracy: None,
        entropy: None,
        distinct_1: distinct(1),
        distinct_2: distinct(2),
        distinct_3: distinct(3),
        length_correlation,
    }
}

/// Mean |PACS| and K of one group; absent when degenerate.
fn conflict(rewards: Option<&[f64]>, logps: Option<&[f64]>) -> (Option<f64>, Option<f64>) {
    let Some((rewards, logps)) = rewards.zip(logps) else { return (None, None) };
    let Some(pacs) = pacs(rewards, logps) else { return (None, None) };
    let magnitudes: Vec<f64> = pacs.iter().map(|p| p.abs()).collect();
    (mean(&magnitudes), kendall_tau_distance(rewards, logps))
}

type Field = fn(&PromptMetrics) -> Option<f64>;

/// Every metric by its name.
pub const FIELDS: [(&str, Field); 16] = [
    ("gold_reward", |m| m.gold_reward),
    ("proxy_reward", |m| m.proxy_reward),
    ("win_rate", |m| m.win_rate),
    ("mean_abs_pacs", |m| m.mean_abs_pacs),
    ("kendall_tau_distance", |m| m.kendall_tau_distance),
    ("mean_abs_pacs_own", |m| m.mean_abs_pacs_own),
    ("kendall_tau_distance_own", |m| m.kendall_tau_distance_own),
    ("kl", |m| m.kl),
    ("length", |m| m.length),
    ("nll_per_token", |m| m.nll_per_token),
    ("reward_accuracy", |m| m.reward_accuracy),
    ("entropy", |m| m.entropy),
    ("distinct_1", |m| m.distinct_1),
    ("distinct_2", |m| m.distinct_2),
    ("distinct_3", |m| m.distinct_3),
    ("length_correlation", |m| m.length_correlation),
];

/// Means over prompts with 95 % bootstrap intervals; a metric that no prompt has is absent.
pub fn metrics(per_prompt: &[PromptMetrics], seed: u64) -> Metrics {
    let of = |name: &str| -> Option<Interval> {
        let (_, field) = FIELDS.iter().find(|(n, _)| *n == name)?;
        let values: Vec<f64> = per_prompt.iter().filter_map(field).collect();
        bootstrap_mean(&values, RESAMPLES, Key::new(seed, &format!("evaluate/{name}")))
    };
    Metrics {
        gold_reward: of("gold_reward"),
        proxy_reward: of("proxy_reward"),
        win_rate: of("win_rate"),
        mean_abs_pacs: of("mean_abs_pacs"),
        kendall_tau_distance: of("kendall_tau_distance"),
        mean_abs_pacs_own: of("mean_abs_pacs_own"),
        kendall_tau_distance_own: of("kendall_tau_distance_own"),
        kl: of("kl"),
        length: of("length"),
        nll_per_token: of("nll_per_token"),
        reward_accuracy: of("reward_accuracy"),
        entropy: of("entropy"),
        distinct_1: of("distinct_1"),
        distinct_2: of("distinct_2"),
        distinct_3: of("distinct_3"),
        length_correlation: of("length_correlation"),
    }
}

/// Paired differences a - b over the prompts that have the metric in both, for every metric.
pub fn differences(a: (&str, &[PromptMetrics]), b: (&str, &[PromptMetrics]), seed: u64) -> Vec<Difference> {
    let mut found = Vec::new();
    for (name, field) in FIELDS {
        let pairs: Vec<(f64, f64)> =
            a.1.iter()
                .filter_map(|left| field(left).zip(b.1.iter().find(|right| right.id == left.id).and_then(field)))
                .collect();
        let key_name = format!("difference/{name}");
        if let Some(difference) = bootstrap_paired_difference(&pairs, RESAMPLES, Key::new(seed, &key_name)) {
            let verdict = verdict(&difference);
            found.push(Difference { metric: name.into(), a: a.0.into(), b: b.0.into(), difference, verdict });
        }
    }
    found
}

/// "Not distinguishable" where the interval holds 0.
pub fn verdict(difference: &Interval) -> Verdict {
    match (difference.holds(0.0), difference.estimate > 0.0) {
        (true, _) => Verdict::NotDistinguishable,
        (false, true) => Verdict::Higher,
        (false, false) => Verdict::Lower,
    }
}

/// [`Everyday`] from mean log-probs a token, one (policy, base) a prompt; `None` without prompts.
pub fn everyday(answers: usize, by_prompt: &[(f64, f64)], seed: u64) -> Option<Everyday> {
    let mean_of = |name: &str, values: Vec<f64>| bootstrap_mean(&values, RESAMPLES, Key::new(seed, name));
    Some(Everyday {
        answers,
        base: mean_of("everyday/base", by_prompt.iter().map(|(_, base)| *base).collect())?,
        policy: mean_of("everyday/policy", by_prompt.iter().map(|(policy, _)| *policy).collect())?,
        change: bootstrap_paired_difference(by_prompt, RESAMPLES, Key::new(seed, "everyday/change"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: Option<f64>, by_hand: f64) {
        assert!(found.is_some_and(|x| (x - by_hand).abs() < 1e-6), "{found:?} {by_hand}");
    }

    #[test]
    fn wins_and_orders_by_hand() {
        // 0 draws with 0 and loses to 1; each 1 beats 0 and draws with 1: 0.5 + 0 + 2 (1 + 0.5) of 6.
        near(win_rate(&[0.0, 1.0, 1.0], &[0.0, 1.0]), 3.5 / 6.0);
        assert_eq!((win_rate(&[], &[1.0]), win_rate(&[1.0], &[])), (None, None));
        // Gold orders two pairs: one right, one with equal rewards.
        near(pair_accuracy(&[0.0, 1.0, 0.0], &[0.0, 1.0, 1.0]), 0.75);
        assert_eq!(pair_accuracy(&[0.0, 1.0], &[1.0, 1.0]), None);
    }

    #[test]
    fn a_sequences_kl_by_hand() {
        // k3 of log-ratios u = log(q / p): exp(u) - 1 - u. With p = 1/2 and q = 1/4 that is ln 2 - 1/2.
        let [half, quarter] = [0.5f32.ln(), 0.25f32.ln()];
        let by_hand = 2f64.ln() - 0.5;
        assert!((sequence_kl(&[half, half], &[quarter, quarter]) - 2.0 * by_hand).abs() < 1e-6);
        assert_eq!(sequence_kl(&[half], &[half]), 0.0);
    }

    #[test]
    fn a_prompts_figures_by_hand() {
        let completion = |i: u32, gold: f64| Completion {
            text: ["a b", "a", "c"][i as usize - 1].into(),
            reward: Some(f64::from(i)),
            gold: Some(gold),
            logp: Some(-f64::from(i)),
            n_tokens: Some(i),
            token_logps: Some(vec![-1.0; i as usize]),
            ..Completion::default()
        };
        let empty: PromptRecord =
            serde_json::from_str(r#"{"schema":1,"id":"x","prompt":"q","completions":[]}"#).expect("a record");
        let record = |completions| PromptRecord { completions, ..empty.clone() };
        let ours = record(vec![completion(1, 0.0), completion(2, 1.0), completion(3, 1.0)]);
        let base = record(vec![completion(1, 0.0), completion(2, 1.0)]);
        let found = prompt_metrics(&ours, Some(&base));
        near(found.gold_reward, 2.0 / 3.0);
        near(found.proxy_reward, 2.0);
        near(found.win_rate, 3.5 / 6.0);
        // Rewards rise as log-probs fall: every pair is reversed, and PACS is -2 sqrt(1.5), 0, 2 sqrt(1.5).
        near(found.kendall_tau_distance, 1.0);
        near(found.mean_abs_pacs, 4.0 * 1.5f64.sqrt() / 3.0);
        near(found.mean_abs_pacs_own, 4.0 * 1.5f64.sqrt() / 3.0);
        near(found.length, 2.0);
        // Six tokens of -1 each.
        near(found.nll_per_token, 1.0);
        near(found.length_correlation, 1.0);
        // a, b, a, c.
        near(found.distinct_1, 0.75);
        assert_eq!((found.kl, found.entropy, found.reward_accuracy), (None, None, None));
        let mut bare = ours;
        bare.completions[1].reward = None;
        let found = prompt_metrics(&bare, None);
        assert_eq!((found.proxy_reward, found.kendall_tau_distance, found.win_rate), (None, None, None));
    }

    #[test]
    fn everyday_answers_by_hand() {
        let found = everyday(5, &[(-2.0, -1.0), (-4.0, -2.0)], 0).unwrap();
        assert_eq!((found.answers, found.policy.estimate, found.base.estimate), (5, -3.0, -1.5));
        // Both prompts fell, by 1 and by 2.
        assert!(found.change.estimate == -1.5 && found.change.high < 0.0);
        assert!(everyday(0, &[], 0).is_none());
    }

    #[test]
    fn distinct_n_by_hand() {
        // "a b", "b a", "a b" and "a b": 2 of 4.
        assert_eq!(distinct_n(["a b a b", "A B"].into_iter(), 2), Some(0.5));
        assert_eq!(distinct_n(["a", ""].into_iter(), 2), None);
        assert_eq!(distinct_n(["a b c"].into_iter(), 1), Some(1.0));
    }
}
