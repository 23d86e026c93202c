//! Charts as inline SVG without a fixed size: marks stand at percentages of the plot, so that
//! text keeps its size on a phone while the plot narrows. Curves and areas, which SVG cannot
//! place by percentage, stand in a nested drawing that is stretched to the plot.

use super::text::{escape, number, percent};

/// The plot's ranges: `x` across, `y` up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// Smallest and largest value across.
    pub x: (f64, f64),
    /// Smallest and largest value up.
    pub y: (f64, f64),
}

impl Frame {
    /// Percentage of the plot's width at which `x` stands.
    pub fn across(&self, x: f64) -> f64 {
        share(x, self.x)
    }

    /// Percentage of the plot's height, from the top, at which `y` stands.
    pub fn down(&self, y: f64) -> f64 {
        100.0 - share(y, self.y)
    }

    /// Points as a polyline's `points` in the nested drawing of [`stretched`].
    pub fn points(&self, points: &[(f64, f64)]) -> String {
        points.iter().map(|&(x, y)| format!("{:.2},{:.2}", self.across(x), self.down(y))).collect::<Vec<_>>().join(" ")
    }
}

/// Where `value` stands in `range`, in percent; the middle of an empty range.
fn share(value: f64, (low, high): (f64, f64)) -> f64 {
    if high > low { 100.0 * (value - low) / (high - low) } else { 50.0 }
}

/// A nested drawing of 100 by 100 units that fills the plot.
pub fn stretched(body: &str) -> String {
    format!(r#"<svg viewBox="0 0 100 100" width="100%" height="100%" preserveAspectRatio="none">{body}</svg>"#)
}

/// Round values that cover `[low, high]` in about `wanted` steps of 1, 2 or 5 times a power of ten.
pub fn ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    if low >= high || !(high - low).is_finite() || wanted == 0 {
        return vec![low];
    }
    let rough = (high - low) / wanted as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].iter().map(|m| m * power).find(|s| *s >= rough * 0.999).unwrap_or(10.0 * power);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Decimals that keep neighboring ticks apart.
fn decimals(ticks: &[f64]) -> usize {
    let step = match ticks {
        [a, b, ..] => b - a,
        _ => 1.0,
    };
    if step >= 1.0 { 0 } else { (-step.log10()).ceil().clamp(0.0, 6.0) as usize }
}

