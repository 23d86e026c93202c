//! A file must not mix log-probs or rewards of different models or conventions.

use crate::record::PromptRecord;
use serde_json::Value;
use thiserror::Error;

/// Two records of one file disagree on a convention.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "records \"{first_id}\" and \"{second_id}\" differ in meta.{key} ({first} and {second}): \
     values of different origin cannot be compared; score the whole file with one model"
)]
pub struct MixedConventions {
    /// The field of `meta`.
    pub key: &'static str,
    /// The file's first record.
    pub first_id: String,
    /// Its value, as JSON; `none` where the field is absent.
    pub first: String,
    /// The record that differs.
    pub second_id: String,
    /// Its value.
    pub second: String,
}

/// Compares every record of a file with the first. A field that no record has is fine: other
/// tools do not write it.
#[derive(Clone, Debug)]
pub struct ConventionCheck {
    keys: &'static [&'static str],
    first: Option<(String, Vec<Option<Value>>)>,
}

impl ConventionCheck {
    /// For files of scores: `meta.logp_policy` and `meta.reward_model`.
    pub fn scores() -> Self {
        Self { keys: &["logp_policy", "reward_model"], first: None }
    }

    /// For uses of the reward alone: `meta.reward_model`.
    pub fn rewards() -> Self {
        Self { keys: &["reward_model"], first: None }
    }

    /// For files with conflict measures: also `meta.conflicts`.
    pub fn conflicts() -> Self {
        Self { keys: &["logp_policy", "reward_model", "conflicts"], first: None }
    }

    /// Looks at the next record.
    pub fn see(&mut self, record: &PromptRecord) -> Result<(), MixedConventions> {
        let Some((first_id, values)) = &self.first else {
            let values = self.keys.iter().map(|key| record.meta.get(*key).cloned()).collect();
            self.first = Some((record.id.clone(), values));
            return Ok(());
        };
        for (key, value) in self.keys.iter().zip(values) {
            let other = record.meta.get(*key);
            if value.as_ref() != other {
                return Err(MixedConventions {
                    key,
                    first_id: first_id.clone(),
                    first: shown(value.as_ref()),
                    second_id: record.id.clone(),
                    second: shown(other),
                });
            }
        }
        Ok(())
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "none".into(), Value::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, policy: Option<&str>) -> PromptRecord {
        let meta = policy.map_or_else(String::new, |p| format!(r#""logp_policy":"{p}""#));
        let text = format!(r#"{{"id":"{id}","prompt":"?","meta":{{{meta}}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn one_convention_passes_and_a_second_is_named() {
        let mut check = ConventionCheck::scores();
        check.see(&record("a", Some("m1"))).unwrap();
        check.see(&record("b", Some("m1"))).unwrap();
        let error = check.see(&record("c", Some("m2"))).unwrap_err().to_string();
        for part in ["\"a\"", "\"c\"", "m1", "m2", "logp_policy"] {
            assert!(error.contains(part), "{error}");
        }
        let error = check.see(&record("d", None)).unwrap_err().to_string();
        assert!(error.contains("none"), "{error}");
    }

    #[test]
    fn files_that_name_nothing_are_taken_as_they_are() {
        let mut check = ConventionCheck::conflicts();
        check.see(&record("a", None)).unwrap();
        check.see(&record("b", None)).unwrap();
    }
}
