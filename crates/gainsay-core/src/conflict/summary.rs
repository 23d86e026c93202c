//! What a whole file shows, gathered in one pass and constant memory.

use super::annotate::{logp_of, token_count};
use super::{Conflict, ConflictOptions, Degenerate, GroupOutcome, SummaryConvention};
use crate::record::PromptRecord;
use crate::rng::Key;
use crate::stats::{CoMoments, Interval, Moments, RESAMPLES, bootstrap_means, wilson};
use serde::Serialize;
use std::fmt::Write as _;

/// Up to this many prompts the per-prompt values are kept and intervals are bootstrapped; above,
/// they are normal intervals from streaming moments.
pub const KEEP: usize = 100_000;

/// Bins of the histogram of K over [0, 1].
const BINS: usize = 20;

/// Number of degenerate prompts by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DegenerateCounts {
    /// All of them.
    pub total: u64,
    /// Fewer than two completions.
    pub too_few: u64,
    /// A reward, log-prob or token count is missing.
    pub missing_value: u64,
    /// A value is not finite.
    pub non_finite: u64,
    /// Constant rewards.
    pub constant_reward: u64,
    /// Constant log-probs.
    pub constant_logp: u64,
}

impl DegenerateCounts {
    /// Counts one more.
    pub fn add(&mut self, reason: Degenerate) {
        self.total += 1;
        *match reason {
            Degenerate::TooFew => &mut self.too_few,
            Degenerate::MissingValue => &mut self.missing_value,
            Degenerate::NonFinite => &mut self.non_finite,
            Degenerate::ConstantReward => &mut self.constant_reward,
            Degenerate::ConstantLogp => &mut self.constant_logp,
        } += 1;
    }
}

/// Unit of completion lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LengthUnit {
    /// `n_tokens`.
    #[default]
    Tokens,
    /// Bytes of the text, where the file's first completion has no token count.
    Bytes,
}

/// Pearson correlation of two quantities of the completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Correlation {
    /// Over all completions of the file.
    pub overall: Option<f64>,
    /// Within prompts: of the deviations from each prompt's mean. This is what PACS sees.
    pub within_prompt: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct CorrelationBuilder {
    overall: CoMoments,
    within: CoMoments,
}

impl CorrelationBuilder {
    fn see(&mut self, x: &[f64], y: &[f64]) {
        let group = CoMoments::of(x, y);
        self.overall.merge(&group);
        self.within.add_within(&group);
    }

    fn finish(&self) -> Correlation {
        Correlation { overall: self.overall.pearson(), within_prompt: self.within.pearson() }
    }
}

/// What a scored file shows; intervals are 95 %, over the prompts that are not degenerate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How everything was measured.
    pub convention: SummaryConvention,
    /// Prompts in the file.
    pub prompts: u64,
    /// Completions in the file.
    pub completions: u64,
    /// Prompts without conflict measures, by reason.
    pub degenerate: DegenerateCounts,
    /// Mean over prompts of mean |PACS|.
    pub mean_abs_pacs: Option<Interval>,
    /// Mean over prompts of K; chance is 1/2.
    pub kendall_tau_distance: Option<Interval>,
    /// Mean over prompts of tau-b; chance is 0.
    pub tau_b: Option<Interval>,
    /// Share of prompts with K > 1/2: reward model and policy disagree more than chance would.
    pub share_k_above_half: Option<Interval>,
    /// Prompts by K, in 20 bins over [0, 1]; a bin holds its lower edge, the last also 1.
    pub k_histogram: Vec<u64>,
    /// Reward and log-prob.
    pub reward_logp: Correlation,
    /// Log-prob and length: near -1 says that conflict is mostly about length.
    pub logp_length: Correlation,
    /// Reward and length.
    pub reward_length: Correlation,
    /// Unit of the lengths.
    pub length_unit: LengthUnit,
    /// Completions left out of the length correlations because they lack a token count.
    pub without_length: u64,
}

