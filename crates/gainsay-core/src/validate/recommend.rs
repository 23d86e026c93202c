//! What follows for the budget.

use super::Knowledge;
use crate::stats::Interval;
use serde::Serialize;

/// Where the interval of K's AUROC lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Above 1/2: conflict finds mistakes.
    ConflictPays,
    /// It holds 1/2.
    NotDistinguishable,
    /// Below 1/2: mistakes lie where the two agree.
    PointsAway,
    /// There is no AUROC: the reward model is right everywhere, or wrong everywhere.
    Undefined,
}

/// A verdict with its reasons in plain words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recommendation {
    /// In one word.
    pub verdict: Verdict,
    /// In plain words.
    pub text: String,
}

impl Recommendation {
    pub(super) fn of(auroc: Option<Interval>, knowledge: &Knowledge) -> Self {
        let (verdict, text) = match auroc {
            None => (
                Verdict::Undefined,
                "The reward model orders all labeled pairs the same way (all right or all wrong), so there is \
                 nothing to find here. Label more prompts, or other ones, before spending a budget."
                    .into(),
            ),
            Some(k) if k.low > 0.5 => (
                Verdict::ConflictPays,
                format!(
                    "Conflict pays: the prompts where reward model and policy disagree are the ones the reward \
                     model gets wrong (AUROC of K {k}, chance 0.5). Spend the budget with \"gainsay select \
                     --strategy shf-cas\" (pairs spread)."
                ),
            ),
            Some(k) if k.high < 0.5 => (
                Verdict::PointsAway,
                format!(
                    "Conflict points away from the mistakes: the reward model is wrong where the policy agrees \
                     with it (AUROC of K {k}, chance 0.5), so the policy's log-prob misleads on this data. Do not \
                     select by conflict; use \"gainsay select --strategy random-spread\"."
                ),
            ),
            Some(k) => (
                Verdict::NotDistinguishable,
                format!(
                    "Not distinguishable from chance: the interval of K's AUROC holds 0.5 ({k}). Use \"gainsay \
                     select --strategy random-spread\", or label more prompts and validate again."
                ),
            ),
        };
        let shares = knowledge.complementary_share().map_or(String::new(), |share| {
            format!(
                " Of the reward model's {} mistakes the policy knows better in {:.0} % (complementary knowledge) \
                 and shares {:.0} % (shared ignorance).",
                knowledge.proxy_mistakes(),
                100.0 * share,
                100.0 * (1.0 - share)
            )
        });
        Self { verdict, text: text + &shares }
    }
}
