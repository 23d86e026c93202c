//! The over-optimization curve as a figure: rewards against sqrt(KL) over a training's looks, with
//! the fitted forms (Gao, Schulman and Hilton, arXiv 2210.10760, section 3.1) and the turn.

use super::charts::{Frame, axes, plot, stretched};
use super::looks::{Finding, Look, finding, finite};
use super::tables::{Column, Table, absent};
use super::text::{number, plural, signed};
use crate::evaluation::curve::{Fit, fit};

/// One reward along the training.
struct Trace {
    name: &'static str,
    /// Its color and shape: 0 gold, 1 proxy.
    class: u8,
    /// Step, sqrt(KL) and reward.
    points: Vec<(u32, f64, f64)>,
    fit: Option<Fit>,
    /// Gains are divided by this in the drawing.
    divisor: f64,
}

impl Trace {
    fn of(name: &'static str, class: u8, looks: &[Look], reward: fn(&Look) -> Option<f64>) -> Self {
        let of_look = |look: &Look| Some((look.step, look.distance()?, finite(reward(look))?));
        let points: Vec<(u32, f64, f64)> = looks.iter().filter_map(of_look).collect();
        // The form starts from the base policy's reward.
        let starts = points.first().is_some_and(|p| p.0 == 0);
        let by_kl: Vec<(f64, f64)> = points.iter().map(|(_, d, reward)| (d * d, *reward)).collect();
        Self { name, class, fit: fit(&by_kl).filter(|_| starts), points, divisor: 1.0 }
    }

    fn start(&self) -> f64 {
        self.points.first().map_or(0.0, |p| p.2)
    }

    fn furthest(&self) -> f64 {
        self.points.iter().map(|p| p.1).fold(0.0, f64::max)
    }

    /// Where a reward stands in the drawing.
    fn height(&self, reward: f64) -> f64 {
        (reward - self.start()) / self.divisor
    }

    /// The largest gain or loss.
    fn reach(&self) -> f64 {
        self.points.iter().map(|p| (p.2 - self.start()).abs()).fold(0.0, f64::max)
    }

    /// The fitted form, or what joins the looks where there is none.
    fn line(&self) -> Vec<(f64, f64)> {
        let Some(Fit { alpha, beta, .. }) = self.fit else {
            return self.points.iter().map(|p| (p.1, self.height(p.2))).collect();
        };
        let gain = |d: f64| if d > 0.0 { d * (alpha - beta * d.ln()) } else { 0.0 };
        let at = |i: u32| self.furthest() * f64::from(i) / 80.0;
        (0..=80).map(at).map(|d| (d, gain(d) / self.divisor)).collect()
    }
}

/// Gold and proxy, as far as there are any; where one reaches more than four times as far as the
/// other it is drawn divided by a round number.
fn traces(looks: &[Look]) -> Vec<Trace> {
    let mut found = vec![Trace::of("Gold", 0, looks, |l| l.gold), Trace::of("Proxy", 1, looks, |l| l.proxy)];
    found.retain(|t| !t.points.is_empty());
    let least = found.iter().map(Trace::reach).fold(f64::INFINITY, f64::min);
    for trace in &mut found {
        let ratio = trace.reach() / least;
        if ratio > 4.0 && ratio.is_finite() {
            trace.divisor = round_number(ratio);
        }
    }
    found
}

/// The largest of 1, 2 or 5 times a power of ten that is not above `x`.
fn round_number(x: f64) -> f64 {
    let power = 10f64.powf(x.log10().floor());
    [5.0, 2.0, 1.0].iter().map(|m| m * power).find(|m| *m <= x * 1.000_001).unwrap_or(power)
}

