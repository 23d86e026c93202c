//! What an annotator is asked, and what is answered.

use gainsay_core::record::{Answer, Prompt, PromptRecord, SelectionRecord};
use serde::{Deserialize, Serialize};

/// Most completions of one ranking: the number keys 1 to 8.
pub const MAX_RANKED: usize = 8;

/// Longest comment or reason, characters.
pub const MAX_COMMENT: usize = 4000;

/// The three kinds of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Two completions side by side.
    Compare,
    /// Up to eight completions in order, ties allowed.
    Rank,
    /// One completion: a label and a rating.
    Judge,
}

impl Kind {
    /// The name as on the command line and in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compare => "compare",
            Self::Rank => "rank",
            Self::Judge => "judge",
        }
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", content = "record", rename_all = "lowercase")]
#[expect(
    clippy::large_enum_variant,
    reason = "most items are comparisons, the larger variant: a box would cost more than it saves"
)]
pub enum Task {
    /// A selected pair.
    Compare(SelectionRecord),
    /// The completions of a prompt.
    Rank(PromptRecord),
    /// The only completion of a record.
    Judge(PromptRecord),
}

impl Task {
    /// The kind of question.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Compare(_) => Kind::Compare,
            Self::Rank(_) => Kind::Rank,
            Self::Judge(_) => Kind::Judge,
        }
    }

    /// Unique among the items of a project.
    pub fn id(&self) -> &str {
        match self {
            Self::Compare(pair) => &pair.id,
            Self::Rank(record) | Self::Judge(record) => &record.id,
        }
    }

    /// What was asked of the policy.
    pub fn prompt(&self) -> &Prompt {
        match self {
            Self::Compare(pair) => &pair.prompt,
            Self::Rank(record) | Self::Judge(record) => &record.prompt,
        }
    }

    /// The completions in the record's order.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Compare(pair) => vec![&pair.first.text, &pair.second.text],
            Self::Rank(record) | Self::Judge(record) => record.completions.iter().map(|c| c.text.as_str()).collect(),
        }
    }

    /// The record as it is stored.
    pub(crate) fn to_json(&self) -> String {
        let text = match self {
            Self::Compare(pair) => serde_json::to_string(pair),
            Self::Rank(record) | Self::Judge(record) => serde_json::to_string(record),
        };
        // Records hold strings, finite numbers and maps with text keys: they always have a form.
        text.unwrap_or_default()
    }

    /// Reads what [`Task::to_json`] wrote.
    pub(crate) fn from_json(kind: &str, body: &str) -> Result<Self, String> {
        let read = |e: serde_json::Error| e.to_string();
        match kind {
            "compare" => serde_json::from_str(body).map(Self::Compare).map_err(read),
            "rank" => serde_json::from_str(body).map(Self::Rank).map_err(read),
            "judge" => serde_json::from_str(body).map(Self::Judge).map_err(read),
            other => Err(format!("unknown kind `{other}`")),
        }
    }
}

/// The items of a file of selections, strongest conflict (lowest rank) first.
pub fn comparisons(selection: Vec<SelectionRecord>) -> Vec<Task> {
    let mut selection = selection;
    selection.sort_by_key(|pair| pair.rank);
    selection.into_iter().map(Task::Compare).collect()
}

/// One ranking a prompt.
///
/// # Errors
/// A prompt with fewer than 2 or more than [`MAX_RANKED`] completions.
pub fn rankings(records: Vec<PromptRecord>) -> Result<Vec<Task>, String> {
    let fits = |record: &PromptRecord| (2..=MAX_RANKED).contains(&record.completions.len());
    if let Some(record) = records.iter().find(|r| !fits(r)) {
        return Err(format!(
            "prompt `{}` has {} completions; a ranking has 2 to {MAX_RANKED}",
            record.id,
            record.completions.len()
        ));
    }
    Ok(records.into_iter().map(Task::Rank).collect())
}

/// One judgement a completion; the ids are `<prompt id>/<index>`.
///
/// # Errors
/// A prompt without completions.
pub fn judgements(records: Vec<PromptRecord>) -> Result<Vec<Task>, String> {
    let mut tasks = Vec::new();
    for record in records {
        if record.completions.is_empty() {
            return Err(format!("prompt `{}` has no completions to judge", record.id));
        }
        for (index, completion) in record.completions.iter().enumerate() {
            let id = format!("{}/{index}", record.id);
            tasks.push(Task::Judge(PromptRecord { id, completions: vec![completion.clone()], ..record.clone() }));
        }
    }
    Ok(tasks)
}

