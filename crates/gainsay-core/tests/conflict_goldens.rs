//! The conflict maths against numpy and scipy: `tests/goldens/README.md` says what made them.

use flate2::read::GzDecoder;
use gainsay_core::conflict::{Compat, ConflictOptions, DatasetMoments, Scope, evaluate, pacs, pair_counts, z_scores};
use gainsay_core::stats;
use serde_json::Value;

const TOLERANCE: f64 = 1e-9;

fn goldens() -> Value {
    let bytes: &[u8] = include_bytes!("goldens/conflicts.json.gz");
    serde_json::from_reader(GzDecoder::new(bytes)).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[track_caller]
fn close(got: f64, want: &Value) {
    let want = want.as_f64().unwrap();
    assert!((got - want).abs() <= TOLERANCE * want.abs().max(1.0), "{got} is not {want}");
}

#[track_caller]
fn all_close(got: &[f64], want: &Value) {
    assert_eq!(got.len(), want.as_array().unwrap().len());
    got.iter().zip(want.as_array().unwrap()).for_each(|(g, w)| close(*g, w));
}

#[test]
fn a_thousand_groups() {
    let goldens = goldens();
    let groups = goldens["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1000);
    let mut live = 0;
    for group in groups {
        let (rewards, logps) = (floats(&group["reward"]), floats(&group["logp"]));
        let counts = pair_counts(&logps, &rewards);
        let expected = ["concordant", "discordant", "tied_only_logp", "tied_only_reward", "tied_both"]
            .map(|key| group[key].as_u64().unwrap());
        let got = [counts.concordant, counts.discordant, counts.tied_a, counts.tied_b, counts.tied_both];
        assert_eq!(got, expected, "{}", group["id"]);
        let mut out = vec![0.0; rewards.len()];
        let outcome = evaluate(&rewards, &logps, &mut out);
        assert_eq!(outcome.is_err(), group["degenerate"].as_bool().unwrap(), "{}", group["id"]);
        if let Ok(conflict) = outcome {
            live += 1;
            close(conflict.k, &group["kendall_tau_distance"]);
            close(conflict.tau_b, &group["tau_b"]);
            all_close(&out, &group["pacs"]);
            all_close(&pacs(&rewards, &logps).unwrap(), &group["pacs"]);
            all_close(&z_scores(&rewards).unwrap(), &group["z_reward"]);
            all_close(&z_scores(&logps).unwrap(), &group["z_logp"]);
            close(stats::pearson(&rewards, &logps).unwrap(), &group["pearson"]);
        }
        close(stats::population_std(&logps).unwrap(), &group["std_logp"]);
        close(stats::population_std(&rewards).unwrap(), &group["std_reward"]);
    }
    assert_eq!(1000 - live, goldens["summary"]["degenerate"].as_u64().unwrap());
}

#[test]
fn the_published_conventions() {
    let goldens = goldens();
    let options = ConflictOptions { compat: Compat::Paper, ..Default::default() };
    let mut means = Vec::new();
    let mut above = [Vec::new(), Vec::new()];
    for group in goldens["groups"].as_array().unwrap() {
        let (rewards, logps) = (floats(&group["reward"]), floats(&group["logp"]));
        let mut out = vec![0.0; rewards.len()];
        let conflict = options.evaluate(&rewards, &logps, &mut out).unwrap();
        // Values of 3 with a spread of 1e-8 have lost eight digits to rounding before any code
        // sees them: the last bit of the mean moves z by 4e-16 / 1e-8.
        // Equal values have a spread of 2e-16 in numpy, whose mean is rounded, and of 0 here.
        let rounded = group["kind"] == "nearly-constant" || group["degenerate"] == true;
        let tolerance = if rounded { 2e-7 } else { TOLERANCE };
        for (got, want) in out.iter().zip(floats(&group["compat_pacs"])) {
            assert!((got - want).abs() <= tolerance, "{} {got} is not {want}", group["id"]);
        }
        let want = group["compat_mean_abs_pacs"].as_f64().unwrap();
        assert!((conflict.mean_abs_pacs - want).abs() <= tolerance);
        if group["degenerate"].as_bool().unwrap() && group["kind"] != "nearly-constant" {
            assert_eq!(conflict.k, 0.0);
        }
        means.push(conflict.mean_abs_pacs);
        for (ids, threshold) in above.iter_mut().zip([0.5, 1.0]) {
            if conflict.mean_abs_pacs > threshold {
                ids.push(group["id"].clone());
            }
        }
    }
    let summary = &goldens["summary"];
    close(stats::mean(&means).unwrap(), &summary["compat_mean_abs_pacs"]);
    assert_eq!(Value::from(above[0].clone()), summary["compat_selected_above_0.5"]);
    assert_eq!(Value::from(above[1].clone()), summary["compat_selected_above_1.0"]);
}

#[test]
fn dataset_scope() {
    let goldens = goldens();
    let expected = &goldens["dataset_scope"];
    let groups = goldens["groups"].as_array().unwrap();
    let chosen: Vec<(Vec<f64>, Vec<f64>)> = expected["ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| groups.iter().find(|g| g["id"] == *id).unwrap())
        .map(|g| (floats(&g["reward"]), floats(&g["logp"])))
        .collect();
    let mut moments = DatasetMoments::default();
    chosen.iter().for_each(|(rewards, logps)| moments.see_values(rewards, logps));
    close(moments.reward.mean().unwrap(), &expected["mean_reward"]);
    close(moments.reward.population_std().unwrap(), &expected["std_reward"]);
    close(moments.logp.mean().unwrap(), &expected["mean_logp"]);
    close(moments.logp.population_std().unwrap(), &expected["std_logp"]);
    let options = ConflictOptions { scope: Scope::Dataset(moments), ..Default::default() };
    for ((rewards, logps), pacs) in chosen.iter().zip(expected["pacs"].as_array().unwrap()) {
        let mut out = vec![0.0; rewards.len()];
        // A prompt without a ranking of its own has no K but still has PACS.
        let _ = options.evaluate(rewards, logps, &mut out);
        all_close(&out, pacs);
    }
}

#[test]
fn summary_means() {
    let goldens = goldens();
    let mut columns: [Vec<f64>; 3] = Default::default();
    for group in goldens["groups"].as_array().unwrap() {
        let (rewards, logps) = (floats(&group["reward"]), floats(&group["logp"]));
        let mut out = vec![0.0; rewards.len()];
        if let Ok(c) = evaluate(&rewards, &logps, &mut out) {
            columns.iter_mut().zip([c.mean_abs_pacs, c.k, c.tau_b]).for_each(|(v, x)| v.push(x));
        }
    }
    let names = ["mean_abs_pacs", "mean_kendall_tau_distance", "mean_tau_b"];
    for (values, name) in columns.iter().zip(names) {
        close(stats::mean(values).unwrap(), &goldens["summary"][name]);
    }
}

#[test]
fn auroc() {
    let goldens = goldens();
    for case in goldens["auroc"].as_array().unwrap() {
        let positive: Vec<bool> = case["positive"].as_array().unwrap().iter().map(|p| p.as_bool().unwrap()).collect();
        match stats::auroc(&floats(&case["scores"]), &positive) {
            Some(value) => close(value, &case["auroc"]),
            None => assert!(case["auroc"].is_null()),
        }
    }
}