/// The figure with its key, caption and fitted forms; empty where fewer than two looks have a
/// reward and a KL.
pub fn figure(looks: &[Look]) -> String {
    let traces = traces(looks);
    if traces.iter().all(|t| t.points.len() < 2) {
        return String::new();
    }
    let finding = finding(looks);
    let label = format!(
        "Reward gained over the base policy by the square root of the KL, over {} looks; {}",
        looks.len(),
        match &finding {
            Finding::Turned { to, .. } => format!("gold turns at step {}", to.step),
            _ => "no turn is marked".into(),
        }
    );
    let frame = frame(&traces);
    let lines: String = traces
        .iter()
        .filter(|t| t.points.len() > 1)
        .map(|t| format!(r#"<polyline class="curve s{}" points="{}"/>"#, t.class, frame.points(&t.line())))
        .collect();
    let dots: String = traces.iter().map(|t| dots(t, &frame)).collect();
    let body = axes(&frame, "√KL to the reference policy", "Reward gained over the base policy", (7, 5))
        + &stretched(&lines)
        + &turn_mark(&finding, &traces, &frame)
        + &dots;
    format!(
        "{}<figure>{}<figcaption>{}</figcaption></figure>{}",
        key(&traces),
        plot("", "21rem", &label, &body),
        caption(looks, &traces),
        fits(&traces)
    )
}

/// Ranges that hold the looks and the fitted lines, from the base policy on.
fn frame(traces: &[Trace]) -> Frame {
    let looks = traces.iter().flat_map(|t| t.points.iter().map(|p| t.height(p.2)));
    let lines = traces.iter().flat_map(|t| t.line().into_iter().map(|p| p.1));
    let (low, high) = looks.chain(lines).fold((0.0f64, 0.0f64), |(a, b), y| (a.min(y), b.max(y)));
    let pad = if high > low { 0.08 * (high - low) } else { 0.5 };
    let furthest = traces.iter().map(Trace::furthest).fold(0.0, f64::max);
    Frame { x: (0.0, if furthest > 0.0 { 1.03 * furthest } else { 1.0 }), y: (low - pad, high + pad) }
}

/// A dot a look, which says its step when pointed at.
fn dots(trace: &Trace, frame: &Frame) -> String {
    let dot = |&(step, d, reward): &(u32, f64, f64)| {
        format!(
            r#"<circle class="look l{}" cx="{:.2}%" cy="{:.2}%" r="4.5"><title>Step {step}: {} {}, √KL {}</title></circle>"#,
            trace.class,
            frame.across(d),
            frame.down(trace.height(reward)),
            trace.name.to_lowercase(),
            number(reward, 3),
            number(d, 2)
        )
    };
    trace.points.iter().map(dot).collect()
}

/// A line at the look at which gold turned, its step, and a ring around gold.
fn turn_mark(finding: &Finding, traces: &[Trace], frame: &Frame) -> String {
    let (Finding::Turned { to, .. }, Some(gold)) = (finding, traces.iter().find(|t| t.class == 0)) else {
        return String::new();
    };
    let x = frame.across(to.kl.sqrt());
    let (anchor, dx) = if x > 60.0 { ("end", -6) } else { ("start", 6) };
    format!(
        concat!(
            r#"<line class="dash" x1="{x:.2}%" x2="{x:.2}%" y1="0" y2="100%"/>"#,
            r#"<text class="name halo" x="{x:.2}%" y="100%" dx="{dx}" dy="-.7em" text-anchor="{anchor}">gold turns: step {step}</text>"#,
            r#"<circle class="ring" cx="{x:.2}%" cy="{y:.2}%" r="9"/>"#
        ),
        x = x,
        y = frame.down(gold.height(to.gold)),
        dx = dx,
        anchor = anchor,
        step = to.step,
    )
}

fn key(traces: &[Trace]) -> String {
    let item = |t: &Trace| {
        let divided = match t.divisor > 1.0 {
            true => format!(", divided by {}", number(t.divisor, 0)),
            false => String::new(),
        };
        format!(
            concat!(
                r#"<li><svg width="30" height="10" aria-hidden="true"><line class="curve s{c}" x1="0" x2="30" y1="5" y2="5"/>"#,
                r#"<circle class="look l{c}" cx="15" cy="5" r="4.5"/></svg>{name}{divided}</li>"#
            ),
            c = t.class,
            name = t.name,
            divided = divided
        )
    };
    format!(r#"<ul class="key">{}</ul>"#, traces.iter().map(item).collect::<String>())
}

fn caption(looks: &[Look], traces: &[Trace]) -> String {
    let lines = match traces.iter().any(|t| t.fit.is_some()) {
        true => "lines are the fitted form R(d) = R(0) + d (α − β log d), d = √KL, of Gao et al. 2022 (section 3.1)",
        false => "lines join the looks in the order of their steps, as there are too few to fit a form",
    };
    let lacking = looks.iter().filter(|l| l.distance().is_none() || finite(l.proxy).is_none()).count();
    let left_out = match lacking {
        0 => String::new(),
        n => format!(
            " {} without a finite KL or proxy reward {} left out.",
            plural(n, "look", "looks"),
            if n == 1 { "is" } else { "are" }
        ),
    };
    format!(
        "Each dot is one look: the mean over the held-out prompts, one completion each, so that small ups and downs \
         are chance; the KL is that of the distribution that is trained, at the training’s temperature; {lines}. Rewards are shown as gains over the first look.{left_out}"
    )
}

/// The fitted parameters; empty where nothing could be fitted.
fn fits(traces: &[Trace]) -> String {
    if traces.iter().all(|t| t.fit.is_none()) {
        return String::new();
    }
    let heads = ["R(0)", "α", "β", "highest at √KL", "misfit"];
    let columns = heads.iter().map(|head| Column::number(head)).collect();
    let note = "R(d) = R(0) + d (α − β log d) by least squares, with the natural logarithm; R(0) is the base policy’s \
                reward. With β above 0 it rises and then falls. Misfit: root mean square of what is left.";
    let mut table = Table::new("The fitted form", note, "spread", "Reward", columns);
    for trace in traces {
        let cells = match &trace.fit {
            None => vec![number(trace.start(), 3), absent(), absent(), absent(), absent()],
            Some(fit) => vec![
                number(trace.start(), 3),
                signed(fit.alpha, 3),
                signed(fit.beta, 3),
                peak(fit, trace.furthest()),
                number(fit.residual, 3),
            ],
        };
        table.row(trace.name, &cells);
    }
    table.finish()
}

/// Where the form is highest; beyond the looks it is a guess that is not made.
fn peak(fit: &Fit, furthest: f64) -> String {
    match fit.peak {
        Some(d) if d <= furthest => number(d, 2),
        _ => "beyond the looks".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::looks::table;

    fn look(step: u32, kl: f64, proxy: f64, gold: Option<f64>) -> Look {
        Look { step, kl: Some(kl), proxy: Some(proxy), gold, length: Some(20.0), ..Look::default() }
    }

    fn turned() -> Vec<Look> {
        let looks = [(0.0, 0.0, 0.0), (1.0, 0.5, 0.4), (4.0, 0.9, 0.3), (9.0, 1.2, 0.1)];
        looks.iter().enumerate().map(|(i, l)| look(10 * i as u32, l.0, l.1, Some(l.2))).collect()
    }

    #[test]
    fn the_turn_is_said_and_marked_where_it_is() {
        let looks = turned();
        let said = finding(&looks).sentence();
        assert!(said.contains("Turned at step 20") && said.contains("from 0.40 to 0.30"), "{said}");
        let drawn = figure(&looks);
        // √KL is 2 of 3.09 across.
        assert!(drawn.contains(r#"<circle class="ring" cx="64.72%""#), "{drawn}");
        assert!(drawn.contains("gold turns: step 20") && drawn.matches("<circle class=\"look l0\"").count() == 5);
        assert!(drawn.contains("The fitted form") && drawn.matches("<polyline").count() == 2);
    }

    #[test]
    fn a_fall_that_chance_may_have_made_is_called_so() {
        let with = |last: &dyn Fn(usize) -> f64| {
            let mut looks = turned();
            looks.iter_mut().for_each(|look| look.gold_by_prompt = vec![0.4; 20]);
            looks[3].gold_by_prompt = (0..20).map(last).collect();
            finding(&looks).sentence()
        };
        let (sure, chance) = (with(&|_| 0.1), with(&|i| if i < 9 { 1.4 } else { -0.96 }));
        assert!(sure.contains("Turned at step 20") && sure.contains("more than chance makes"), "{sure}");
        assert!(chance.contains("Perhaps turned") && chance.contains("chance may have made it"), "{chance}");
    }

    #[test]
    fn what_does_not_turn_has_no_mark() {
        let looks: Vec<Look> = (0..4).map(|i| look(i, f64::from(i), f64::from(i), Some(0.5 * f64::from(i)))).collect();
        assert!(finding(&looks).sentence().contains("Did not turn"));
        assert!(!figure(&looks).contains("gold turns"));
    }

    #[test]
    fn without_gold_or_with_one_look_nothing_is_claimed() {
        let bare: Vec<Look> = turned().iter().map(|l| Look { gold: None, ..l.clone() }).collect();
        assert_eq!(finding(&bare), Finding::NoGold);
        assert!(figure(&bare).contains("l1") && !figure(&bare).contains("l0"));
        assert_eq!(finding(&turned()[..1]), Finding::TooFew);
        assert_eq!((figure(&turned()[..1]), finding(&[])), (String::new(), Finding::NoLooks));
    }

    #[test]
    fn numbers_that_are_none_stay_off_the_page() {
        let mut looks = turned();
        looks[1].proxy = Some(f64::NAN);
        looks[2].kl = Some(f64::INFINITY);
        let drawn = figure(&looks) + &table(&looks);
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        assert!(drawn.contains("2\u{a0}looks without a finite KL or proxy reward are left out"), "{drawn}");
    }

    #[test]
    fn a_reward_of_another_scale_is_divided() {
        let looks: Vec<Look> =
            turned().iter().map(|l| Look { proxy: l.proxy.map(|p| 30.0 * p), ..l.clone() }).collect();
        // The proxy gains 36, gold 0.4 at most: 90 times as much.
        assert!(figure(&looks).contains("Proxy, divided by 50"));
        assert_eq!((round_number(90.0), round_number(4.2), round_number(10.0)), (50.0, 2.0, 10.0));
    }
}
