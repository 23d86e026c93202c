//! The page of a policy's training, and its curve on a run's page.

use std::fs;
use std::path::Path;

use gainsay::report::{self, ReportError};

use crate::fixture::{HOSTILE, Shape, write_run};
use crate::html::Page;

/// A look whose gold rises up to step 30 and falls from then on, while the proxy rises.
fn look(step: u32) -> String {
    let d = 0.05 * f64::from(step);
    let (gold, proxy) = (-0.2 + d * (0.62 - 0.42 * (d + 1e-9).ln()), 0.1 + d * (1.1 - 0.3 * (d + 1e-9).ln()));
    let kl = d * d;
    format!(
        r#"{{"event":"heldout","step":{step},"proxy":{proxy},"gold":{gold},"kl":{kl},"length":{}}}"#,
        40 - step / 10
    )
}

fn step(step: u32) -> String {
    let x = f64::from(step);
    let (reward, kl) = (0.1 + 0.03 * x + 0.1 * (2.3 * x).sin(), 0.008 * x * x);
    format!(r#"{{"event":"policy_step","step":{step},"steps":100,"reward":{reward},"kl_k3":{kl},"length":40.0}}"#)
}

/// Metrics of 100 steps with a look every ten.
fn metrics() -> Vec<String> {
    let mut lines = vec![look(0)];
    for n in 1..=100 {
        lines.push(step(n));
        lines.extend((n % 10 == 0).then(|| look(n)));
    }
    lines
}

/// A policy folder with its metrics in the folder of its checkpoints.
fn write_policy(root: &Path, lines: &[String]) -> std::path::PathBuf {
    let dir = root.join("policy");
    fs::create_dir_all(&dir).unwrap();
    fs::create_dir_all(root.join("policy.training")).unwrap();
    fs::write(dir.join("adapter_config.json"), "{}").unwrap();
    fs::write(dir.join("gainsay.json"), serde_json::json!({ "method": HOSTILE }).to_string()).unwrap();
    fs::write(root.join("policy.training/metrics.jsonl"), lines.join("\n") + "\n").unwrap();
    dir
}

fn page_of(lines: &[String]) -> Page {
    let root = tempfile::tempdir().unwrap();
    let page = Page::read(&write_policy(root.path(), lines));
    page.assert_balanced();
    for bad in ["NaN", "inf%", "<script", "<img"] {
        assert!(!page.html.contains(bad), "{bad}");
    }
    page
}

#[test]
fn a_training_has_its_curve_its_fit_and_a_verdict() {
    let page = page_of(&metrics());
    let lede = page.element(r#"<p class="lede">"#, "</p>");
    assert!(lede.contains("Turned at step 40"), "{lede}");
    assert!(page.text.contains("gold turns: step 40"), "{}", page.text);
    let headings = ["The over-optimization curve", "Reward and KL by step", "The looks", "How it was trained"];
    assert_eq!(page.headings("h2"), headings);
    // The form is found again: R(0), alpha, beta, and its peak at exp(0.62 / 0.42 - 1).
    let fits = page.rows("The fitted form");
    assert_eq!(fits[0], ["Gold", "−0.200", "+0.620", "+0.420", "1.61", "0.000"]);
    assert_eq!((fits[1][0].as_str(), fits[1][4].as_str()), ("Proxy", "beyond the looks"));
    assert_eq!(page.rows("Every look").len(), 11);
    assert!(page.text.contains("100 steps of training, 11 looks"), "{}", page.text);
}

#[test]
fn a_training_in_progress_is_read_up_to_the_broken_line() {
    let root = tempfile::tempdir().unwrap();
    let mut lines = metrics();
    lines.truncate(30);
    lines.push(r#"{"event":"policy_step","st<b>"#.into());
    write_policy(root.path(), &lines);
    let page = Page::read(&root.path().join("policy.training"));
    assert!(page.text.contains("Could not be read to its end: metrics.jsonl : line 31"), "{}", page.text);
    assert_eq!(page.rows("Every look").len(), 3);
    page.assert_balanced();
}

#[test]
fn what_is_lacking_is_said_and_nothing_is_claimed() {
    let lede = |lines: &[String]| page_of(lines).element(r#"<p class="lede">"#, "</p>");
    let without_gold: Vec<String> = metrics().iter().map(|l| l.replace("\"gold\":", "\"other\":")).collect();
    assert!(lede(&without_gold).contains("no gold reward was looked at"));
    assert!(page_of(&without_gold).rows("The fitted form").len() == 1);
    let one_look = [look(0), step(1), step(2)];
    assert!(lede(&one_look).contains("fewer than two looks"));
    assert!(page_of(&one_look).text.contains("A curve needs two looks or more"));
    assert!(lede(&[step(1), step(2)]).contains("Nobody looked at held-out prompts"));
    let none = r#"{"event":"heldout","step":10,"proxy":null,"gold":null,"kl":null,"length":3.0}"#.to_string();
    let page = page_of(&[look(0), none, look(20), look(30)]);
    assert!(page.text.contains("1 look without a finite KL or proxy reward is left out"), "{}", page.text);
    // A look that a resumed training took again counts once.
    assert_eq!(page_of(&[look(0), look(10), look(10)]).rows("Every look").len(), 2);
}

#[test]
fn a_folder_without_metrics_says_how_to_get_some() {
    let root = tempfile::tempdir().unwrap();
    let dir = write_policy(root.path(), &[]);
    let error = report::write(&dir).unwrap_err();
    assert!(matches!(error, ReportError::NoMetrics { .. }) && error.to_string().contains("--save-every"), "{error}");
    // A reward model's metrics are no policy's.
    fs::write(root.path().join("policy.training/metrics.jsonl"), "{\"event\":\"reward_step\",\"step\":1}\n").unwrap();
    fs::remove_file(dir.join("adapter_config.json")).unwrap();
    assert!(matches!(report::write(&dir).unwrap_err(), ReportError::NotARun { .. }));
    assert!(!dir.join("report.html").exists());
}

#[test]
fn a_runs_page_has_the_curves_of_its_arms() {
    let root = tempfile::tempdir().unwrap();
    write_run(root.path(), Shape::default());
    let before = Page::read(root.path());
    assert!(!before.text.contains("over-optimization curve"));
    write_policy(&root.path().join("round-1/shf-cas"), &metrics());
    let page = Page::read(root.path());
    assert!(page.text.contains("shf-cas: the over-optimization curve Turned at step 40"), "{}", page.text);
    assert_eq!(page.headings("h2"), before.headings("h2"));
    page.assert_balanced();
}

#[test]
fn steps_show_the_kl_as_a_training_writes_it() {
    let root = tempfile::tempdir().unwrap();
    write_run(root.path(), Shape::default());
    fs::write(root.path().join("round-1/shf-cas/policy-train.jsonl"), [step(1), step(2)].join("\n")).unwrap();
    let data = report::load(root.path()).unwrap();
    assert_eq!(data.arms[0].steps[1].kl, Some(0.032));
}
