//! The conflict map: every completion by what the policy and the reward model think of it.

use super::charts::{Frame, axes, plot, stretched};
use super::measures::ends;
use super::pool::{Dot, Pool, RegionTally, Tally};
use super::tables::{Column, Table, absent};
use super::text::{count, escape, name, percent, plural};

/// How a dot is drawn: in this order, so that mistakes lie on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Judged {
    /// No pair that gold tells apart.
    Nothing,
    /// Every such pair ordered as gold orders it.
    Right,
    /// Less than half of them misordered.
    Some,
    /// Half of them or more misordered.
    Most,
}

impl Judged {
    fn of(tally: &Tally) -> Self {
        match tally.share() {
            None => Self::Nothing,
            Some(0.0) => Self::Right,
            Some(share) if share < 0.5 => Self::Some,
            Some(_) => Self::Most,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Right => "right",
            Self::Some => "some",
            Self::Most => "most",
        }
    }

    /// The mark at a place given in SVG lengths, around its tooltip.
    fn mark(self, x: &str, y: &str, inside: &str) -> String {
        let class = self.class();
        match self {
            Self::Most => {
                format!(r##"<use class="{class}" href="#lozenge" x="{x}" y="{y}">{inside}</use>"##)
            }
            _ => format!(r#"<circle class="{class}" cx="{x}" cy="{y}" r="3.6">{inside}</circle>"#),
        }
    }
}

/// Half of the map's side in standard deviations: all dots but strays, between 2 and 4.
fn reach(dots: &[Dot]) -> f64 {
    let farthest = dots.iter().flat_map(|d| [d.z_logp.abs(), d.z_reward.abs()]).fold(0.0, f64::max);
    ((farthest * 4.0 + 0.8).ceil() / 4.0).clamp(2.0, 4.0)
}

/// The map with its legend.
pub fn conflict_map(pool: &Pool, delta: f64, ringed: Option<&str>) -> String {
    let side = reach(&pool.dots);
    let frame = Frame { x: (-side, side), y: (-side, side) };
    let mut body = stretched(&regions(&frame, side, delta));
    body.push_str(r#"<defs><path id="lozenge" d="M0-6 5 0 0 6-5 0z"/></defs>"#);
    body.push_str(&axes(
        &frame,
        "z(log-prob): what the policy finds likely →",
        "z(reward): what the reward model likes ↑",
        (8, 8),
    ));
    let mut order: Vec<&Dot> = pool.dots.iter().collect();
    order.sort_by_key(|d| Judged::of(&d.tally));
    let marks: String = order.iter().map(|dot| mark(dot, &frame)).collect();
    body.push_str(&format!(r#"<g class="dots">{marks}</g>"#));
    body.push_str(&names());
    let label = format!(
        "Scatter of {} completions: standardized log-prob across, standardized reward up. {} over-valued, {} in agreement, {} under-valued by the reward model.",
        pool.dots.len(),
        pool.regions[0].completions,
        pool.regions[1].completions,
        pool.regions[2].completions
    );
    format!("{}{}", key(pool, ringed), plot("map", "auto", &label, &body))
}

/// One completion, with its tooltip and its ring.
fn mark(dot: &Dot, frame: &Frame) -> String {
    let x = format!("{:.2}%", frame.across(dot.z_logp).clamp(0.0, 100.0));
    let y = format!("{:.2}%", frame.down(dot.z_reward).clamp(0.0, 100.0));
    let title = format!("<title>{}</title>", escape(&dot.hint));
    let mut out = Judged::of(&dot.tally).mark(&x, &y, &title);
    if dot.selected {
        out.push_str(&format!(r#"<circle class="ring" cx="{x}" cy="{y}" r="8"/>"#));
    }
    out
}

/// The two conflict regions, shaded, on both sides of the band |z(reward) - z(logp)| < delta.
fn regions(frame: &Frame, side: f64, delta: f64) -> String {
    // A delta beyond the map's corner leaves no region to shade.
    let delta = delta.clamp(0.0, 2.0 * side);
    let upper = [(-side, side), (-side, -side + delta), (side - delta, side)];
    let lower = [(side, -side), (-side + delta, -side), (side, side - delta)];
    [upper, lower]
        .iter()
        .map(|corners| {
            format!(
                r#"<polygon class="region" points="{}"/><polyline class="border" fill="none" points="{}"/>"#,
                frame.points(corners),
                frame.points(&corners[1..])
            )
        })
        .collect()
}

/// The regions' names, on top of the dots, with a halo.
fn names() -> String {
    let corner = |x: &str, y: &str, anchor: &str, lines: &[(&str, &str, &str)]| {
        lines
            .iter()
            .map(|(dy, class, words)| {
                format!(r#"<text class="halo {class}" x="{x}" y="{y}" dy="{dy}" text-anchor="{anchor}">{words}</text>"#)
            })
            .collect::<String>()
    };
    let over = [
        ("1.6em", "name", "Over-valued"),
        ("2.95em", "sub", "the reward model likes"),
        ("4.2em", "sub", "what the policy finds unlikely"),
    ];
    let under = [
        ("-3.5em", "name low", "Under-valued"),
        ("-2.15em", "sub", "the reward model dislikes"),
        ("-.9em", "sub", "what the policy finds likely"),
    ];
    corner("1.5%", "0", "start", &over)
        + &corner("98.5%", "100%", "end", &under)
        + &corner("98.5%", "0", "end", &[("1.6em", "name", "Agreement")])
}

/// The map's legend.
fn key(pool: &Pool, ringed: Option<&str>) -> String {
    let entry = |mark: String, words: &str| {
        format!(r#"<li><svg width="16" height="16" viewBox="-8 -8 16 16" aria-hidden="true">{mark}</svg>{words}</li>"#)
    };
    let lozenge = r#"<path class="most" d="M0-6 5 0 0 6-5 0z"/>"#.to_string();
    let mut out = String::new();
    if pool.pairs.pairs > 0 {
        out.push_str(&entry(Judged::Right.mark("0", "0", ""), "ordered as gold does"));
        out.push_str(&entry(Judged::Some.mark("0", "0", ""), "misordered in under half its pairs"));
        out.push_str(&entry(lozenge, "in half or more"));
    }
    if pool.dots.iter().any(|d| d.tally.pairs == 0) {
        out.push_str(&entry(Judged::Nothing.mark("0", "0", ""), "no gold to judge by"));
    }
    if let Some(arm) = ringed.filter(|_| pool.dots.iter().any(|d| d.selected)) {
        let words = format!("sent for feedback by {}", escape(arm));
        out.push_str(&entry(r#"<circle class="ring" r="6.5"/>"#.into(), &words));
    }
    format!(r#"<ul class="key">{out}</ul>"#)
}

/// What the map's caption says of what it leaves out.
pub fn caption(pool: &Pool) -> String {
    let mut out = String::from(
        "Each mark is one completion; values are standardized within their prompt, so the middle is \
         a prompt’s average answer. A completion counts as misordered where the reward model \
         prefers the worse of it and another answer to the same prompt, by gold.",
    );
    if pool.dots.len() < pool.placed {
        out.push_str(&format!(
            " {} of {} completions are drawn, chosen at random; the table counts all.",
            count(pool.dots.len()),
            count(pool.placed)
        ));
    }
    let left_out = pool.completions - pool.placed;
    if left_out > 0 {
        out.push_str(&format!(
            " {} of prompts whose rewards or log-probs are constant or missing cannot be placed.",
            plural(left_out, "completion", "completions")
        ));
    }
    out
}

/// What lies in each region and how often the reward model is wrong there.
pub fn region_table(pool: &Pool, delta: f64, arms: &[&str]) -> String {
    let gold = pool.pairs.pairs > 0;
    let mut columns = vec![Column::number("Completions")];
    if gold {
        columns.push(Column::number("Pairs misordered"));
    }
    columns.extend(arms.iter().map(|arm| Column::number(&format!("Sent by {}", name(arm)))));
    let note = if gold {
        "Share of the pairs with different gold that the reward model misorders: mean over \
         prompts, with its 95 % interval."
    } else {
        "No completion has a gold reward, so mistakes of the reward model cannot be counted."
    };
    let mut table = Table::new("Region by region", note, "spread", "Region", columns);
    let rows = [
        ("Over-valued", format!("PACS ≥ {delta}: the reward model likes what the policy finds unlikely")),
        ("Agreement", format!("|PACS| &lt; {delta}")),
        ("Under-valued", format!("PACS ≤ −{delta}: the reward model dislikes what the policy finds likely")),
    ];
    for ((name, why), tally) in rows.iter().zip(&pool.regions) {
        let mut cells = vec![completions(tally, pool.placed)];
        if gold {
            cells.push(misordered(tally));
        }
        cells.extend(arms.iter().map(|arm| count(tally.selected.get(*arm).copied().unwrap_or(0))));
        table.row(&format!(r#"{name}<span class="why">{why}</span>"#), &cells);
    }
    table.finish()
}

fn completions(tally: &RegionTally, placed: usize) -> String {
    let share = tally.completions as f64 / placed.max(1) as f64;
    format!(r#"{}<span class="ci">{}</span>"#, count(tally.completions), percent(share))
}

fn misordered(tally: &RegionTally) -> String {
    tally.wrong.as_ref().map_or_else(absent, |wrong| {
        format!(r#"{}<span class="ci">{}</span>"#, percent(wrong.estimate), ends(wrong, 0, 100.0))
    })
}
