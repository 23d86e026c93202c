//! Looks at held-out prompts while a policy was trained, and what they say about
//! over-optimization.

use serde::Deserialize;

use super::tables::{Column, Table, absent};
use super::text::{number, plural};
use gainsay_core::stats::Interval;

use crate::evaluation::curve::{Point, fall, turn};

/// One look; what is not a finite number is not there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Look {
    /// Steps that the policy had taken.
    pub step: u32,
    /// KL to the base policy, nats a sequence.
    #[serde(default)]
    pub kl: Option<f64>,
    /// Mean reward that is optimized.
    #[serde(default)]
    pub proxy: Option<f64>,
    /// Mean gold reward.
    #[serde(default)]
    pub gold: Option<f64>,
    /// Each prompt's gold reward.
    #[serde(default)]
    pub gold_by_prompt: Vec<f64>,
    /// Tokens a completion.
    #[serde(default)]
    pub length: Option<f64>,
}

impl Look {
    /// sqrt(KL), the curve's distance.
    pub fn distance(&self) -> Option<f64> {
        Some(finite(self.kl)?.max(0.0).sqrt())
    }
}

/// What is a finite number.
pub(super) fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite())
}

/// The looks that have all three numbers, as the curve takes them, with their prompts' gold.
fn points(looks: &[Look]) -> (Vec<Point>, Vec<&[f64]>) {
    let whole = |look: &'_ Look| {
        let (kl, proxy, gold) = (finite(look.kl)?.max(0.0), finite(look.proxy)?, finite(look.gold)?);
        Some(Point { step: look.step, kl, proxy, gold })
    };
    let golds = looks.iter().filter(|look| whole(look).is_some()).map(|look| look.gold_by_prompt.as_slice()).collect();
    (looks.iter().filter_map(whole).collect(), golds)
}

/// What the curve says.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// Nobody looked.
    NoLooks,
    /// No look has a gold reward.
    NoGold,
    /// Fewer than two looks have all numbers.
    TooFew,
    /// From `to` on gold falls while the proxy rises; `from` is the look before.
    Turned {
        /// The look before gold fell.
        from: Point,
        /// The first at which it had fallen.
        to: Point,
        /// The last look.
        last: Point,
        /// Gold at the last look less that at `from`; `None` where the prompts' values are not known.
        fall: Option<Interval>,
    },
    /// It does not.
    Held {
        /// The first look.
        first: Point,
        /// The last look.
        last: Point,
        /// How many there are.
        looks: usize,
    },
}

/// Reads the curve; see [`turn`].
pub fn finding(looks: &[Look]) -> Finding {
    let (points, golds) = points(looks);
    match (points.first(), points.last()) {
        _ if looks.is_empty() => Finding::NoLooks,
        _ if looks.iter().all(|l| finite(l.gold).is_none()) => Finding::NoGold,
        (Some(&first), Some(&last)) if points.len() > 1 => match turn(&points) {
            Some(at) => Finding::Turned { from: points[at - 1], to: points[at], last, fall: fall(at, &golds) },
            None => Finding::Held { first, last, looks: points.len() },
        },
        _ => Finding::TooFew,
    }
}

impl Finding {
    /// As HTML.
    pub fn sentence(&self) -> String {
        let two = |x: f64| number(x, 2);
        match self {
            Self::NoLooks => "Nobody looked at held-out prompts, so there is no over-optimization curve: train with \
                <code>--heldout F --gold R</code>."
                .into(),
            Self::NoGold => "<strong>Whether it turned cannot be told:</strong> no gold reward was looked at. Train \
                with <code>--gold R</code>."
                .into(),
            Self::TooFew => "<strong>Whether it turned cannot be told:</strong> fewer than two looks have proxy, gold \
                and KL. Train for more steps, or look more often with <code>--look-every N</code>."
                .into(),
            Self::Turned { from, to, last, fall } => format!(
                "<strong>{} at step {}:</strong> there gold falls from {} to {} while the proxy rises from {} to \
                 {}, and gold does not come back to what it was. At the last look, step {}, gold is {} and the proxy {}.{}",
                match fall {
                    Some(fall) if fall.holds(0.0) => "Perhaps turned",
                    _ => "Turned",
                },
                to.step,
                two(from.gold),
                two(to.gold),
                two(from.proxy),
                two(to.proxy),
                last.step,
                two(last.gold),
                two(last.proxy),
                fall.as_ref().map(fallen).unwrap_or_default()
            ),
            Self::Held { first, last, looks } => format!(
                "<strong>Did not turn:</strong> over {}, up to step {} and a KL of {} nats, gold never falls for good \
                 while the proxy rises. Gold goes from {} to {}, the proxy from {} to {}.",
                plural(*looks, "look", "looks"),
                last.step,
                two(last.kl),
                two(first.gold),
                two(last.gold),
                two(first.proxy),
                two(last.proxy)
            ),
        }
    }
}

/// How sure the fall of gold is.
fn fallen(fall: &Interval) -> String {
    let verdict = match fall.holds(0.0) {
        true => "chance may have made it",
        false => "more than chance makes",
    };
    let [by, low, high] = [fall.estimate, fall.low, fall.high].map(|x| number(x, 2));
    format!(" On the same prompts gold changed by {by} [{low}, {high}] since it turned: {verdict}.")
}

/// Every look as a row.
pub fn table(looks: &[Look]) -> String {
    let heads = ["√KL", "KL, nats", "Proxy", "Gold", "Tokens"];
    let columns = heads.iter().map(|head| Column::number(head)).collect();
    let mut table = Table::new("Every look", "Means over the held-out prompts.", "spread", "Step", columns);
    let cell = |value: Option<f64>, digits: usize| finite(value).map_or_else(absent, |v| number(v, digits));
    for look in looks {
        let cells =
            [cell(look.distance(), 2), cell(look.kl, 2), cell(look.proxy, 3), cell(look.gold, 3), cell(look.length, 1)];
        table.row(&look.step.to_string(), &cells);
    }
    table.finish()
}
