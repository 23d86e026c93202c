//! The measures of an evaluation: their names, how their numbers are printed, what they say.

use gainsay_core::stats::Interval;

use super::charts::Whisker;
use super::text::{number, signed};
use crate::evaluation::types::Metrics;

/// How a measure's numbers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Print {
    /// With so many decimals.
    Plain(usize),
    /// A share in [0, 1] as a percentage with one decimal; differences in points.
    Percent,
}

/// One measure of an evaluation.
pub struct Measure {
    /// Its field in [`Metrics`] and its name in a difference.
    pub field: &'static str,
    /// Its name on the page.
    pub name: &'static str,
    /// What it says, in one line.
    pub note: &'static str,
    /// How it is printed.
    pub print: Print,
    /// Its value among others.
    pub get: fn(&Metrics) -> Option<&Interval>,
}

/// Every measure in the order of the page.
pub const MEASURES: [Measure; 16] = [
    Measure {
        field: "gold_reward",
        name: "Gold reward",
        note: "the trusted stand-in for what people want",
        print: Print::Plain(2),
        get: |m| m.gold_reward.as_ref(),
    },
    Measure {
        field: "win_rate",
        name: "Win rate against the base policy",
        note: "share of pairs that gold decides for the tuned policy; 50 % is even",
        print: Print::Percent,
        get: |m| m.win_rate.as_ref(),
    },
    Measure {
        field: "reward_accuracy",
        name: "Reward model accuracy",
        note: "share of the base policy’s held-out pairs that it orders as gold does",
        print: Print::Percent,
        get: |m| m.reward_accuracy.as_ref(),
    },
    Measure {
        field: "proxy_reward",
        name: "Proxy reward",
        note: "by the arm’s own reward model: not comparable between arms",
        print: Print::Plain(2),
        get: |m| m.proxy_reward.as_ref(),
    },
    Measure {
        field: "kendall_tau_distance",
        name: "K under the base policy",
        note: "how far reward and base log-prob disagree; chance is 0.5",
        print: Print::Plain(3),
        get: |m| m.kendall_tau_distance.as_ref(),
    },
    Measure {
        field: "mean_abs_pacs",
        name: "Mean |PACS| under the base policy",
        note: "mean size of the conflict of a completion",
        print: Print::Plain(3),
        get: |m| m.mean_abs_pacs.as_ref(),
    },
    Measure {
        field: "kendall_tau_distance_own",
        name: "K under the policy itself",
        note: "the same with the evaluated policy’s own log-probs",
        print: Print::Plain(3),
        get: |m| m.kendall_tau_distance_own.as_ref(),
    },
    Measure {
        field: "mean_abs_pacs_own",
        name: "Mean |PACS| under the policy itself",
        note: "the same with the evaluated policy’s own log-probs",
        print: Print::Plain(3),
        get: |m| m.mean_abs_pacs_own.as_ref(),
    },
    Measure {
        field: "kl",
        name: "KL to the base policy",
        note: "nats a sequence, at temperature 1",
        print: Print::Plain(2),
        get: |m| m.kl.as_ref(),
    },
    Measure {
        field: "nll_per_token",
        name: "Surprise a token",
        note: "mean −log p of its own samples, nats, at temperature 1",
        print: Print::Plain(2),
        get: |m| m.nll_per_token.as_ref(),
    },
    Measure {
        field: "entropy",
        name: "Entropy",
        note: "nats a token, at temperature 1: low where the policy says the same again and again",
        print: Print::Plain(2),
        get: |m| m.entropy.as_ref(),
    },
    Measure {
        field: "length",
        name: "Length",
        note: "tokens a completion, turn end included",
        print: Print::Plain(1),
        get: |m| m.length.as_ref(),
    },
    Measure {
        field: "distinct_1",
        name: "Different words",
        note: "distinct-1 over a prompt’s completions",
        print: Print::Plain(2),
        get: |m| m.distinct_1.as_ref(),
    },
    Measure {
        field: "distinct_2",
        name: "Different word pairs",
        note: "distinct-2 over a prompt’s completions: low where they repeat themselves",
        print: Print::Plain(2),
        get: |m| m.distinct_2.as_ref(),
    },
    Measure {
        field: "distinct_3",
        name: "Different triples of words",
        note: "distinct-3 over a prompt’s completions",
        print: Print::Plain(2),
        get: |m| m.distinct_3.as_ref(),
    },
    Measure {
        field: "length_correlation",
        name: "Reward with length",
        note: "correlation within a prompt",
        print: Print::Plain(2),
        get: |m| m.length_correlation.as_ref(),
    },
];

