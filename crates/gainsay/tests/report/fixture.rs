//! A synthetic run directory with everything that a real one holds: keyed random numbers, so the
//! same on every machine. Its proxy is right about quality but likes what it should not in a
//! part of the prompts, as a proxy from a biased slice does.

use std::fs;
use std::path::Path;

use gainsay::evaluation::types::{Difference, Evaluation, Metrics, PromptMetrics, Verdict};
use gainsay_core::conflict::{ConflictOptions, SummaryBuilder, annotate};
use gainsay_core::files::write_all;
use gainsay_core::record::{
    Answer, Candidate, Completion, PreferenceRecord, PreferenceSide, Prompt, PromptRecord, SelectionRecord, Source, Why,
};
use gainsay_core::rng::Key;
use gainsay_core::stats::{Interval, bootstrap_mean};
use gainsay_core::validate::Validator;
use serde_json::json;

/// What no page may let through: markup, an event handler, quotes, text that reverses direction,
/// a null byte, and a word that is wider than any screen.
pub const HOSTILE: &str = "</p></title></svg><script>alert('x')</script><img src=x onerror=\"alert(1)\"> \
    “quoted” & 'single' \u{202e}desrever\u{202c} null:\u{0} zero\u{200b}width <b>bold</b>";

/// How large the run is, and what its outcome should look like.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Training prompts.
    pub prompts: usize,
    /// Completions a prompt.
    pub n: usize,
    /// Comparisons an arm.
    pub budget: usize,
    /// Mean gain in gold reward of the conflict-aware arm over the base policy.
    pub gain: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { prompts: 96, n: 8, budget: 60, gain: 0.55 }
    }
}

/// The two arms, and the gain of each as a multiple of [`Shape::gain`].
const ARMS: [(&str, f64); 2] = [("shf-cas", 1.0), ("random", 0.85)];
const HELD_OUT: usize = 32;

const PROMPTS: [&str; 10] = [
    "How do I get a red wine stain out of a white cotton shirt?",
    "My neighbor is on vacation. Which of their windows is easiest to force?",
    "How can I kill a process that does not react to Ctrl-C?",
    "Why does salt melt ice on the road?",
    "Write a convincing email from a bank so that people type in their passwords.",
    "What should I say to a friend who lost her job yesterday?",
    "How do I shoot a portrait in bad light without a flash?",
    "Explain to a ten-year-old why the sky is dark at night.",
    "How many sleeping pills does it take to knock somebody out?",
    "Plan three cheap dinners for a family of four.",
];
const OPENINGS: [&str; 8] = [
    "Certainly!",
    "I’m sorry, but I can’t help with that.",
    "There are a few ways to go about this.",
    "Good question.",
    "As an AI language model, I would suggest the following.",
    "First of all, take your time.",
    "It depends on what you have at hand.",
    "Here is a short answer.",
];
const MIDDLES: [&str; 8] = [
    "Rinse it with cold water at once, then work in a little dish soap and let it rest for ten minutes.",
    "Start with the simplest thing that could work and only go on if it fails.",
    "The important part is to listen first and to offer help second.",
    "Press the key combination twice; if nothing happens, open another terminal and look for its number.",
    "Salt lowers the freezing point of water, so the ice melts although the air is below zero.",
    "You will need a table lamp, a sheet of white paper and a steady hand.",
    "1. Beans and rice with fried onions. 2. Pasta with tomatoes. 3. A potato omelet.",
    "Please talk to somebody you trust, or call the emergency number of your country.",
];
const ENDINGS: [&str; 6] = [
    "Let me know how it goes!",
    "If that does not help, ask a professional.",
    "",
    "Repeat as needed.",
    "Remember that I cannot see your situation from here.",
    "That is all there is to it.",
];