/// Gathers a [`Summary`] record by record.
#[derive(Clone, Debug)]
pub struct SummaryBuilder {
    options: ConflictOptions,
    prompts: u64,
    completions: u64,
    degenerate: DegenerateCounts,
    /// mean |PACS|, K and tau-b a prompt, while there are at most [`KEEP`] of them.
    rows: Vec<[f64; 3]>,
    moments: [Moments; 3],
    above_half: u64,
    histogram: [u64; BINS],
    reward_logp: CorrelationBuilder,
    logp_length: CorrelationBuilder,
    reward_length: CorrelationBuilder,
    length_unit: Option<LengthUnit>,
    without_length: u64,
    /// Rewards, log-probs and lengths of the current record.
    scratch: [Vec<f64>; 3],
}

impl SummaryBuilder {
    /// A summary of values measured under `options`.
    pub fn new(options: ConflictOptions) -> Self {
        Self {
            options,
            prompts: 0,
            completions: 0,
            degenerate: DegenerateCounts::default(),
            rows: Vec::new(),
            moments: Default::default(),
            above_half: 0,
            histogram: [0; BINS],
            reward_logp: Default::default(),
            logp_length: Default::default(),
            reward_length: Default::default(),
            length_unit: None,
            without_length: 0,
            scratch: Default::default(),
        }
    }

    /// Takes in a record and its outcome.
    pub fn see(&mut self, record: &PromptRecord, outcome: &GroupOutcome) {
        let unit = match (self.length_unit, record.completions.first()) {
            (Some(unit), _) => unit,
            (None, Some(first)) if token_count(first).is_none() => LengthUnit::Bytes,
            (None, _) => LengthUnit::Tokens,
        };
        let [mut rewards, mut logps, mut lengths] = std::mem::take(&mut self.scratch);
        rewards.clear();
        logps.clear();
        lengths.clear();
        for completion in &record.completions {
            let (reward, logp) = (completion.reward, logp_of(completion, self.options.logp));
            let (Some(reward), Some(logp)) = (reward, logp) else { continue };
            if !(reward.is_finite() && logp.is_finite()) {
                continue;
            }
            let length = match unit {
                LengthUnit::Tokens => token_count(completion).map(f64::from),
                LengthUnit::Bytes => Some(completion.text.len() as f64),
            };
            rewards.push(reward);
            logps.push(logp);
            lengths.push(length.unwrap_or(f64::NAN));
        }
        self.see_values(&rewards, &logps, &lengths, unit, outcome);
        self.see_unknown(record.completions.len() - rewards.len());
        self.scratch = [rewards, logps, lengths];
    }

    /// Counts completions of which a value is missing.
    pub fn see_unknown(&mut self, completions: usize) {
        self.completions += completions as u64;
    }

    /// [`SummaryBuilder::see`] on flat slices of finite values; a length that is not a number is
    /// unknown.
    ///
    /// # Panics
    /// When the slices differ in length.
    pub fn see_values(
        &mut self,
        rewards: &[f64],
        logps: &[f64],
        lengths: &[f64],
        unit: LengthUnit,
        outcome: &GroupOutcome,
    ) {
        self.prompts += 1;
        self.completions += rewards.len() as u64;
        if !rewards.is_empty() {
            self.length_unit.get_or_insert(unit);
        }
        self.reward_logp.see(rewards, logps);
        let unknown = lengths.iter().filter(|n| n.is_nan()).count();
        self.without_length += unknown as u64;
        if unknown == 0 {
            self.logp_length.see(logps, lengths);
            self.reward_length.see(rewards, lengths);
        } else {
            let known = |values: &[f64]| -> Vec<f64> {
                let both = values.iter().zip(lengths);
                both.filter(|(_, n)| !n.is_nan()).map(|(v, _)| *v).collect()
            };
            self.logp_length.see(&known(logps), &known(lengths));
            self.reward_length.see(&known(rewards), &known(lengths));
        }
        match outcome {
            Ok(conflict) => self.see_conflict(conflict),
            Err(reason) => self.degenerate.add(*reason),
        }
    }

