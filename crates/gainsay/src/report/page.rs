//! The page, from top to bottom.

use super::cards::cards;
use super::charts::{Series, curve_key, curves, k_histogram};
use super::curve::figure;
use super::data::{Arm, ReportData, Step};
use super::looks::finding;
use super::map::{caption, conflict_map, region_table};
use super::measures::estimate;
use super::pool::Pool;
use super::style::CSS;
use super::tables::{Column, Table, absent, before_after, difference_tables, label_table, timing_table};
use super::text::{count, escape, number, percent, plural, signed};
use super::validation;
use super::verdict::{key_figures, paragraph};

/// A section of the page: anchor, heading and contents.
struct Section {
    anchor: &'static str,
    short: &'static str,
    heading: &'static str,
    body: String,
}

/// The page as one HTML document. Pure: it reads and writes nothing.
pub fn render(data: &ReportData) -> String {
    let sections = sections(data);
    let nav: String =
        sections.iter().map(|s| format!(r##"<li><a href="#{}">{}</a></li>"##, s.anchor, s.short)).collect();
    let body: String = sections
        .iter()
        .map(|s| {
            format!(r#"<section aria-labelledby="{0}"><h2 id="{0}">{1}</h2>{2}</section>"#, s.anchor, s.heading, s.body)
        })
        .collect();
    let header = format!(
        concat!(
            "<p class=\"kicker\"><b>Gainsay</b> · run report · <b>{name}</b></p>",
            "<h1>Where the reward model and the policy contradict each other</h1>{notice}",
            "<p class=\"lede\">{verdict}</p>{figures}<nav aria-label=\"Sections\"><ul>{nav}</ul></nav>",
        ),
        name = escape(&data.name),
        notice = notice(data),
        verdict = paragraph(data),
        figures = key_figures(data),
        nav = nav,
    );
    document(&data.name, &header, &body, FOOTER)
}

/// A page of its own around the HTML of its parts, with `title` as text. The policy lets nothing in
/// from outside and runs no script, whatever a completion holds.
pub fn document(title: &str, header: &str, body: &str, footer: &str) -> String {
    format!(
        concat!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">",
            r#"<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"#,
            r#"<meta name="viewport" content="width=device-width,initial-scale=1">"#,
            r#"<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">"#,
            "<title>{title} · Gainsay</title><style>{css}</style></head><body>",
            "<a class=\"skip\" href=\"#main\">Skip to the contents</a>\n",
            "<header>{header}</header>\n<main id=\"main\">{body}</main>\n",
            "<footer><p>Written by Gainsay {version}. {footer} This page is one file: it loads nothing and runs no script.</p>",
            "</footer></body></html>\n"
        ),
        title = escape(title),
        css = CSS,
        header = header,
        body = body,
        version = env!("CARGO_PKG_VERSION"),
        footer = footer,
    )
}

const FOOTER: &str = "Intervals are 95 %, by bootstrap over prompts. Gold stands in for people’s judgment and is itself a \
                      model or a label with errors of its own.";

/// What is missing of an unfinished run, and what could not be read.
fn notice(data: &ReportData) -> String {
    let faults = data.missing.iter().filter(|m| m.fault.is_some());
    let faults: String = faults
        .map(|m| {
            let fault = m.fault.as_deref().unwrap_or_default();
            format!("<li><code>{}</code>: {}</li>", escape(&m.file), escape(fault))
        })
        .collect();
    let mut out = String::new();
    if !data.finished() {
        let waiting = data.missing.iter().filter(|m| m.fault.is_none());
        let waiting: String = waiting.map(|m| format!("<li><code>{}</code></li>", escape(&m.file))).collect();
        out.push_str(&format!(
            "<p><b>This run is not finished.</b> The page shows what is there. Not there yet:</p><ul>{waiting}</ul>"
        ));
    }
    if !faults.is_empty() {
        out.push_str(&format!("<p><b>Could not be read</b> and is left out:</p><ul>{faults}</ul>"));
    }
    if out.is_empty() { out } else { format!(r#"<aside class="notice">{out}</aside>"#) }
}

fn sections(data: &ReportData) -> Vec<Section> {
    let make = |anchor, short, heading, body| Section { anchor, short, heading, body };
    let mut out = vec![
        make("map", "Conflict map", "The conflict map", map_section(data)),
        make("k", "Rankings", "How far the two rankings disagree", k_section(data)),
        make("mistakes", "Mistakes", "Does conflict find mistakes?", validation::section(data)),
        make("effect", "Before and after", "Before and after", effect_section(data)),
        make("training", "Training", "How the policies were tuned", training_section(&data.arms)),
        make("conflicts", "Strongest conflicts", "The strongest conflicts", conflict_section(data)),
        make("cost", "Cost", "What it cost", cost_section(data)),
        make("reading", "Recipe and terms", "Recipe, provenance and terms", details(data)),
    ];
    out.retain(|s| !s.body.is_empty());
    out
}

/// One sentence in a section's place.
pub fn waiting(what: &str) -> String {
    format!(r#"<p class="absent">{what}</p>"#)
}

fn map_section(data: &ReportData) -> String {
    let Some(pool) = data.pool().filter(|p| p.placed > 0) else {
        return waiting("No completion has both a reward and a log-prob yet.");
    };
    let delta = data.settings.delta;
    let scope = match &pool.arm {
        Some(arm) => format!(", {}", escape(arm)),
        None => String::new(),
    };
    format!(
        concat!(
            "<p>The policy’s own log-prob says which of its answers it finds likely; the reward model ",
            "says which it likes. On the diagonal the two agree. Away from it one of them may be ",
            "wrong, and that is where a label is worth most. Shown are {completions} to {prompts} ",
            "of round {round}{scope}.</p>",
            "<figure>{map}<figcaption>{caption}</figcaption></figure>{table}"
        ),
        completions = plural(pool.completions, "completion", "completions"),
        prompts = plural(pool.prompts, "prompt", "prompts"),
        round = pool.round,
        scope = scope,
        map = conflict_map(pool, delta, data.main_arm()),
        caption = caption(pool),
        table = region_table(pool, delta, &data.arm_names()),
    )
}

fn k_section(data: &ReportData) -> String {
    let Some(pool) = data.pool() else { return String::new() };
    let degenerate = match pool.degenerate {
        0 => "No prompt is degenerate.".to_string(),
        n => format!(
            "Beside them, <b>{}</b> degenerate{}: such prompts have no K and are never selected.",
            plural(n, "prompt is", "prompts are"),
            reasons(data)
        ),
    };
    if pool.k.is_empty() {
        return format!("<p>No prompt has a K. {degenerate}</p>");
    }
    let tau = data.settings.tau_k;
    let over = pool.k.iter().filter(|k| **k >= tau).count();
    let mean = pool.mean_k.as_ref().map_or_else(String::new, |k| format!(" The mean is {}.", estimate(k, 3)));
    let curve = match pool.per_prompt {
        Some(n) if n >= 4 => format!(
            " The dashed curve is what unrelated rankings of {n} answers would give (normal \
             approximation); dark bars lie at or above the threshold."
        ),
        _ => String::new(),
    };
    format!(
        concat!(
            "<p>K is the share of a prompt’s pairs of answers that reward and log-prob order ",
            "differently: 0 is full agreement, 1 is reversal, one half is chance. {over} of {all} ",
            "({share}) lie at or above the threshold of {tau}.{mean}</p>",
            "<figure>{chart}<figcaption>{degenerate}{curve}</figcaption></figure>{length}{rounds}"
        ),
        over = count(over),
        all = plural(pool.k.len(), "prompt", "prompts"),
        share = percent(over as f64 / pool.k.len() as f64),
        tau = number(tau, 2),
        mean = mean,
        chart = k_histogram(&pool.k, tau, pool.per_prompt),
        degenerate = degenerate,
        curve = curve,
        length = correlations(data),
        rounds = rounds_table(&data.pools),
    )
}

/// Why prompts are degenerate, ` (1 constant reward)`; empty where the summary does not say.
fn reasons(data: &ReportData) -> String {
    let Some(summary) = &data.summary else { return String::new() };
    let named: Vec<String> = summary
        .degenerate
        .iter()
        .filter(|(reason, n)| *reason != "total" && **n > 0)
        .map(|(reason, n)| format!("{} {}", count(*n as usize), escape(&reason.replace('_', " "))))
        .collect();
    if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) }
}

/// How reward and log-prob go with length: where log-prob is nearly length, so is the conflict.
fn correlations(data: &ReportData) -> String {
    let Some(summary) = &data.summary else { return String::new() };
    let pairs = [
        ("reward and log-prob", summary.reward_logp),
        ("log-prob and length", summary.logp_length),
        ("reward and length", summary.reward_length),
    ];
    let known: Vec<String> =
        pairs.iter().filter_map(|(name, c)| Some(format!("{name} {}", signed(c.within_prompt?, 2)))).collect();
    if known.is_empty() {
        return String::new();
    }
    format!(
        "<p class=\"small\">Correlations within prompts: {}. Where log-prob and length come close to \
         −1, conflict is mostly about length.</p>",
        known.join(", ")
    )
}

/// Conflict pool by pool, where there is more than one.
fn rounds_table(pools: &[Pool]) -> String {
    if pools.len() < 2 {
        return String::new();
    }
    let heads = ["Prompts", "Degenerate", "Mean K", "Mean |PACS|", "Pairs misordered"];
    let columns = heads.iter().map(|head| Column::number(head)).collect();
    let note = "The current policy samples; log-probs are the base policy’s.";
    let mut table = Table::new("Conflict round by round", note, "spread", "Pool", columns);
    for pool in pools {
        let arm = pool.arm.as_deref().map_or("all arms".to_string(), escape);
        let interval = |i: &Option<_>| i.as_ref().map_or_else(absent, |i| estimate(i, 3));
        table.row(
            &format!("Round {}, {arm}", pool.round),
            &[
                count(pool.prompts),
                count(pool.degenerate),
                interval(&pool.mean_k),
                interval(&pool.mean_abs_pacs),
                pool.pairs.share().map_or_else(absent, percent),
            ],
        );
    }
    table.finish()
}

fn effect_section(data: &ReportData) -> String {
    if data.base.is_none() && data.arms.iter().all(|a| a.evaluation.is_none()) {
        return waiting("No policy has been measured on the held-out prompts yet.");
    }
    let differences = if data.differences.is_empty() {
        waiting("The arms have not been compared yet.")
    } else {
        difference_tables(&data.differences)
    };
    format!(
        "<p>Every arm had the same budget of labels, refined the same proxy and tuned the same base \
         policy; only the choice of what to ask differed. Two intervals in the first table may \
         overlap although their paired difference is clear, and the other way around: go by the \
         second.</p>{}<hr>{differences}",
        before_after(data)
    )
}

fn training_section(arms: &[Arm]) -> String {
    let rounds = arms.iter().map(|a| a.round).max().unwrap_or(1);
    let with_steps: Vec<&Arm> = arms.iter().filter(|a| a.steps.len() > 1).collect();
    let names: Vec<String> = with_steps.iter().map(|a| arm_name(a, rounds)).collect();
    let chart = |title: &str, get: fn(&Step) -> Option<f64>, from_zero: bool| -> String {
        let series: Vec<Series> = with_steps
            .iter()
            .zip(&names)
            .map(|(arm, name)| Series {
                name: name.clone(),
                points: arm.steps.iter().filter_map(|s| Some((s.step, get(s)?))).collect(),
            })
            .collect();
        match curves(&series, "Step", title, from_zero) {
            Some(svg) => format!("<figure><h3>{title}</h3>{svg}</figure>"),
            None => String::new(),
        }
    };
    let charts = [
        chart("Reward of the arm’s reward model", |s| s.reward, false),
        chart("KL to the base policy, nats a sequence", |s| s.kl, true),
    ]
    .concat();
    let looks = looks_section(arms, rounds);
    if charts.is_empty() {
        return looks;
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    format!(
        "<p>A rising reward under a KL that stays small is learning; a reward that rises while \
         gold does not is overoptimization. Each arm’s reward is on the scale of its own reward \
         model.</p>{}<div class=\"pair\">{charts}</div>{looks}",
        curve_key(&names)
    )
}

/// The over-optimization curve of each arm whose training looked at held-out prompts.
fn looks_section(arms: &[Arm], rounds: u32) -> String {
    let of_arm = |arm: &Arm| {
        let name = arm_name(arm, rounds);
        let said = finding(&arm.looks).sentence();
        format!("<h3>{}: the over-optimization curve</h3><p>{said}</p>{}", escape(&name), figure(&arm.looks))
    };
    arms.iter().filter(|arm| !arm.looks.is_empty()).map(of_arm).collect()
}

/// An arm's name, with its round where there are several.
fn arm_name(arm: &Arm, rounds: u32) -> String {
    if rounds > 1 { format!("{}, round {}", arm.name, arm.round) } else { arm.name.clone() }
}

fn conflict_section(data: &ReportData) -> String {
    let Some(pool) = data.pool() else { return String::new() };
    if pool.strongest.is_empty() {
        return waiting("No pair of answers is ordered in opposite ways.");
    }
    format!(
        "<p>Of each prompt, the pair of answers on which reward model and policy are farthest apart; \
         here the {} strongest of all. Texts are shown as the models saw them: characters that \
         cannot be seen are spelled out.</p>{}",
        count(pool.strongest.len()),
        cards(pool)
    )
}

fn cost_section(data: &ReportData) -> String {
    let mut out = String::new();
    if !data.arms.is_empty() {
        out.push_str(&label_table(&data.arms));
    }
    if !data.timings.is_empty() {
        out.push_str("<hr>");
        out.push_str(&timing_table(&data.timings));
    }
    if out.is_empty() { waiting("Nothing has been paid for yet.") } else { out }
}

/// The terms that the page uses, by name.
const TERMS: [(&str, &str); 9] = [
    (
        "Policy, base policy",
        "The model that is tuned, and the same model before tuning. Conflict is measured against the base policy’s log-probs.",
    ),
    ("Reward model, proxy", "The learned reward that training optimizes. The proxy is the one before it was refined."),
    (
        "Gold",
        "A trusted stand-in for people: another reward model, or labels in the data. It answers the questions and measures the outcome; training never sees it otherwise.",
    ),
    (
        "z(reward), z(log-prob)",
        "A completion’s reward or summed log-prob, minus the mean over its prompt’s completions, divided by their standard deviation.",
    ),
    (
        "PACS",
        "z(reward) − z(log-prob) of a completion. Positive: over-valued by the reward model; negative: under-valued.",
    ),
    ("K", "Kendall tau distance of the two rankings of a prompt’s completions, from 0 to 1; one half is chance."),
    (
        "Misordered",
        "A pair of answers to one prompt that the reward model ranks against gold. Pairs with equal gold are left out; equal rewards count one half.",
    ),
    (
        "Win rate",
        "How often gold prefers the tuned policy’s answer to the base policy’s, over all pairs on a prompt; ties count one half.",
    ),
    ("Not distinguishable", "The 95 % interval of the paired difference holds 0."),
];

fn details(data: &ReportData) -> String {
    let fold = |name: &str, body: String| format!("<details><summary>{name}</summary>{body}</details>");
    let file = |text: &str| format!("<pre>{}</pre>", escape(text.trim_end()));
    let terms: String = TERMS.iter().map(|(term, what)| format!("<dt>{term}</dt><dd>{what}</dd>")).collect();
    let mut out = fold("What the terms mean", format!("<dl>{terms}</dl>"));
    if let Some(recipe) = &data.recipe {
        out.push_str(&fold("The recipe, with every default", file(recipe)));
    }
    if let Some(manifest) = &data.manifest {
        out.push_str(&fold("The manifest: versions, seed, models, digests", file(manifest)));
    }
    out
}