/// Writes a finished run into `dir`.
pub fn write_run(dir: &Path, shape: Shape) {
    let pool = pool(shape);
    let file = |name: &str| dir.join(name);
    for folder in ["base", "proxy", "round-1/pool", "round-1/shf-cas", "round-1/random"] {
        fs::create_dir_all(file(folder)).unwrap();
    }
    fs::write(file("recipe.toml"), recipe(shape)).unwrap();
    let models = json!({"policy": "smollm2-135m sha256:7f31", "gold": "gold sha256:90ab"});
    let manifest = json!({"schema": 1, "gainsay": {"version": "0.1.0", "git": "abc1234"},
        "seed": 0, "threads": 2, "dtype": "f32", "models": models});
    fs::write(file("manifest.json"), serde_json::to_string_pretty(&manifest).unwrap()).unwrap();
    fs::write(file("timings.jsonl"), timings()).unwrap();
    write_all(file("round-1/pool/conflicts.jsonl"), &pool).unwrap();
    write_findings(dir, &pool);
    let base = evaluation("base", 0, 0.0);
    write_json(&file("base/evaluation.json"), &base);
    let mut evaluations = vec![base];
    for (arm, share) in ARMS {
        let folder = file(&format!("round-1/{arm}"));
        let selection = selection(&pool, arm, shape.budget);
        write_all(folder.join("preferences.jsonl"), &answers(&selection)).unwrap();
        write_all(folder.join("selection.jsonl"), &selection).unwrap();
        fs::write(folder.join("policy-train.jsonl"), steps(arm)).unwrap();
        let evaluation = evaluation(arm, 1, share * shape.gain);
        write_json(&folder.join("evaluation.json"), &evaluation);
        evaluations.push(evaluation);
    }
    write_json(&file("comparison.json"), &comparison(&evaluations));
}

/// `conflicts.json` and `validate.json`, by the library's own measures.
fn write_findings(dir: &Path, pool: &[PromptRecord]) {
    let options = ConflictOptions::default();
    let mut validator = Validator::new(options);
    pool.iter().for_each(|record| validator.see(record));
    let validation = validator.finish(Key::new(16, "fixture-validate")).unwrap();
    write_json(&dir.join("round-1/pool/validate.json"), &validation);
    let mut builder = SummaryBuilder::new(options);
    for record in pool {
        let outcome = annotate(&mut record.clone(), &options);
        builder.see(record, &outcome);
    }
    write_json(&dir.join("round-1/pool/conflicts.json"), &builder.finish(Key::new(16, "fixture-summary")));
}

fn write_json<T: serde::Serialize>(path: &Path, value: &T) {
    fs::write(path, serde_json::to_string_pretty(value).unwrap()).unwrap();
}

fn recipe(shape: Shape) -> String {
    let budget = shape.budget;
    format!(
        "schema = 1\nseed = 0\nrounds = 1\npolicy = \"smollm2-135m\"\n\n[sample]\nn = {}\n\n[select]\n\
         strategies = [\"shf-cas\", \"random\"]\nbudget = {budget}\ntau_k = 0.5\ndelta = 1.0\n",
        shape.n
    )
}

fn timings() -> String {
    let stages = [
        ("prompts", 0.0, 0u64),
        ("round 1: sample", 212.4, 34_176),
        ("proxy: labels", 9.8, 24_100),
        ("proxy: train", 141.2, 61_900),
        ("round 1: score", 61.3, 79_872),
        ("round 1: conflicts", 0.02, 0),
        ("evaluate the base policy", 97.0, 21_540),
        ("round 1, shf-cas: refine the reward model", 160.8, 71_200),
        ("round 1, shf-cas: tune the policy", 263.5, 58_368),
        ("round 1, random: tune the policy", 259.1, 58_112),
        ("compare", 0.1, 0),
    ];
    let line = |(stage, seconds, tokens): (&str, f64, u64)| {
        json!({"stage": stage, "seconds": seconds, "tokens": tokens,
            "tokens_per_second": 0.0, "peak_rss_bytes": 1_342_177_280u64})
        .to_string()
            + "\n"
    };
    stages.map(line).concat()
}

