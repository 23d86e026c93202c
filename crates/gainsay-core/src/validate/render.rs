//! The validation as text for people.

use super::Validation;
use crate::conflict::LengthUnit;
use crate::stats::Interval;
use std::fmt::Write as _;

impl Validation {
    /// Tables and the recommendation, as lines of text.
    pub fn render(&self) -> String {
        let mut out = String::new();
        self.render_pool(&mut out);
        self.render_scores(&mut out);
        self.render_knowledge(&mut out);
        let _ = writeln!(out, "\n{}", self.recommendation.text);
        out
    }

    fn render_pool(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "{} pairs with different gold from {} of {} prompts ({} degenerate)\n\
             left out: {} pairs with equal gold; {} completions without gold\n\
             reward model right {}   (ties count 1/2: {})\n\
             policy right       {}   (log-prob {})",
            self.pairs,
            self.prompts_used,
            self.prompts,
            self.degenerate.total,
            self.gold_ties,
            self.without_gold,
            shown(self.reward_accuracy),
            self.proxy_ties,
            shown(self.policy_accuracy),
            self.convention.logp,
        );
    }

    fn render_scores(&self, out: &mut String) {
        let heads = ["AUROC [95 %]", "lift, top 10 %", "lift, top 20 %"];
        let _ = writeln!(out, "\n{:<22}{:<24}{:<24}{}", "finds mistakes?", heads[0], heads[1], heads[2]);
        for score in &self.scores {
            let label = score.name.label();
            let [auroc, ten, twenty] = [score.auroc, score.lift_10, score.lift_20].map(shown);
            let _ = writeln!(out, "{label:<22}{auroc:<24}{ten:<24}{twenty}");
        }
        let unit = match self.length_unit {
            LengthUnit::Tokens => "tokens",
            LengthUnit::Bytes => "bytes of text",
        };
        let _ = writeln!(out, "chance                0.5                     1                       1");
        let _ = writeln!(out, "(intervals over prompts; lengths in {unit})");
    }

    fn render_knowledge(&self, out: &mut String) {
        let k = &self.knowledge;
        let total = (self.pairs as f64).max(1.0);
        let cell = |n: u64| format!("{n} ({:.1} %)", 100.0 * n as f64 / total);
        let row = |name, right, wrong| format!("{name:<36}{right:<20}{wrong}\n");
        out.push('\n');
        out.push_str(&row("", "proxy right".to_string(), "proxy wrong".to_string()));
        out.push_str(&row("concordant, policy right", cell(k.both_right), "-".into()));
        out.push_str(&row("concordant, policy wrong", "-".into(), cell(k.both_wrong) + "  shared ignorance"));
        out.push_str(&row(
            "discordant, policy right",
            "-".into(),
            cell(k.only_policy_right) + "  complementary knowledge",
        ));
        out.push_str(&row("discordant, policy wrong", cell(k.only_proxy_right), "-".into()));
        out.push_str(&row("reward or log-prob tied", cell(k.tied), String::new()));
    }
}

fn shown(interval: Option<Interval>) -> String {
    interval.map_or_else(|| "not defined".into(), |i| i.to_string())
}
