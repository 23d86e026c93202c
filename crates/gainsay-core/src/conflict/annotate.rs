//! Conflict measures written into prompt records.

use super::{ConflictOptions, Degenerate, GroupOutcome, LogpKind};
use crate::record::{Completion, PromptRecord};
use serde_json::json;
use thiserror::Error;

/// No record of the file was ever scored: what its first one lacks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConflictError {
    /// The record has no completions at all.
    #[error("record \"{id}\" has no completions: run \"gainsay sample\" first, then score")]
    NoCompletions {
        /// The record's id.
        id: String,
    },
    /// No completion of the record has the field.
    #[error("record \"{id}\": no completion has a {field}: run \"{remedy}\" first")]
    Missing {
        /// The record's id.
        id: String,
        /// The missing field.
        field: &'static str,
        /// The command that fills it.
        remedy: &'static str,
    },
}

/// Rewards and log-probs of one prompt's completions; reused from record to record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupValues {
    /// Proxy rewards.
    pub rewards: Vec<f64>,
    /// Log-probs, nats: sums, or means per token.
    pub logps: Vec<f64>,
}

impl GroupValues {
    /// Reads the record's values; [`Degenerate::MissingValue`] when a completion lacks one.
    pub fn fill(&mut self, record: &PromptRecord, kind: LogpKind) -> Result<(), Degenerate> {
        self.rewards.clear();
        self.logps.clear();
        for completion in &record.completions {
            self.rewards.push(completion.reward.ok_or(Degenerate::MissingValue)?);
            self.logps.push(logp_of(completion, kind).ok_or(Degenerate::MissingValue)?);
        }
        Ok(())
    }
}

/// The completion's log-prob, nats: the sum, or the sum over its number of tokens.
pub(super) fn logp_of(completion: &Completion, kind: LogpKind) -> Option<f64> {
    match kind {
        LogpKind::Sum => completion.logp,
        LogpKind::MeanPerToken => Some(completion.logp? / f64::from(token_count(completion)?)),
    }
}

/// Number of tokens of the completion, where it is known and not 0.
pub(crate) fn token_count(completion: &Completion) -> Option<u32> {
    let counted = || completion.token_ids.as_ref().map(|ids| ids.len() as u32);
    completion.n_tokens.or_else(counted).filter(|n| *n > 0)
}

/// Fills `pacs`, `z_reward`, `z_logp`, `kendall_tau_distance` and `tau_b` of a scored record
/// and notes the conventions in `meta.conflicts`. A degenerate record gets nulls: nothing stale
/// is left behind.
pub fn annotate(record: &mut PromptRecord, options: &ConflictOptions) -> GroupOutcome {
    annotate_with(record, options, &mut GroupValues::default(), &mut Vec::new())
}

fn annotate_with(
    record: &mut PromptRecord,
    options: &ConflictOptions,
    values: &mut GroupValues,
    pacs: &mut Vec<f64>,
) -> GroupOutcome {
    clear(record);
    record.meta.insert("conflicts".into(), json!(options.convention()));
    values.fill(record, options.logp)?;
    let (reward, logp) = options.standards(&values.rewards, &values.logps)?;
    for completion in &mut record.completions {
        MEASURES.iter().for_each(|name| drop(completion.extra.remove(*name)));
    }
    pacs.clear();
    pacs.resize(values.rewards.len(), 0.0);
    let outcome = options.evaluate(&values.rewards, &values.logps, pacs);
    for (i, completion) in record.completions.iter_mut().enumerate() {
        completion.z_reward = Some(reward.z(values.rewards[i]));
        completion.z_logp = Some(logp.z(values.logps[i]));
        completion.pacs = Some(pacs[i]);
    }
    let conflict = outcome?;
    RANKS.iter().for_each(|name| drop(record.extra.remove(*name)));
    record.kendall_tau_distance = Some(conflict.k);
    record.tau_b = Some(conflict.tau_b);
    Ok(conflict)
}

/// Measures of a record and of a completion.
const RANKS: [&str; 2] = ["kendall_tau_distance", "tau_b"];
const MEASURES: [&str; 3] = ["pacs", "z_reward", "z_logp"];

/// Takes the measures away and leaves a null in the place of each: a field that is absent says
/// that nobody measured.
fn clear(record: &mut PromptRecord) {
    forget(record);
    record.extra.extend(RANKS.map(|name| (name.into(), json!(null))));
    for completion in &mut record.completions {
        completion.extra.extend(MEASURES.map(|name| (name.into(), json!(null))));
    }
}