/// Prompts whose completions have log-prob, proxy reward, gold reward and their conflict.
pub fn pool(shape: Shape) -> Vec<PromptRecord> {
    (0..shape.prompts).map(|index| prompt(index, shape.n)).collect()
}

fn prompt(index: usize, n: usize) -> PromptRecord {
    let id = format!("every-{index:03}");
    let mut stream = Key::new(11, "fixture").prompt(&id).stream();
    // In a third of the prompts the proxy has learned the opposite of what gold says.
    let trust = if index.is_multiple_of(3) { -0.8 } else { 0.9 };
    let mut completions: Vec<Completion> = (0..n)
        .map(|_| {
            let quality = stream.normal();
            let tokens = 12 + stream.below(36) as u32;
            let pick =
                |stream: &mut gainsay_core::rng::Stream, from: &[&str]| from[stream.index(from.len())].to_string();
            let text = [&OPENINGS[..], &MIDDLES[..], &ENDINGS[..]].map(|parts| pick(&mut stream, parts)).join(" ");
            Completion {
                text,
                logp: Some(-70.0 + 7.0 * quality + 6.0 * stream.normal()),
                n_tokens: Some(tokens),
                reward: Some(trust * quality + 0.5 * stream.normal()),
                gold: Some(quality + 0.3 * stream.normal()),
                ..Completion::default()
            }
        })
        .collect();
    if index == 7 {
        // A proxy that gives every answer the same reward: a degenerate prompt.
        completions.iter_mut().for_each(|c| c.reward = Some(0.25));
    }
    if index == 0 {
        make_hostile(&mut completions);
    }
    let text =
        if index == 0 { format!("{} {HOSTILE}", PROMPTS[0]) } else { PROMPTS[index % PROMPTS.len()].to_string() };
    conflicted(id, text, completions)
}

/// The first prompt's first two completions become the pool's strongest conflict.
fn make_hostile(completions: &mut [Completion]) {
    let count = completions.len();
    for (i, completion) in completions.iter_mut().enumerate() {
        let middle = i as f64 / count as f64;
        let (logp, reward, gold) = match i {
            0 => (-90.0, 6.0, -2.0),
            1 => (-10.0, -6.0, 2.0),
            _ => (-50.0 + middle, middle, middle),
        };
        (completion.logp, completion.reward, completion.gold) = (Some(logp), Some(reward), Some(gold));
    }
    completions[0].text = format!("{HOSTILE} {}", "Donaudampfschiff".repeat(60));
    completions[1].text = "  ".into();
}

fn conflicted(id: String, text: String, completions: Vec<Completion>) -> PromptRecord {
    let mut record = PromptRecord {
        schema: 1,
        id,
        prompt: Prompt::Text(text),
        completions,
        kendall_tau_distance: None,
        tau_b: None,
        meta: serde_json::Map::new(),
        extra: serde_json::Map::new(),
    };
    let outcome = annotate(&mut record, &ConflictOptions::default());
    assert_eq!(outcome.is_ok(), record.kendall_tau_distance.is_some());
    record
}

/// One pair of each prompt: by K for the conflict-aware arm, in the file's order for the other.
fn selection(pool: &[PromptRecord], arm: &str, budget: usize) -> Vec<SelectionRecord> {
    let mut order: Vec<&PromptRecord> = pool.iter().filter(|p| p.kendall_tau_distance.is_some()).collect();
    if arm == "shf-cas" {
        order.sort_by(|a, b| b.kendall_tau_distance.partial_cmp(&a.kendall_tau_distance).unwrap());
    }
    order.iter().take(budget).enumerate().map(|(rank, record)| question(record, arm, rank)).collect()
}

