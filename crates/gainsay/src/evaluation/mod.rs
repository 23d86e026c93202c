//! How good is a policy, and how does it differ from another one?

pub mod curve;
pub mod measure;
pub mod types;

pub use types::{Difference, Evaluation, Everyday, Metrics, PromptMetrics, Verdict};

impl Evaluation {
    /// The figures as lines of text for people.
    pub fn render(&self) -> String {
        let m = &self.metrics;
        let rows = [
            ("gold reward", &m.gold_reward, ""),
            ("proxy reward", &m.proxy_reward, ""),
            ("win rate", &m.win_rate, "ties 1/2, against the base policy by gold"),
            ("mean |PACS|", &m.mean_abs_pacs, "log-probs of the base policy"),
            ("Kendall distance K", &m.kendall_tau_distance, "log-probs of the base policy"),
            ("mean |PACS|, own", &m.mean_abs_pacs_own, "log-probs of the policy itself"),
            ("Kendall distance, own", &m.kendall_tau_distance_own, "log-probs of the policy itself"),
            ("KL", &m.kl, "nats a sequence, k3 at temperature 1"),
            ("length", &m.length, "tokens"),
            ("-log-prob a token", &m.nll_per_token, "nats"),
            ("reward accuracy", &m.reward_accuracy, "pairs ordered as gold does"),
            ("entropy", &m.entropy, "nats a token, at temperature 1"),
            ("distinct-1", &m.distinct_1, "different words over all words"),
            ("distinct-2", &m.distinct_2, "the same of word pairs"),
            ("distinct-3", &m.distinct_3, "the same of three words in a row"),
            ("reward with length", &m.length_correlation, "correlation within a prompt"),
        ];
        let mut out = format!(
            "policy                 {}\nprompts                {} x {} completions at temperature {}\n",
            self.policy, self.prompts, self.completions_per_prompt, self.temperature
        );
        for (name, interval, note) in rows {
            if let Some(interval) = interval {
                out.push_str(format!("{name:<23}{interval:.3}  {note}").trim_end());
                out.push('\n');
            }
        }
        if let Some(everyday) = &self.everyday {
            out.push_str(&format!(
                "everyday answers       {:.3} -> {:.3} nats a token, change {:.3} on {}\n",
                everyday.base.estimate, everyday.policy.estimate, everyday.change, everyday.answers
            ));
        }
        out
    }
}
