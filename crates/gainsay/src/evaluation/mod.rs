//! How good is a policy, and how does it differ from another one?

pub mod curve;
pub mod measure;
pub mod types;

use gainsay_core::stats::Interval;

pub use types::{Difference, Evaluation, Everyday, Metrics, PromptMetrics, Verdict};

impl Evaluation {
    /// Leaves out what is against a base policy: for a policy that stood in for a base that is not
    /// known, these figures are about nothing.
    pub fn forget_base(&mut self) {
        let m = &mut self.metrics;
        (m.kl, m.mean_abs_pacs, m.kendall_tau_distance) = (None, None, None);
        for m in &mut self.per_prompt {
            (m.kl, m.mean_abs_pacs, m.kendall_tau_distance) = (None, None, None);
        }
        self.everyday = None;
    }

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

/// Paired differences as lines of text for people; empty without any.
pub fn render_differences(differences: &[Difference]) -> String {
    let Some(Difference { a, b, .. }) = differences.first() else { return String::new() };
    let mut out = format!("\n{a} less {b}, paired by prompt\n");
    for d in differences {
        let verdict = match d.verdict {
            Verdict::Higher => "higher",
            Verdict::Lower => "lower",
            Verdict::NotDistinguishable => "not distinguishable",
        };
        let Interval { estimate, low, high, .. } = d.difference;
        let name = d.metric.replace('_', " ");
        out.push_str(&format!("{name:<26}{estimate:+.3} [{low:+.3}, {high:+.3}]  {verdict}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(gold: [f64; 3]) -> Vec<PromptMetrics> {
        let prompt = |(i, gold): (usize, f64)| PromptMetrics {
            id: i.to_string(),
            gold_reward: Some(gold),
            kl: Some(0.0),
            ..PromptMetrics::default()
        };
        gold.into_iter().enumerate().map(prompt).collect()
    }

    #[test]
    fn differences_read_as_sentences() {
        let (a, b) = (prompts([2.0, 3.0, 4.0]), prompts([1.0, 1.5, 2.0]));
        let found = measure::differences(("policy", &a), ("base", &b), 0);
        let text = render_differences(&found);
        assert!(text.contains("policy less base, paired by prompt"), "{text}");
        // 1, 1.5 and 2: each above 0.
        let gold = text.lines().find(|l| l.starts_with("gold reward")).unwrap();
        assert!(gold.contains("+1.500") && gold.ends_with("  higher"), "{text}");
        assert!(text.lines().find(|l| l.starts_with("kl")).unwrap().ends_with("not distinguishable"), "{text}");
        assert_eq!(render_differences(&[]), "");
    }
}