/// Takes the measures away as if nobody had measured: rewards or log-probs are new.
pub fn forget(record: &mut PromptRecord) {
    (record.kendall_tau_distance, record.tau_b) = (None, None);
    RANKS.iter().for_each(|name| drop(record.extra.remove(*name)));
    record.meta.remove("conflicts");
    for completion in &mut record.completions {
        (completion.pacs, completion.z_reward, completion.z_logp) = (None, None, None);
        MEASURES.iter().for_each(|name| drop(completion.extra.remove(*name)));
    }
}

/// Whether the records of a file were scored at all: one that was is enough, the others are then
/// degenerate and counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scored {
    any: bool,
    /// What the first record lacks.
    first: Option<ConflictError>,
}

impl Scored {
    pub(crate) fn see(&mut self, record: &PromptRecord, kind: LogpKind) {
        if self.any {
            return;
        }
        match require_scores(record, kind) {
            Ok(()) => self.any = true,
            Err(lack) => drop(self.first.get_or_insert(lack)),
        }
    }

    /// What the first record lacks, where no record is better.
    pub(crate) fn check(&self) -> Result<(), ConflictError> {
        self.first.clone().filter(|_| !self.any).map_or(Ok(()), Err)
    }
}

/// Annotates the records of a file one after the other.
#[derive(Clone, Debug, Default)]
pub struct Annotator {
    options: ConflictOptions,
    scored: Scored,
    values: GroupValues,
    pacs: Vec<f64>,
}