    fn see_conflict(&mut self, conflict: &Conflict) {
        let row = [conflict.mean_abs_pacs, conflict.k, conflict.tau_b];
        self.moments.iter_mut().zip(row).for_each(|(moments, value)| moments.push(value));
        match self.moments[0].n() as usize {
            n if n <= KEEP => self.rows.push(row),
            _ => self.rows = Vec::new(),
        }
        self.above_half += u64::from(conflict.k > 0.5);
        self.histogram[((conflict.k * BINS as f64) as usize).min(BINS - 1)] += 1;
    }

    /// The summary; `key` draws the bootstrap resamples.
    pub fn finish(&self, key: Key<'_>) -> Summary {
        let n = self.moments[0].n();
        let [pacs, k, tau_b] = match bootstrap_means(&self.rows, RESAMPLES, key) {
            Some(intervals) => intervals.map(Some),
            None => self.moments.map(|m| m.normal_interval()),
        };
        Summary {
            convention: self.options.convention(),
            prompts: self.prompts,
            completions: self.completions,
            degenerate: self.degenerate,
            mean_abs_pacs: pacs,
            kendall_tau_distance: k,
            tau_b,
            share_k_above_half: wilson(self.above_half as f64, n),
            k_histogram: self.histogram.to_vec(),
            reward_logp: self.reward_logp.finish(),
            logp_length: self.logp_length.finish(),
            reward_length: self.reward_length.finish(),
            length_unit: self.length_unit.unwrap_or_default(),
            without_length: self.without_length,
        }
    }
}

impl Summary {
    /// Whether no prompt could be measured.
    pub fn all_degenerate(&self) -> bool {
        self.degenerate.total == self.prompts
    }