/// Axis lines with ticks, and their titles under and above the plot.
pub fn axes(frame: &Frame, x_title: &str, y_title: &str, wanted: (usize, usize)) -> String {
    let mut out = String::new();
    let xs = ticks(frame.x.0, frame.x.1, wanted.0);
    for x in &xs {
        out.push_str(&format!(
            r#"<text x="{:.2}%" y="100%" dy="1.5em" text-anchor="middle">{}</text>"#,
            frame.across(*x),
            number(*x, decimals(&xs))
        ));
    }
    let ys = ticks(frame.y.0, frame.y.1, wanted.1);
    for y in &ys {
        let down = frame.down(*y);
        out.push_str(&format!(
            r#"<line class="grid" x1="0" x2="100%" y1="{down:.2}%" y2="{down:.2}%"/><text x="-8" y="{down:.2}%" dy=".32em" text-anchor="end">{}</text>"#,
            number(*y, decimals(&ys))
        ));
    }
    out.push_str(&format!(
        r#"<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/><text x="50%" y="100%" dy="3em" text-anchor="middle">{}</text>"#,
        escape(x_title)
    ));
    if !y_title.is_empty() {
        out.push_str(&format!(r#"<text x="-8" y="0" dy="-1.4em" text-anchor="start">{}</text>"#, escape(y_title)));
    }
    out
}

/// One chart: `body` inside a plot of `height` (CSS length) that screen readers hear as `label`.
pub fn plot(class: &str, height: &str, label: &str, body: &str) -> String {
    format!(
        r#"<div class="plot {class}" style="--h:{height}"><svg role="img" aria-label="{}">{body}</svg></div>"#,
        escape(label)
    )
}

/// A point with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Whisker {
    /// Lower end.
    pub low: f64,
    /// The estimate.
    pub mid: f64,
    /// Upper end.
    pub high: f64,
}

impl Whisker {
    /// Whether the interval leaves `value` out.
    pub fn excludes(&self, value: f64) -> bool {
        self.low > value || self.high < value
    }
}

/// One table cell's dot-and-whisker over `range`, with a dashed line at `zero` and the ends of
/// the whisker kept inside the cell. The line is thick where the interval leaves `zero` out.
pub fn whisker_cell(whisker: Whisker, range: (f64, f64), zero: f64, label: &str) -> String {
    let at = |x: f64| share(x, range).clamp(0.0, 100.0);
    let on = if whisker.excludes(zero) { " on" } else { "" };
    format!(
        concat!(
            r#"<svg class="cell" role="img" aria-label="{label}">"#,
            r#"<line class="zero" x1="{zero:.2}%" x2="{zero:.2}%" y1="-40%" y2="140%"/>"#,
            r#"<line class="whisker{on}" x1="{low:.2}%" x2="{high:.2}%" y1="50%" y2="50%"/>"#,
            r#"<circle class="point{on}" cx="{mid:.2}%" cy="50%" r="5"/></svg>"#
        ),
        label = escape(label),
        zero = at(zero),
        low = at(whisker.low),
        high = at(whisker.high),
        mid = at(whisker.mid),
        on = on,
    )
}

/// Bars of the histogram of Kendall tau distances, with the chance line, the selection threshold
/// and the curve that independent rankings of `per_prompt` completions would follow.
pub fn k_histogram(k: &[f64], tau_k: f64, per_prompt: Option<usize>) -> String {
    const BINS: usize = 20;
    let mut bins = [0usize; BINS];
    for value in k {
        bins[((value * BINS as f64 + 1e-9) as usize).min(BINS - 1)] += 1;
    }
    let expected = per_prompt.and_then(|n| chance_curve(n, k.len(), 1.0 / BINS as f64));
    let peak = expected.iter().flatten().map(|p| p.1).fold(0.0, f64::max);
    let tallest = bins.iter().max().copied().unwrap_or(0).max(1) as f64;
    let frame = Frame { x: (0.0, 1.0), y: (0.0, tallest.max(peak) * 1.08) };
    let mut body = axes(&frame, "Kendall tau distance K", "Prompts", (5, 4));
    for (i, n) in bins.iter().enumerate().filter(|(_, n)| **n > 0) {
        let left = i as f64 / BINS as f64;
        let over = if left + 1e-9 >= tau_k { " over" } else { "" };
        let top = frame.down(*n as f64);
        body.push_str(&format!(
            r#"<rect class="bar{over}" x="{:.2}%" y="{top:.2}%" width="{:.2}%" height="{:.2}%"><title>K from {} to {}: {n} prompts</title></rect>"#,
            100.0 * left + 0.3,
            100.0 / BINS as f64 - 0.6,
            100.0 - top,
            number(left, 2),
            number(left + 1.0 / BINS as f64, 2),
        ));
    }
    if let Some(curve) = &expected {
        body.push_str(&stretched(&format!(r#"<polyline class="chance" points="{}"/>"#, frame.points(curve))));
    }
    body.push_str(&k_lines(&frame, tau_k));
    let over = k.iter().filter(|v| **v >= tau_k).count();
    let label = format!(
        "Histogram of K over {} prompts; {over} of them at or above the threshold {}",
        k.len(),
        number(tau_k, 2)
    );
    plot("", "15rem", &label, &body)
}

/// The lines at chance and at the threshold; one line where they coincide.
fn k_lines(frame: &Frame, tau_k: f64) -> String {
    let line = |x: f64, class: &str, anchor: &str, dx: f64, name: &str| {
        let x = frame.across(x);
        format!(
            r#"<line class="{class}" x1="{x:.2}%" x2="{x:.2}%" y1="-4%" y2="100%"/><text class="name halo" x="{x:.2}%" y="-4%" dx="{dx}" dy=".6em" text-anchor="{anchor}">{name}</text>"#
        )
    };
    if (tau_k - 0.5).abs() < 1e-9 {
        return line(0.5, "axis", "start", 6.0, "chance = threshold");
    }
    let (chance, threshold) =
        if tau_k > 0.5 { (("end", -6.0), ("start", 6.0)) } else { (("start", 6.0), ("end", -6.0)) };
    line(0.5, "thin", chance.0, chance.1, "chance")
        + &line(tau_k, "axis", threshold.0, threshold.1, &format!("threshold {tau_k}"))
}

/// Prompts that each bin would hold if the two rankings of `n` completions were independent:
/// the normal approximation of Kendall's null distribution, mean 1/2 and standard deviation
/// sqrt((2n + 5) / (18 n (n - 1))). `None` below 4 completions, where it does not hold.
fn chance_curve(n: usize, prompts: usize, width: f64) -> Option<Vec<(f64, f64)>> {
    if n < 4 || prompts == 0 {
        return None;
    }
    let size = n as f64;
    let sd = ((2.0 * size + 5.0) / (18.0 * size * (size - 1.0))).sqrt();
    let scale = prompts as f64 * width / (sd * (2.0 * std::f64::consts::PI).sqrt());
    let density = |x: f64| scale * (-0.5 * ((x - 0.5) / sd).powi(2)).exp();
    Some((0..=100).map(|i| f64::from(i) / 100.0).map(|x| (x, density(x))).collect())
}

/// One line of a chart of curves.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What the line is of.
    pub name: String,
    /// Its points in order of x; points with a value that is not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// Lines on shared axes, told apart by color and dash; `None` where no series has two
/// points to join.
pub fn curves(series: &[Series], x_title: &str, y_title: &str, from_zero: bool) -> Option<String> {
    let finite = |s: &Series| -> Vec<(f64, f64)> {
        s.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let lines: Vec<Vec<(f64, f64)>> = series.iter().map(finite).collect();
    if lines.iter().all(|l| l.len() < 2) {
        return None;
    }
    let all = || lines.iter().flatten();
    let fold = |get: fn(&(f64, f64)) -> f64| {
        all().map(get).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)))
    };
    let (x, mut y) = (fold(|p| p.0), fold(|p| p.1));
    if from_zero {
        y.0 = y.0.min(0.0);
    }
    let pad = if y.1 > y.0 { 0.06 * (y.1 - y.0) } else { 0.5 };
    let bottom = if from_zero && y.0 == 0.0 { 0.0 } else { y.0 - pad };
    let frame = Frame { x, y: (bottom, y.1 + pad) };
    let mut body = axes(&frame, x_title, "", (6, 4));
    let drawn: String = lines
        .iter()
        .enumerate()
        .filter(|(_, l)| l.len() > 1)
        .map(|(i, l)| format!(r#"<polyline class="curve s{}" points="{}"/>"#, i % 5, frame.points(l)))
        .collect();
    body.push_str(&stretched(&drawn));
    let ends: Vec<String> = series
        .iter()
        .zip(&lines)
        .filter_map(|(s, l)| match (l.first(), l.last()) {
            (Some(a), Some(b)) => Some(format!("{} from {} to {}", s.name, number(a.1, 2), number(b.1, 2))),
            _ => None,
        })
        .collect();
    Some(plot("bare", "13rem", &format!("{y_title} by {}: {}", x_title.to_lowercase(), ends.join("; ")), &body))
}

/// The legend of [`curves`].
pub fn curve_key(names: &[&str]) -> String {
    let items: String = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            format!(
                r#"<li><svg width="30" height="10" aria-hidden="true"><line class="curve s{}" x1="0" x2="30" y1="5" y2="5"/></svg>{}</li>"#,
                i % 5,
                escape(name)
            )
        })
        .collect();
    format!(r#"<ul class="key">{items}</ul>"#)
}

/// One table cell's bar of `share` in [0, 1], for durations beside their numbers.
pub fn bar_cell(share: f64) -> String {
    format!(
        r#"<svg class="cell" role="img" aria-label="{}"><rect class="bar" x="0" y="25%" width="{:.2}%" height="50%"/></svg>"#,
        percent(share),
        100.0 * share.clamp(0.0, 1.0)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        let close = |got: Vec<f64>, want: &[f64]| {
            assert_eq!(got.len(), want.len(), "{got:?}");
            assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?}");
        };
        close(ticks(0.0, 1.0, 5), &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        close(ticks(-3.0, 3.0, 6), &[-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]);
        close(ticks(0.0, 37.0, 4), &[0.0, 10.0, 20.0, 30.0]);
        close(ticks(2.0, 2.0, 4), &[2.0]);
    }

    #[test]
    fn every_prompt_is_in_a_bar() {
        let svg = k_histogram(&[0.0, 0.49, 0.5, 0.5, 1.0], 0.5, None);
        assert_eq!(svg.matches("<rect").count(), 4);
        assert!(svg.contains("K from 0.50 to 0.55: 2 prompts"));
        assert!(svg.contains("K from 0.95 to 1.00: 1 prompts"));
        assert_eq!(svg.matches("bar over").count(), 2);
        assert!(svg.contains("3 of them at or above the threshold 0.50"));
    }

    #[test]
    fn threshold_and_chance_are_told_apart_where_they_differ() {
        let svg = k_histogram(&[0.4], 0.6, Some(8));
        assert!(svg.contains(">chance<") && svg.contains(">threshold 0.6<"));
    }

    #[test]
    fn chance_curve_holds_all_prompts() {
        // Its integral over [0, 1] in units of a bin's width is the number of prompts.
        let curve = chance_curve(8, 96, 0.05).unwrap();
        let area: f64 = curve.iter().map(|p| p.1).sum::<f64>() / 100.0 / 0.05;
        assert!((area - 96.0).abs() < 0.2, "{area}");
        assert_eq!(chance_curve(3, 96, 0.05), None);
    }

    #[test]
    fn a_whisker_is_marked_where_it_leaves_zero_out() {
        let cell = |low, high| whisker_cell(Whisker { low, mid: 0.2, high }, (-1.0, 1.0), 0.0, "gold <reward>");
        assert!(cell(0.1, 0.3).contains("whisker on"));
        assert!(!cell(-0.1, 0.5).contains("whisker on"));
        assert!(cell(-0.1, 9.0).contains(r#"x2="100.00%""#));
        assert!(cell(0.1, 0.3).contains("gold &lt;reward&gt;"));
    }

    #[test]
    fn curves_leave_out_what_is_not_a_number() {
        let series = |points: &[(f64, f64)]| Series { name: "arm".into(), points: points.into() };
        let svg = curves(&[series(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)])], "Step", "Reward", false);
        let svg = svg.unwrap();
        assert_eq!(svg.matches("<polyline").count(), 1);
        assert!(svg.contains("arm from 1.00 to 3.00"));
        assert!(!svg.contains("NaN"));
        assert_eq!(curves(&[series(&[(0.0, 1.0)])], "Step", "Reward", false), None);
    }
}