impl Measure {
    /// The measure of a field's name.
    pub fn of(field: &str) -> Option<&'static Self> {
        MEASURES.iter().find(|m| m.field == field)
    }

    /// A value.
    pub fn value(&self, x: f64) -> String {
        match self.print {
            Print::Plain(digits) => number(x, digits),
            Print::Percent => format!("{}\u{a0}%", number(100.0 * x, 1)),
        }
    }

    /// A difference of two values, with its sign.
    pub fn difference(&self, x: f64) -> String {
        match self.print {
            Print::Plain(digits) => signed(x, digits),
            Print::Percent => format!("{}\u{a0}points", signed(100.0 * x, 1)),
        }
    }

    /// An interval's ends, in the value's unit.
    pub fn ends(&self, interval: &Interval) -> String {
        match self.print {
            Print::Plain(digits) => ends(interval, digits, 1.0),
            Print::Percent => ends(interval, 1, 100.0),
        }
    }
}

/// An interval's ends, `[0.12, 0.34]`, scaled; `[unbounded]` where the data bound nothing.
pub fn ends(interval: &Interval, digits: usize, scale: f64) -> String {
    if interval.low.is_finite() && interval.high.is_finite() {
        let (low, high) = (interval.low * scale, interval.high * scale);
        format!("[{},\u{a0}{}]", number(low, digits), number(high, digits))
    } else {
        "[unbounded]".to_string()
    }
}

/// An estimate with its interval, `0.23 [0.12, 0.34]`, as HTML.
pub fn estimate(interval: &Interval, digits: usize) -> String {
    format!("{} {}", number(interval.estimate, digits), quiet(&ends(interval, digits, 1.0)))
}

/// An interval within running text: smaller, so that the sentence stays readable.
pub fn quiet(ends: &str) -> String {
    format!(r#"<span class="iv">{ends}</span>"#)
}

impl From<&Interval> for Whisker {
    fn from(interval: &Interval) -> Self {
        Self { low: interval.low, mid: interval.estimate, high: interval.high }
    }
}

#[cfg(test)]
mod tests {
    use gainsay_core::stats::IntervalMethod;

    use super::*;

    fn interval(low: f64, estimate: f64, high: f64) -> Interval {
        Interval { estimate, low, high, n: 24, method: IntervalMethod::Bootstrap }
    }

    #[test]
    fn every_metric_has_a_line() {
        let any = Some(interval(0.1, 0.2, 0.3));
        let metrics = serde_json::to_value(Metrics::default()).unwrap();
        let fields = metrics.as_object().unwrap();
        assert_eq!(fields.len(), MEASURES.len());
        for measure in &MEASURES {
            let mut fields = fields.clone();
            fields.insert(measure.field.into(), serde_json::to_value(any).unwrap());
            let metrics: Metrics = serde_json::from_value(fields.into()).unwrap();
            assert_eq!((measure.get)(&metrics), any.as_ref(), "{}", measure.field);
        }
    }

    #[test]
    fn shares_are_percentages_and_their_differences_points() {
        let win = Measure::of("win_rate").unwrap();
        assert_eq!(win.value(0.5625), "56.2\u{a0}%");
        assert_eq!(win.difference(-0.031), "−3.1\u{a0}points");
        assert_eq!(win.ends(&interval(0.4, 0.5, 0.6)), "[40.0,\u{a0}60.0]");
        assert_eq!(win.ends(&interval(f64::NEG_INFINITY, 0.5, f64::INFINITY)), "[unbounded]");
    }
}
