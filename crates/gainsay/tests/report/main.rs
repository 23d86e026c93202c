//! The report of synthetic runs: what the page says, and what it does not let through.

mod fixture;
mod html;
mod training;

use std::fs;
use std::path::Path;

use fixture::{HOSTILE, Shape, pool, write_run};
use gainsay::report::{self, ReportError};
use html::{Page, words};

fn page_of(shape: Shape) -> Page {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), shape);
    Page::read(dir.path())
}

#[test]
fn a_finished_run_has_every_section_in_order() {
    let page = page_of(Shape::default());
    assert!(!page.html.contains("This run is not finished"));
    assert!(page.html.contains("Everyday answers"));
    assert_eq!(
        page.headings("h2"),
        [
            "The conflict map",
            "How far the two rankings disagree",
            "Does conflict find mistakes?",
            "Before and after",
            "How the policies were tuned",
            "The strongest conflicts",
            "What it cost",
            "Recipe, provenance and terms",
        ]
    );
    assert_eq!(page.headings("h1").len(), 1);
    for anchor in page.attributes("href") {
        let id = anchor.strip_prefix('#').expect("links stay on the page");
        assert!(page.html.contains(&format!(r#"id="{id}""#)), "{anchor}");
    }
}

#[test]
fn the_verdict_holds_the_numbers_of_the_files() {
    let shape = Shape::default();
    let page = page_of(shape);
    let records = pool(shape);
    let over = records.iter().filter(|r| r.kendall_tau_distance >= Some(0.5)).count();
    let lede = page.element(r#"<p class="lede">"#, "</p>");
    assert!(lede.contains(&format!("{over} of 96 prompts")), "{lede}");
    let (mut pairs, mut wrong) = (0, 0.0);
    for record in &records {
        for (i, a) in record.completions.iter().enumerate() {
            for b in &record.completions[..i] {
                let rewards = (a.reward.unwrap(), b.reward.unwrap());
                pairs += 1;
                wrong += if rewards.0 == rewards.1 {
                    0.5
                } else {
                    f64::from(u8::from((rewards.0 > rewards.1) != (a.gold > b.gold)))
                };
            }
        }
    }
    let share = format!("{:.0} %", 100.0 * wrong / f64::from(pairs));
    assert!(lede.contains(&format!("{share} of 2,688 pairs")), "{lede}");
    assert!(lede.contains("60 labels for each arm (shf-cas and random) and 20 min"), "{lede}");
    assert!(lede.contains("more gold reward") && lede.contains("not distinguishable"), "{lede}");
}

#[test]
fn no_gain_is_called_not_distinguishable() {
    let page = page_of(Shape { gain: 0.0, ..Shape::default() });
    let lede = page.element(r#"<p class="lede">"#, "</p>");
    assert!(lede.contains("shf-cas is not distinguishable from the base policy"), "{lede}");
    assert!(!lede.contains("better") && !lede.contains("more gold"), "{lede}");
}

#[test]
fn every_completion_is_on_the_map_and_what_was_sent_is_ringed() {
    let page = page_of(Shape::default());
    let drawn = page.html.matches("<title>every-").count();
    // One prompt of 96 is degenerate.
    assert_eq!(drawn, 95 * 8);
    // A pair of each of 60 prompts.
    let dots = page.raw(r#"<g class="dots">"#, "</g>");
    assert_eq!(dots.matches(r#"class="ring""#).count(), 120);
    assert!(dots.contains("Sent for feedback by shf-cas, random"));
    let counted: usize = page
        .rows("Region by region")
        .iter()
        .map(|cells| cells[1].split_whitespace().next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(counted, drawn);
}

#[test]
fn large_pools_are_sampled_and_the_page_says_so() {
    let page = page_of(Shape { prompts: 400, budget: 20, ..Shape::default() });
    assert_eq!(page.html.matches("<title>every-").count(), 2_000);
    assert!(page.text.contains("2,000 of 3,192 completions are drawn"));
}

#[test]
fn completions_stay_text() {
    let page = page_of(Shape::default());
    assert!(HOSTILE.contains("<script>"));
    for markup in ["<script", "<img", "<b>bold"] {
        assert!(!page.html.contains(markup), "{markup}");
    }
    assert!(page.html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"));
    assert!(page.html.contains("onerror=&quot;alert(1)&quot;&gt;"));
    for invisible in ['\u{0}', '\u{202e}', '\u{202c}', '\u{200b}'] {
        assert!(!page.html.contains(invisible), "{invisible:?}");
    }
    assert!(page.html.contains(r#"<span class="control">[U+202E]</span>desrever"#));
    assert!(page.html.contains("more characters</span>"));
    assert!(page.html.contains(r#"<p class="passage empty">"#));
    assert!(page.html.contains("default-src 'none'"));
}

#[test]
fn nothing_comes_from_outside_and_every_element_is_closed() {
    let page = page_of(Shape::default());
    let tags = page.tags.join("\n");
    for needle in ["http:", "https:", " src=", "<link", "<script", "@import", "url(", " onerror", " onload"] {
        assert!(!tags.contains(needle), "{needle}");
    }
    page.assert_balanced();
}

#[test]
fn charts_speak_and_tables_have_captions() {
    let page = page_of(Shape::default());
    let drawings = page.tags.iter().filter(|t| t.starts_with("<svg") && t.contains(r#"role="img""#));
    assert!(drawings.clone().count() > 20);
    assert!(drawings.clone().all(|t| t.contains("aria-label=\"")));
    let count = |what: &str| page.html.matches(what).count();
    assert_eq!(count("<table"), count("<caption><b>"));
    assert!(!page.html.contains("NaN") && !page.html.contains("inf%"));
}

#[test]
fn the_search_for_mistakes_is_the_files_own() {
    let page = page_of(Shape::default());
    let rows = page.rows("What finds the reward model’s mistakes?");
    let names: Vec<&str> = rows.iter().map(|r| r[0].as_str()).collect();
    assert_eq!(
        names,
        [
            "Conflict",
            "K of the prompt",
            "Difference in PACS",
            "Ordered oppositely by reward and log-prob",
            "Rivals",
            "Small difference in reward",
            "Difference in length",
        ]
    );
    // In a third of the prompts the proxy is reversed, and there K is high.
    assert!(page.text.contains("Conflict finds these mistakes"));
    let total: usize = page
        .rows("Who is right?")
        .iter()
        .flat_map(|row| row[1..].iter())
        .map(|cell| cell.split(' ').next().unwrap().replace(',', "").parse::<usize>().unwrap())
        .sum();
    // All pairs of 95 prompts; the degenerate one gives none.
    assert_eq!(total, 95 * 28);
    assert!(page.text.contains("1 prompt is degenerate (1 constant reward)"));
    assert!(page.text.contains("Correlations within prompts: reward and log-prob"));
}

#[test]
fn differences_carry_their_verdicts() {
    let page = page_of(Shape::default());
    let rows = page.rows("Paired differences");
    let verdict = |measure: &str, pair: &str| -> String {
        let group = rows.iter().position(|r| r == &[measure]).unwrap();
        let row = rows[group..].iter().find(|r| r[0] == pair).unwrap();
        row.last().unwrap().clone()
    };
    assert_eq!(verdict("Gold reward", "shf-cas − base"), "higher");
    assert_eq!(verdict("Gold reward", "shf-cas − random"), "not distinguishable");
    assert_eq!(verdict("K under the base policy", "shf-cas − base"), "lower");
    assert!(!rows.iter().any(|r| r == &["Proxy reward"]));
}

#[test]
fn an_unfinished_run_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), Shape::default());
    let remove = |file: &str| fs::remove_file(dir.path().join(file)).unwrap();
    let gone = ["comparison.json", "round-1/random/evaluation.json", "round-1/random/preferences.jsonl"];
    gone.into_iter().for_each(remove);
    let page = Page::read(dir.path());
    assert!(page.text.contains("This run is not finished."));
    assert!(page.html.contains("<li><code>round-1/random/evaluation.json</code></li>"));
    assert!(page.text.contains("The arms have not been compared yet."));
    assert!(page.headings("h2").contains(&"The conflict map".to_string()));
}

#[test]
fn a_run_that_has_just_begun_has_a_page() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("recipe.toml"), "schema = 1\n").unwrap();
    let page = Page::read(dir.path());
    assert!(page.text.contains("No conflicts have been measured yet."));
    assert!(page.text.contains("Nothing has been paid for yet."));
    page.assert_balanced();
}

#[test]
fn damaged_files_are_named_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), Shape::default());
    let conflicts = dir.path().join("round-1/pool/conflicts.jsonl");
    let text = fs::read_to_string(&conflicts).unwrap();
    fs::write(&conflicts, &text[..text.len() / 2]).unwrap();
    fs::write(dir.path().join("base/evaluation.json"), "{\"schema\": 1, <b>").unwrap();
    fs::write(dir.path().join("timings.jsonl"), b"\xff\xfe\n").unwrap();
    let page = Page::read(dir.path());
    assert!(page.text.contains("Could not be read"));
    for file in ["round-1/pool/conflicts.jsonl", "base/evaluation.json", "timings.jsonl"] {
        assert!(page.html.contains(&format!("<li><code>{file}</code>: ")), "{file}");
    }
    assert!(page.headings("h2").contains(&"The conflict map".to_string()));
    page.assert_balanced();
}

#[test]
fn without_gold_the_page_does_not_judge() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), Shape::default());
    let mut records = pool(Shape::default());
    records.iter_mut().flat_map(|r| &mut r.completions).for_each(|c| c.gold = None);
    let path = dir.path().join("round-1/pool/conflicts.jsonl");
    gainsay_core::files::write_all(path, &records).unwrap();
    let page = Page::read(dir.path());
    assert!(page.text.contains("no gold to judge by"));
    assert!(page.text.contains("No gold reward is known for this pair."));
    assert!(!page.text.contains("Measured against gold"));
}

#[test]
fn later_rounds_have_their_own_pools() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), Shape::default());
    for arm in ["shf-cas", "random"] {
        let from = dir.path().join("round-1");
        let to = dir.path().join(format!("round-2/{arm}"));
        fs::create_dir_all(to.join("pool")).unwrap();
        for file in fs::read_dir(from.join(arm)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        fs::copy(from.join("pool/conflicts.jsonl"), to.join("pool/conflicts.jsonl")).unwrap();
    }
    let data = report::load(dir.path()).unwrap();
    let pools: Vec<_> = data.pools.iter().map(|p| (p.round, p.arm.as_deref())).collect();
    assert_eq!(pools, [(1, None), (2, Some("shf-cas")), (2, Some("random"))]);
    // In its own pool an arm has only its own selection.
    let arms = |pool: usize| -> Vec<&String> { data.pools[pool].regions[0].selected.keys().collect() };
    assert_eq!((arms(0).len(), arms(1).len()), (2, 1));
    let page = Page::read(dir.path());
    assert_eq!(page.rows("Conflict round by round").len(), 3);
    assert!(page.text.contains("120 labels for each arm"));
}

#[test]
fn a_folder_without_a_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = report::load(dir.path()).unwrap_err();
    assert!(matches!(error, ReportError::NotARun { .. }));
    assert!(words(&error.to_string()).contains("is not a run directory"));
    assert!(report::load(Path::new("/nowhere/at/all")).is_err());
    assert!(report::write(dir.path()).is_err());
    assert!(!dir.path().join("report.html").exists());
}