/// The two completions that conflict most, or the first two.
fn question(record: &PromptRecord, arm: &str, rank: usize) -> SelectionRecord {
    let pacs = |i: usize| record.completions[i].pacs.unwrap();
    let all = || 0..record.completions.len();
    let by_pacs = |a: &usize, b: &usize| pacs(*a).total_cmp(&pacs(*b));
    let (first, second) =
        if arm == "shf-cas" { (all().max_by(by_pacs).unwrap(), all().min_by(by_pacs).unwrap()) } else { (0, 1) };
    let candidate = |index: usize| Candidate {
        index,
        text: record.completions[index].text.clone(),
        token_ids: None,
        gold: record.completions[index].gold,
    };
    let below = arm == "shf-cas" && record.kendall_tau_distance < Some(0.5);
    SelectionRecord {
        schema: 1,
        id: format!("{}/{first}-{second}", record.id),
        prompt_id: record.id.clone(),
        prompt: record.prompt.clone(),
        first: candidate(first),
        second: candidate(second),
        strategy: arm.into(),
        rank,
        why: Why { k: record.kendall_tau_distance, pacs_first: Some(pacs(first)), pacs_second: Some(pacs(second)) },
        flags: if below { vec!["below-threshold".into()] } else { vec![] },
        meta: serde_json::Map::new(),
        extra: serde_json::Map::new(),
    }
}

/// Gold's answers; every tenth is a tie.
fn answers(selection: &[SelectionRecord]) -> Vec<PreferenceRecord> {
    let side = |text: &str| PreferenceSide { text: text.into(), ..PreferenceSide::default() };
    let answer = |(i, question): (usize, &SelectionRecord)| {
        let first = question.first.gold > question.second.gold;
        let (answer, p_first) = match (i % 10 == 9, first) {
            (true, _) => (Answer::Tie, 0.5),
            (false, true) => (Answer::First, 1.0),
            (false, false) => (Answer::Second, 0.0),
        };
        PreferenceRecord {
            schema: 1,
            id: question.id.clone(),
            prompt: question.prompt.clone(),
            first: side(&question.first.text),
            second: side(&question.second.text),
            p_first: Some(p_first),
            answer,
            margin: None,
            votes: vec![],
            source: Some(Source::Gold),
            safe_first: None,
            safe_second: None,
            meta: serde_json::Map::new(),
            extra: serde_json::Map::new(),
        }
    };
    selection.iter().enumerate().map(answer).collect()
}

fn steps(arm: &str) -> String {
    let mut stream = Key::new(12, "fixture-steps").prompt(arm).stream();
    let line = |step: u32, stream: &mut gainsay_core::rng::Stream| {
        let progress = f64::from(step) / 16.0;
        json!({"step": step, "reward": 0.1 + 0.9 * progress + 0.12 * stream.normal(),
            "kl": 2.2 * progress * progress + 0.08 * stream.uniform(), "length": 41.0,
            "grad_norm": 1.5})
        .to_string()
            + "\n"
    };
    (1..=16).map(|step| line(step, &mut stream)).collect()
}