/// What an annotator answered. First and second are the record's, whatever side they stood on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Response {
    /// To a comparison.
    Compare {
        /// `first`, `second`, `tie` or `both_bad`.
        answer: Answer,
        /// 1 slightly, 2 clearly; with `first` and `second`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        strength: Option<u8>,
        /// Whether the first is safe.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        safe_first: Option<bool>,
        /// Whether the second is safe.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        safe_second: Option<bool>,
        /// 1 to 5.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rating_first: Option<u8>,
        /// 1 to 5.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rating_second: Option<u8>,
    },
    /// To a ranking: the rank of each completion, 1 the best, equal numbers tie.
    Rank {
        /// One a completion.
        ranks: Vec<u8>,
    },
    /// To a judgement.
    Judge {
        /// One of the project's labels.
        label: String,
        /// 1 to 5.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rating: Option<u8>,
    },
    /// Not answered.
    Skip {
        /// Why.
        reason: String,
    },
}

/// A response with its comment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// The answer.
    #[serde(flatten)]
    pub response: Response,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

impl Response {
    /// Whether it is no answer.
    pub fn is_skip(&self) -> bool {
        matches!(self, Self::Skip { .. })
    }

    /// The category in words: the answer, the label, or the order such as `2 > 1 = 3`.
    pub fn words(&self) -> String {
        match self {
            Self::Compare { answer, .. } => answer_name(*answer).into(),
            Self::Rank { ranks } => order_words(ranks),
            Self::Judge { label, .. } => label.clone(),
            Self::Skip { .. } => "skip".into(),
        }
    }
}

/// The name of an answer as in files.
pub fn answer_name(answer: Answer) -> &'static str {
    match answer {
        Answer::First => "first",
        Answer::Second => "second",
        Answer::Tie => "tie",
        Answer::BothBad => "both_bad",
        Answer::Skip => "skip",
    }
}

/// `2 > 1 = 3`: the completions' numbers from the best to the worst.
fn order_words(ranks: &[u8]) -> String {
    let mut order: Vec<usize> = (0..ranks.len()).collect();
    order.sort_by_key(|i| (ranks[*i], *i));
    let mut out = String::new();
    for (place, index) in order.iter().enumerate() {
        if place > 0 {
            let tied = ranks[order[place - 1]] == ranks[*index];
            out.push_str(if tied { " = " } else { " > " });
        }
        out.push_str(&(index + 1).to_string());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_read_from_best_to_worst() {
        assert_eq!(order_words(&[2, 1, 2]), "2 > 1 = 3");
        assert_eq!(order_words(&[1, 1]), "1 = 2");
        assert_eq!(order_words(&[]), "");
    }

    #[test]
    fn responses_keep_their_form_in_json() {
        let given = Given {
            response: Response::Compare {
                answer: Answer::First,
                strength: Some(2),
                safe_first: None,
                safe_second: Some(false),
                rating_first: None,
                rating_second: None,
            },
            comment: String::new(),
        };
        let text = serde_json::to_string(&given).unwrap();
        assert_eq!(text, r#"{"kind":"compare","answer":"first","strength":2,"safe_second":false}"#);
        assert_eq!(serde_json::from_str::<Given>(&text).unwrap(), given);
    }

    #[test]
    fn a_ranking_needs_two_to_eight_completions() {
        let record = |n: usize| -> PromptRecord {
            let completions: Vec<_> = (0..n).map(|i| serde_json::json!({"text": format!("t{i}")})).collect();
            serde_json::from_value(serde_json::json!({"id": "p", "prompt": "q", "completions": completions})).unwrap()
        };
        assert!(rankings(vec![record(1)]).is_err() && rankings(vec![record(9)]).is_err());
        assert_eq!(rankings(vec![record(8)]).unwrap().len(), 1);
        let judged = judgements(vec![record(2)]).unwrap();
        assert_eq!((judged[1].id(), judged[1].texts()), ("p/1", vec!["t1"]));
    }
}
