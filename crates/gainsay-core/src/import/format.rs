//! What a row of a file is, by its fields.

use serde::Serialize;
use serde_json::{Map, Value};

use super::dialogue;
use crate::files::Kind;

/// The formats of rows that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataFormat {
    /// Gainsay's prompts, rollouts, scores and conflicts.
    Prompts,
    /// Gainsay's selections.
    Selections,
    /// Gainsay's preferences.
    Preferences,
    /// Gainsay's rankings.
    Rankings,
    /// The columns of the scripts published with arXiv 2512.09212.
    Published,
    /// Prompts with several models' answers and gold labels; XSTest's among them.
    Pool,
    /// TRL's and OpenRLHF's preference rows.
    Preference,
    /// hh-rlhf: whole dialogues as text.
    HhRlhf,
    /// UltraFeedback-binarized: conversations with their scores.
    UltraFeedback,
    /// PKU-SafeRLHF: which of two answers is better, and which are safe.
    PkuSafeRlhf,
    /// HelpSteer2: one answer a row, rated from 0 to 4.
    HelpSteer2,
    /// HelpSteer2's preferences from -3 to 3.
    HelpSteer2Preference,
    /// RewardBench: a chosen and a rejected answer of a subset.
    RewardBench,
    /// RewardBench 2: several chosen and rejected answers of a subset.
    RewardBench2,
    /// Completions as TRL logs them, one a row, with a column a reward function.
    TrlCompletions,
    /// Rollouts of OpenRLHF's batch inference: input, output, reward.
    OpenRlhfRollouts,
    /// Rollouts as verl dumps them: input, output, score.
    VerlRollouts,
    /// Prompts under OpenRLHF's names: input or context_messages.
    OpenRlhfPrompts,
}

/// Rows of [`DataFormat`] and what they are known by.
type Rule = (DataFormat, &'static [&'static str]);

/// Fields that a row must have, most telling first.
const RULES: [Rule; 17] = [
    (DataFormat::Selections, &["strategy", "first", "second"]),
    (DataFormat::Preferences, &["answer", "first", "second"]),
    (DataFormat::Rankings, &["completions", "ranking"]),
    (DataFormat::Prompts, &["prompt", "completions"]),
    (DataFormat::Published, &["response_with_prompt"]),
    (DataFormat::Pool, &["prompt", "responses"]),
    (DataFormat::PkuSafeRlhf, &["prompt", "response_0", "response_1"]),
    (DataFormat::HelpSteer2Preference, &["prompt", "response_1", "response_2", "preference_strength"]),
    (DataFormat::HelpSteer2, &["prompt", "response", "helpfulness"]),
    (DataFormat::RewardBench2, &["prompt", "chosen", "rejected", "num_correct", "subset"]),
    (DataFormat::RewardBench, &["prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset"]),
    (DataFormat::UltraFeedback, &["prompt", "prompt_id", "chosen", "rejected", "score_chosen", "score_rejected"]),
    (DataFormat::Preference, &["chosen", "rejected"]),
    (DataFormat::VerlRollouts, &["input", "output", "score"]),
    (DataFormat::OpenRlhfRollouts, &["input", "output", "reward"]),
    (DataFormat::TrlCompletions, &["prompt", "completion"]),
    (DataFormat::Prompts, &["prompt"]),
];

impl DataFormat {
    /// The format of a row, and the fields that say so; `None`: no format that is known.
    pub fn of(row: &Map<String, Value>) -> Option<(Self, &'static [&'static str])> {
        let has = |fields: &[&str]| fields.iter().all(|name| row.contains_key(*name));
        if let Some(&(format, fields)) = RULES.iter().find(|(_, fields)| has(fields)) {
            let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or("");
            let dialogue = dialogue::turns(text("chosen")).is_some() || dialogue::turns(text("prompt")).is_some();
            return Some(match format {
                Self::Preference if dialogue => (Self::HhRlhf, fields),
                _ => (format, fields),
            });
        }
        let prompts = [["input"], ["context_messages"]].iter().position(|name| has(name))?;
        Some((Self::OpenRlhfPrompts, [&["input"], &["context_messages"]][prompts]))
    }

    /// What its rows are read as where nothing else is asked for.
    pub fn kind(self) -> Kind {
        match self {
            Self::Selections => Kind::Selection,
            Self::Rankings => Kind::Ranking,
            Self::Preferences
            | Self::Preference
            | Self::HhRlhf
            | Self::UltraFeedback
            | Self::PkuSafeRlhf
            | Self::HelpSteer2Preference
            | Self::RewardBench => Kind::Preference,
            _ => Kind::Prompt,
        }
    }

    /// The format in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Prompts => "Gainsay prompts",
            Self::Selections => "Gainsay selection",
            Self::Preferences => "Gainsay preferences",
            Self::Rankings => "Gainsay rankings",
            Self::Published => "columns of the published scripts (arXiv 2512.09212)",
            Self::Pool => "answer pool with gold labels",
            Self::Preference => "preference rows of TRL or OpenRLHF",
            Self::HhRlhf => "hh-rlhf dialogues",
            Self::UltraFeedback => "UltraFeedback-binarized",
            Self::PkuSafeRlhf => "PKU-SafeRLHF",
            Self::HelpSteer2 => "HelpSteer2 ratings",
            Self::HelpSteer2Preference => "HelpSteer2 preferences",
            Self::RewardBench => "RewardBench",
            Self::RewardBench2 => "RewardBench 2",
            Self::TrlCompletions => "completions logged by TRL",
            Self::OpenRlhfRollouts => "rollouts of OpenRLHF",
            Self::VerlRollouts => "rollouts of verl",
            Self::OpenRlhfPrompts => "prompts of OpenRLHF",
        }
    }
}