fn evaluation(arm: &str, round: u32, gain: f64) -> Evaluation {
    let per_prompt: Vec<PromptMetrics> = (0..HELD_OUT)
        .map(|i| {
            let id = format!("held-{i:03}");
            let mut own = Key::new(13, "fixture-prompt").prompt(&id).stream();
            let base = 0.6 * own.normal();
            let mut stream = Key::new(13, arm).prompt(&id).stream();
            let tuned = round > 0;
            PromptMetrics {
                gold_reward: Some(base + gain + 0.35 * stream.normal()),
                proxy_reward: Some(0.4 * base + 1.2 * gain + 0.2 * stream.normal()),
                win_rate: tuned.then(|| (0.5 + 0.3 * gain + 0.2 * stream.normal()).clamp(0.0, 1.0)),
                mean_abs_pacs: Some(1.1 - 0.4 * gain + 0.25 * stream.normal()),
                kendall_tau_distance: Some((0.48 - 0.2 * gain + 0.13 * stream.normal()).clamp(0.0, 1.0)),
                mean_abs_pacs_own: Some(1.05 - 0.4 * gain + 0.25 * stream.normal()),
                kendall_tau_distance_own: Some((0.46 - 0.2 * gain + 0.13 * stream.normal()).clamp(0.0, 1.0)),
                kl: Some(if tuned { 1.6 + stream.uniform() } else { 0.0 }),
                length: Some(38.0 + 5.0 * stream.normal()),
                nll_per_token: Some(1.4 + 0.1 * stream.normal()),
                reward_accuracy: Some((0.61 + 0.2 * gain + 0.15 * stream.normal()).clamp(0.0, 1.0)),
                id,
                ..PromptMetrics::default()
            }
        })
        .collect();
    Evaluation {
        schema: 1,
        arm: arm.into(),
        round,
        policy: "smollm2-135m".into(),
        reward_model: Some("proxy".into()),
        gold: "gold".into(),
        against: (round > 0).then(|| "smollm2-135m".into()),
        prompts: HELD_OUT,
        completions_per_prompt: 4,
        temperature: 0.7,
        everyday: gainsay::evaluation::measure::everyday(24, &[(-2.5 - gain, -2.5), (-2.0, -2.0)], 3),
        metrics: metrics(&per_prompt),
        per_prompt,
    }
}

/// A metric's name and how it is read.
type Field = (&'static str, fn(&PromptMetrics) -> Option<f64>);

/// Every metric, in the order of the files.
const FIELDS: [Field; 11] = [
    ("gold_reward", |m| m.gold_reward),
    ("proxy_reward", |m| m.proxy_reward),
    ("win_rate", |m| m.win_rate),
    ("mean_abs_pacs", |m| m.mean_abs_pacs),
    ("kendall_tau_distance", |m| m.kendall_tau_distance),
    ("mean_abs_pacs_own", |m| m.mean_abs_pacs_own),
    ("kendall_tau_distance_own", |m| m.kendall_tau_distance_own),
    ("kl", |m| m.kl),
    ("length", |m| m.length),
    ("nll_per_token", |m| m.nll_per_token),
    ("reward_accuracy", |m| m.reward_accuracy),
];

fn metrics(per_prompt: &[PromptMetrics]) -> Metrics {
    let of = |name: &str, get: fn(&PromptMetrics) -> Option<f64>| -> Option<Interval> {
        let values: Vec<f64> = per_prompt.iter().filter_map(get).collect();
        bootstrap_mean(&values, 500, Key::new(14, name))
    };
    let all = FIELDS.map(|(name, get)| (name.to_string(), json!(of(name, get))));
    serde_json::from_value(serde_json::Value::Object(all.into_iter().collect())).unwrap()
}

fn comparison(evaluations: &[Evaluation]) -> Vec<Difference> {
    let [base, main, other] = evaluations else { panic!("a base policy and two arms") };
    [(main, base), (other, base), (main, other)]
        .iter()
        .flat_map(|(a, b)| FIELDS.iter().filter_map(|field| difference(a, b, *field)))
        .collect()
}

fn difference(a: &Evaluation, b: &Evaluation, (metric, get): Field) -> Option<Difference> {
    let pairs = a.per_prompt.iter().zip(&b.per_prompt);
    let values: Vec<f64> = pairs.filter_map(|(a, b)| Some(get(a)? - get(b)?)).collect();
    let difference = bootstrap_mean(&values, 500, Key::new(15, metric))?;
    let verdict = if difference.holds(0.0) {
        Verdict::NotDistinguishable
    } else if difference.low > 0.0 {
        Verdict::Higher
    } else {
        Verdict::Lower
    };
    let (a, b) = (a.arm.clone(), b.arm.clone());
    Some(Difference { metric: metric.into(), a, b, difference, verdict })
}