impl Annotator {
    /// An annotator for one file.
    pub fn new(options: ConflictOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// [`annotate`].
    pub fn annotate(&mut self, record: &mut PromptRecord) -> GroupOutcome {
        self.scored.see(record, self.options.logp);
        annotate_with(record, &self.options, &mut self.values, &mut self.pacs)
    }

    /// Refuses a file none of whose records so far was scored.
    ///
    /// # Errors
    /// What the first record lacks.
    pub fn check(&self) -> Result<(), ConflictError> {
        self.scored.check()
    }
}

/// Refuses a record in which no completion has what conflict needs.
fn require_scores(record: &PromptRecord, kind: LogpKind) -> Result<(), ConflictError> {
    let id = || record.id.clone();
    let lacks = |has: fn(&Completion) -> bool| !record.completions.iter().any(has);
    let missing = |field, remedy| Err(ConflictError::Missing { id: id(), field, remedy });
    if record.completions.is_empty() {
        Err(ConflictError::NoCompletions { id: id() })
    } else if lacks(|c| c.reward.is_some()) {
        missing("reward", "gainsay score --reward MODEL")
    } else if lacks(|c| c.logp.is_some()) {
        missing("logp", "gainsay score --policy MODEL")
    } else if kind == LogpKind::MeanPerToken && lacks(|c| token_count(c).is_some()) {
        missing("token count (n_tokens)", "gainsay score --policy MODEL")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Compat, DatasetMoments, Scope};
    use super::*;
    use crate::record::{Prompt, SCHEMA};

    fn record(values: &[(Option<f64>, Option<f64>)]) -> PromptRecord {
        let completion = |(i, (reward, logp)): (usize, &(Option<f64>, Option<f64>))| Completion {
            text: format!("answer {i}"),
            reward: *reward,
            logp: *logp,
            n_tokens: Some(i as u32 + 1),
            ..Completion::default()
        };
        PromptRecord {
            schema: SCHEMA,
            id: "p".into(),
            prompt: Prompt::Text("?".into()),
            completions: values.iter().enumerate().map(completion).collect(),
            kendall_tau_distance: Some(0.9),
            tau_b: Some(0.9),
            meta: Default::default(),
            extra: Default::default(),
        }
    }

    #[test]
    fn a_scored_record_is_filled() {
        let mut r = record(&[(Some(1.0), Some(-3.0)), (Some(2.0), Some(-1.0))]);
        let conflict = annotate(&mut r, &ConflictOptions::default()).unwrap();
        assert_eq!((conflict.k, r.kendall_tau_distance, r.tau_b), (0.0, Some(0.0), Some(1.0)));
        assert_eq!(r.completions[0].z_reward, Some(-1.0));
        assert_eq!(r.completions[1].z_logp, Some(1.0));
        assert_eq!(r.completions[1].pacs, Some(0.0));
        assert_eq!(r.meta["conflicts"]["logp"], "sum");
    }

    #[test]
    fn the_mean_per_token_divides_by_the_count() {
        // Sums -3 (1 token) and -4 (2 tokens): means -3 and -2, so the order turns around.
        let mut r = record(&[(Some(1.0), Some(-3.0)), (Some(2.0), Some(-4.0))]);
        let mean = ConflictOptions { logp: LogpKind::MeanPerToken, ..Default::default() };
        assert_eq!(annotate(&mut r, &ConflictOptions::default()).unwrap().k, 1.0);
        assert_eq!(annotate(&mut r, &mean).unwrap().k, 0.0);
        r.completions[0].n_tokens = Some(0);
        assert_eq!(annotate(&mut r, &mean), Err(Degenerate::MissingValue));
    }

    #[test]
    fn degenerate_records_are_cleared() {
        let mut r = record(&[(Some(1.0), Some(-3.0)), (None, Some(-1.0))]);
        r.completions[0].pacs = Some(9.0);
        assert_eq!(annotate(&mut r, &Default::default()), Err(Degenerate::MissingValue));
        assert_eq!((r.completions[0].pacs, r.kendall_tau_distance, r.tau_b), (None, None, None));
    }

    #[test]
    fn dataset_scope_keeps_pacs_where_a_prompt_has_no_ranking() {
        let records = [
            record(&[(Some(1.0), Some(-3.0)), (Some(1.0), Some(-1.0))]),
            record(&[(Some(3.0), Some(-3.0)), (Some(3.0), Some(-1.0))]),
        ];
        let mut moments = DatasetMoments::default();
        records.iter().for_each(|r| moments.see(r, LogpKind::Sum));
        let options = ConflictOptions { scope: Scope::Dataset(moments), ..Default::default() };
        // Rewards 1 1 3 3: mean 2, std 1. Log-probs -3 -1 -3 -1: mean -2, std 1.
        let mut r = records[0].clone();
        assert_eq!(annotate(&mut r, &options), Err(Degenerate::ConstantReward));
        assert_eq!(r.completions[0].pacs, Some(0.0));
        assert_eq!(r.completions[1].pacs, Some(-2.0));
        assert_eq!(r.kendall_tau_distance, None);
    }

    #[test]
    fn the_papers_conventions_count_constant_groups_as_zero() {
        let options = ConflictOptions { compat: Compat::Paper, ..Default::default() };
        let mut r = record(&[(Some(1.0), Some(-3.0)), (Some(1.0), Some(-1.0))]);
        let conflict = annotate(&mut r, &options).unwrap();
        assert_eq!((conflict.k, conflict.tau_b), (0.0, 0.0));
        // z(reward) = 0; z(logp) = -+1 / (1 + 1e-8).
        assert!((r.completions[0].pacs.unwrap() - 1.0 / (1.0 + 1e-8)).abs() < 1e-15);
        let mut single = record(&[(Some(1.0), Some(-3.0))]);
        assert_eq!(annotate(&mut single, &options).unwrap().mean_abs_pacs, 0.0);
    }

    #[test]
    fn an_unscored_file_is_the_users_error() {
        let message = |values: &[_], options| {
            let mut annotator = Annotator::new(options);
            annotator.annotate(&mut record(values)).unwrap_err();
            annotator.check().unwrap_err().to_string()
        };
        let none = message(&[(None, Some(1.0)), (None, Some(2.0))], Default::default());
        assert!(none.contains("\"p\"") && none.contains("gainsay score --reward"), "{none}");
        let logp = message(&[(Some(1.0), None)], Default::default());
        assert!(logp.contains("logp") && logp.contains("--policy"), "{logp}");
        assert!(message(&[], Default::default()).contains("gainsay sample"));
        // One record with scores is enough, wherever it stands.
        for order in [[None, Some(1.0)], [Some(1.0), None]] {
            let mut annotator = Annotator::new(Default::default());
            for value in order {
                annotator.annotate(&mut record(&[(value, Some(2.0))])).unwrap_err();
            }
            annotator.check().unwrap();
        }
    }

    #[test]
    fn a_degenerate_record_says_null_and_a_new_score_forgets() {
        let mut r = record(&[(Some(1.0), Some(-3.0))]);
        annotate(&mut r, &Default::default()).unwrap_err();
        let said = serde_json::to_value(&r).unwrap();
        let null = Some(&serde_json::Value::Null);
        assert_eq!((said.get("kendall_tau_distance"), said.get("tau_b")), (null, null));
        assert_eq!((said["completions"][0].get("pacs"), said["completions"][0].get("z_logp")), (null, null));
        // Ranked after all: each field once.
        r.completions.push(Completion { reward: Some(2.0), logp: Some(-1.0), ..Completion::default() });
        annotate(&mut r, &Default::default()).unwrap();
        let text = serde_json::to_string(&r).unwrap();
        assert_eq!((text.matches("\"tau_b\"").count(), text.matches("\"pacs\"").count()), (1, 2));
        forget(&mut r);
        let text = serde_json::to_string(&r).unwrap();
        assert!(!text.contains("tau_b") && !text.contains("pacs") && !text.contains("conflicts"), "{text}");
    }
}