    /// The summary as lines of text for people.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let d = &self.degenerate;
        let _ = writeln!(out, "prompts              {}", self.prompts);
        let _ = writeln!(out, "completions          {}", self.completions);
        let _ = writeln!(
            out,
            "degenerate           {} (too few {}, missing value {}, not finite {}, constant reward {}, constant log-prob {})",
            d.total, d.too_few, d.missing_value, d.non_finite, d.constant_reward, d.constant_logp
        );
        let intervals = [
            ("mean |PACS|", &self.mean_abs_pacs, ""),
            ("Kendall distance K", &self.kendall_tau_distance, "chance 0.5"),
            ("tau-b", &self.tau_b, "chance 0"),
            ("prompts with K > 0.5", &self.share_k_above_half, ""),
        ];
        for (name, interval, note) in intervals {
            let text = interval.map_or_else(
                || "not defined".into(),
                |i| format!("{i}  95 % {}", format!("{:?}", i.method).to_lowercase()),
            );
            let _ = writeln!(out, "{}", format!("{name:<21}{text}  {note}").trim_end());
        }
        let unit = match self.length_unit {
            LengthUnit::Tokens => "tokens",
            LengthUnit::Bytes => "bytes of text",
        };
        let correlations = [
            ("reward and log-prob".to_string(), self.reward_logp),
            (format!("log-prob and length ({unit})"), self.logp_length),
            (format!("reward and length ({unit})"), self.reward_length),
        ];
        let _ = writeln!(out, "correlations over all completions / within prompts:");
        for (name, c) in correlations {
            let value = |v: Option<f64>| v.map_or("not defined".into(), |v| format!("{v:+.3}"));
            let (overall, within) = (value(c.overall), value(c.within_prompt));
            let _ = writeln!(out, "  {name:<38}{overall} / {within}");
        }
        let _ = writeln!(
            out,
            "conventions          log-prob {}, scope {}, {}",
            self.convention.logp, self.convention.scope, self.convention.compat
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::annotate;
    use super::*;

    fn record(id: &str, values: &[(f64, f64, u32)]) -> PromptRecord {
        let completions: Vec<String> = values
            .iter()
            .map(|(r, l, n)| format!(r#"{{"text":"t","reward":{r},"logp":{l},"n_tokens":{n}}}"#))
            .collect();
        let text = format!(r#"{{"id":"{id}","prompt":"?","completions":[{}]}}"#, completions.join(","));
        serde_json::from_str(&text).unwrap()
    }

    fn summary(records: &[PromptRecord]) -> Summary {
        let options = ConflictOptions::default();
        let mut builder = SummaryBuilder::new(options);
        for record in records {
            let outcome = annotate(&mut record.clone(), &options);
            builder.see(record, &outcome);
        }
        builder.finish(Key::new(0, "summary"))
    }

    #[test]
    fn by_hand() {
        let s = summary(&[
            record("a", &[(1.0, -1.0, 1), (2.0, -2.0, 2)]), // K 1, |PACS| 2, tau -1
            record("b", &[(1.0, -2.0, 2), (2.0, -1.0, 1)]), // K 0, |PACS| 0, tau 1
            record("c", &[(1.0, -2.0, 2), (1.0, -1.0, 1)]), // constant reward
        ]);
        assert_eq!((s.prompts, s.completions, s.degenerate.constant_reward), (3, 6, 1));
        assert_eq!(s.kendall_tau_distance.unwrap().estimate, 0.5);
        assert_eq!(s.mean_abs_pacs.unwrap().estimate, 1.0);
        assert_eq!(s.tau_b.unwrap().n, 2);
        assert_eq!(s.share_k_above_half.unwrap().estimate, 0.5);
        assert_eq!((s.k_histogram[0], s.k_histogram[19]), (1, 1));
        // logp = -length everywhere.
        assert!((s.logp_length.overall.unwrap() + 1.0).abs() < 1e-12);
        assert!((s.logp_length.within_prompt.unwrap() + 1.0).abs() < 1e-12);
        assert_eq!(s.length_unit, LengthUnit::Tokens);
        assert!(!s.all_degenerate());
        let text = s.render();
        assert!(text.contains("constant reward 1") && text.contains("-1.000"), "{text}");
    }

    #[test]
    fn nothing_measurable() {
        let s = summary(&[record("a", &[(1.0, -1.0, 1)])]);
        assert!(s.all_degenerate());
        assert_eq!((s.mean_abs_pacs, s.share_k_above_half), (None, None));
        assert!(s.render().contains("not defined"));
        assert_eq!(s.degenerate, DegenerateCounts { total: 1, too_few: 1, ..Default::default() });
    }

    #[test]
    fn text_bytes_stand_in_for_missing_token_counts() {
        let text = r#"{"id":"a","prompt":"?","completions":[
            {"text":"aa","reward":1,"logp":-2},{"text":"aaaa","reward":2,"logp":-4}]}"#;
        let s = summary(&[serde_json::from_str(text).unwrap()]);
        assert_eq!(s.length_unit, LengthUnit::Bytes);
        assert!((s.logp_length.overall.unwrap() + 1.0).abs() < 1e-12);
    }

    #[test]
    fn large_files_get_normal_intervals_and_say_so() {
        let mut builder = SummaryBuilder::new(ConflictOptions::default());
        for i in 0..=KEEP {
            let k = (i % 2) as f64;
            let conflict = Conflict { k, tau_b: 1.0 - 2.0 * k, mean_abs_pacs: 2.0 * k, max_abs_pacs: 2.0 * k };
            builder.see_values(&[], &[], &[], LengthUnit::Tokens, &Ok(conflict));
        }
        let s = builder.finish(Key::new(0, "summary"));
        let json = serde_json::to_value(&s).unwrap();
        assert_eq!(json["kendall_tau_distance"]["interval"], "normal");
        assert!((s.kendall_tau_distance.unwrap().estimate - 0.5).abs() < 1e-4);
        assert!(builder.rows.is_empty());
    }
}
