//! Who is right where policy and reward model agree, and where they do not.

use super::scores::Pair;
use serde::Serialize;

/// Pairs by agreement of reward model (proxy) and policy, and by who orders them as the gold does.
/// Without ties two outcomes are left in each row: agreeing, both are right or both wrong;
/// disagreeing, exactly one is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Knowledge {
    /// Concordant, both right.
    pub both_right: u64,
    /// Concordant, both wrong: shared ignorance, which conflict cannot see.
    pub both_wrong: u64,
    /// Discordant, the reward model right and the policy wrong.
    pub only_proxy_right: u64,
    /// Discordant, the policy right and the reward model wrong: complementary knowledge, which
    /// conflict finds.
    pub only_policy_right: u64,
    /// Reward or log-prob is the same on both sides.
    pub tied: u64,
}

impl Knowledge {
    pub(super) fn of(pairs: &[Pair]) -> Self {
        let mut table = Self::default();
        for pair in pairs {
            let (proxy, policy) = (pair.mistake(), pair.policy_mistake());
            *if proxy == 0.5 || policy == 0.5 {
                &mut table.tied
            } else {
                match (proxy == 0.0, policy == 0.0) {
                    (true, true) => &mut table.both_right,
                    (false, false) => &mut table.both_wrong,
                    (true, false) => &mut table.only_proxy_right,
                    (false, true) => &mut table.only_policy_right,
                }
            } += 1;
        }
        table
    }

    /// The reward model's mistakes, without ties.
    pub fn proxy_mistakes(&self) -> u64 {
        self.both_wrong + self.only_policy_right
    }

    /// Share of the reward model's mistakes that the policy knows better; `None` without mistakes.
    pub fn complementary_share(&self) -> Option<f64> {
        let mistakes = self.proxy_mistakes();
        (mistakes > 0).then(|| self.only_policy_right as f64 / mistakes as f64)
    }
}
