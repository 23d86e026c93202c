//! Agreement measures against krippendorff, statsmodels and crowd-kit:
//! `scripts/goldens/agreement.py` and `agreement_interval.py` made the numbers.

use flate2::read::GzDecoder;
use gainsay_core::rng::Key;
use gainsay_core::stats::{
    DawidSkeneOptions, Label, Metric, cohen_kappa, dawid_skene, fleiss_kappa, krippendorff_alpha, krippendorff_interval,
};
use serde_json::Value;

fn goldens() -> Value {
    let bytes: &[u8] = include_bytes!("goldens/agreement.json.gz");
    serde_json::from_reader(GzDecoder::new(bytes)).unwrap()
}

#[track_caller]
fn same(what: &str, index: usize, got: Option<f64>, want: &Value) -> usize {
    match (got, want.as_f64()) {
        (Some(got), Some(want)) => {
            assert!((got - want).abs() < 1e-9, "{what} of table {index}: {got} is not {want}");
            1
        }
        // Where only one category occurs, the packages divide 0 by 0, or take agreement for 1.
        (None, None | Some(1.0)) => 0,
        (got, want) => panic!("{what} of table {index}: {got:?} is not {want:?}"),
    }
}

/// Annotators x units with -1 for missing, the number of categories, and counts of units x categories.
fn table(case: &Value) -> (Vec<Vec<i64>>, usize, Vec<Vec<u64>>) {
    let rows: Vec<Vec<i64>> = serde_json::from_value(case["table"].clone()).unwrap();
    let (units, k) = (rows[0].len(), case["categories"].as_u64().unwrap() as usize);
    let mut counts = vec![vec![0u64; k]; units];
    for row in &rows {
        for (unit, value) in row.iter().enumerate().filter(|(_, value)| **value >= 0) {
            counts[unit][*value as usize] += 1;
        }
    }
    (rows, k, counts)
}

#[test]
fn three_hundred_tables() {
    let goldens = goldens();
    let mut defined = [0; 4];
    for (index, case) in goldens["tables"].as_array().unwrap().iter().enumerate() {
        let (rows, k, counts) = table(case);
        let mut square = vec![vec![0u64; k]; k];
        for (a, b) in rows[0].iter().zip(&rows[1]).filter(|(a, b)| **a >= 0 && **b >= 0) {
            square[*a as usize][*b as usize] += 1;
        }
        let full: Vec<Vec<u64>> =
            counts.iter().filter(|row| row.iter().sum::<u64>() == rows.len() as u64).cloned().collect();
        defined[0] += same("nominal alpha", index, krippendorff_alpha(&counts, Metric::Nominal), &case["nominal"]);
        defined[1] += same("ordinal alpha", index, krippendorff_alpha(&counts, Metric::Ordinal), &case["ordinal"]);
        defined[2] += same("Cohen's kappa", index, cohen_kappa(&square), &case["cohen"]);
        defined[3] += same("Fleiss' kappa", index, fleiss_kappa(&full), &case["fleiss"]);
    }
    assert!(defined.iter().all(|n| *n > 150), "{defined:?}");
}

#[test]
fn intervals_of_twelve_tables() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("goldens/agreement-interval.json")).unwrap();
    assert_eq!(cases.len(), 12);
    for (index, case) in cases.iter().enumerate() {
        let (_, _, counts) = table(case);
        for (metric, name) in [(Metric::Nominal, "nominal"), (Metric::Ordinal, "ordinal")] {
            let got = krippendorff_interval(&counts, metric, Key::new(0, "alpha")).unwrap();
            same(name, index, Some(got.low), &case[name][0]);
            same(name, index, Some(got.high), &case[name][1]);
        }
    }
}

#[test]
fn dawid_and_skene() {
    let options = DawidSkeneOptions { smoothing: 0.0, tolerance: 0.0, max_iterations: 10 };
    for case in goldens()["dawid_skene"].as_array().unwrap() {
        let rows: Vec<(usize, usize, usize)> = serde_json::from_value(case["labels"].clone()).unwrap();
        let labels: Vec<Label> =
            rows.into_iter().map(|(unit, annotator, category)| Label { unit, annotator, category }).collect();
        let size = |name: &str| case[name].as_u64().unwrap() as usize;
        let fit = dawid_skene(&labels, 40, size("annotators"), size("categories"), &options);
        let units: Vec<usize> = serde_json::from_value(case["units"].clone()).unwrap();
        let want: Vec<Vec<f64>> = serde_json::from_value(case["posterior"].clone()).unwrap();
        for (unit, want) in units.into_iter().zip(want) {
            for (got, want) in fit.posterior[unit].iter().zip(want) {
                assert!((got - want).abs() < 1e-9, "unit {unit}: {got} is not {want}");
            }
        }
    }
}
