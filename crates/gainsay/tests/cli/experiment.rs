//! Variants of a recipe over seeds, on a random model of a few thousand weights.

use std::fs;
use std::path::Path;

use crate::common::{gainsay, ok, stderr, stdout};
use crate::whole_loop::{assert_same, files, prepared};

const PLAN: &str = r#"
seeds = [5, 6]
recipe = "tiny.toml"
[variants.rloo]
rounds = 1
[variants.dpo]
rounds = 1
tune.method = "dpo"
[variants.many]
rounds = 1
select.budget = 9
tune.method = "none"
"#;

/// A folder with a plan and its recipe without a seed.
fn planned() -> tempfile::TempDir {
    let dir = prepared();
    let recipe = include_str!("tiny.toml").replace("seed = 5\n", "");
    fs::write(dir.path().join("tiny.toml"), recipe).expect("the recipe");
    fs::write(dir.path().join("methods.toml"), PLAN).expect("the plan");
    dir
}

#[test]
fn variants_run_over_seeds_and_share_what_they_have_in_common() {
    let dir = planned();
    let args = ["experiment", "methods.toml", "--out", "all", "--threads", "2"];
    let output = ok(gainsay(dir.path(), &args));
    let said = stdout(&output);
    assert!(said.starts_with("2 seeds; means over seeds"), "{said}");
    for row in
        ["| dpo | base | 0 |", "| many | shf-cas | 9 |", "| rloo/shf-cas - dpo/shf-cas |", "| dpo/shf-cas - dpo/base |"]
    {
        assert!(said.contains(row), "{row}: {said}");
    }
    assert!(stderr(&output).contains("run 6 of 6: rloo, seed 6"));
    let all = dir.path().join("all");
    for name in ["experiment.json", "tables.md", "report.html", "rloo/seed-6/report.html"] {
        assert!(all.join(name).is_file(), "{name}");
    }

    // What was copied is what a run of its own makes.
    for (variant, changes) in [("rloo", ""), ("many", "budget = 9")] {
        let own = include_str!("tiny.toml")
            .replace("seed = 5", "seed = 6")
            .replace("rounds = 2", "rounds = 1")
            .replace("budget = 6", if changes.is_empty() { "budget = 6" } else { changes })
            .replace("[tune]\n", if changes.is_empty() { "[tune]\n" } else { "[tune]\nmethod = \"none\"\n" });
        fs::write(dir.path().join("own.toml"), own).expect("the recipe");
        ok(gainsay(dir.path(), &["run", "own.toml", "--out", variant, "--threads", "2"]));
        assert_same(&files(&dir.path().join(variant)), &files(&all.join(variant).join("seed-6")));
    }

    // Again: nothing is computed, the same figures.
    let before = files(&all);
    let again = ok(gainsay(dir.path(), &[&args[..], &["--json"]].concat()));
    assert_same(&before, &files(&all));
    let found: serde_json::Value = serde_json::from_str(&stdout(&again)).expect("one JSON object");
    assert_eq!(found["seeds"], serde_json::json!([5, 6]));
    // Three variants of a base policy and two arms.
    assert_eq!(found["rows"].as_array().map(Vec::len), Some(9));
    let gold = &found["rows"][0]["metrics"]["gold_reward"];
    assert_eq!((&gold["n"], &gold["interval"]), (&serde_json::json!(2), &serde_json::json!("student")));
}

#[test]
fn what_it_costs_and_what_is_wrong() {
    let dir = planned();
    let cost = |file: &str, command: &str| stdout(&ok(gainsay(dir.path(), &[command, file, "--dry-run"])));
    // 2 seeds x (6 + 6 + 9 labels) x 2 arms.
    assert!(cost("methods.toml", "experiment").contains("labels          84\n"));
    let refused = |plan: &str| {
        fs::write(dir.path().join("bad.toml"), plan).expect("the plan");
        let output = gainsay(dir.path(), &["experiment", "bad.toml", "--out", "bad"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(!Path::new(&dir.path().join("bad")).exists());
        stderr(&output)
    };
    assert!(refused("seeds = [0]\nrecipe = \"none.toml\"").contains("none.toml: the recipe cannot be read"));
    assert!(refused("seeds = [0").contains("bad.toml: not an experiment"));
    assert!(refused("seeds = [0]\nsteps = 3").contains("unknown field `steps`"));
}
