//! Losses and estimators against PyTorch's values and derivatives (tests/goldens/README.md).

use std::path::Path;

use gainsay_lm::loss::*;
use serde_json::Value;

fn rows(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/losses.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let rows = all[name].as_array().unwrap().clone();
    assert!(!rows.is_empty());
    rows
}

fn f(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(f).collect()
}

/// 1e-9 relative: both sides compute in f64.
fn same(what: &str, got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-9 * (1.0 + want.abs()), "{what}: {got} against {want}");
}

fn all_same(what: &str, got: &[f64], want: &Value) {
    let want = list(want);
    assert_eq!(got.len(), want.len(), "{what}");
    got.iter().zip(want).for_each(|(a, b)| same(what, *a, b));
}

#[test]
fn reward_losses_equal_pytorchs() {
    for r in rows("reward") {
        let l = bradley_terry(f(&r["p"]), f(&r["margin"]), f(&r["r1"]), f(&r["r2"]), f(&r["center"]));
        same("loss", l.loss, f(&r["loss"]));
        same("d_r1", l.d_r1, f(&r["d_r1"]));
        same("d_r2", l.d_r2, f(&r["d_r2"]));
    }
    for r in rows("safety") {
        let (loss, d) = safety(f(&r["cost"]), r["safe"].as_bool().unwrap());
        same("safety", loss, f(&r["loss"]));
        same("safety d", d, f(&r["d"]));
    }
    for r in rows("ranking").into_iter().chain(rows("ranking_ties")) {
        let groups: Vec<Vec<usize>> = serde_json::from_value(r["groups"].clone()).unwrap();
        let l = plackett_luce(&groups, &list(&r["rewards"]));
        same("ranking", l.loss, f(&r["loss"]));
        all_same("ranking d", &l.d_rewards, &r["d"]);
    }
}

#[test]
fn preference_losses_equal_pytorchs() {
    for r in rows("preference") {
        let kind = serde_json::from_value(r["kind"].clone()).unwrap();
        let (first, second) = (list(&r["first"]), list(&r["second"]));
        let l = preference_pair(kind, f(&r["beta"]), f(&r["p"]), (first[0], first[1]), (second[0], second[1]));
        same("loss", l.loss, f(&r["loss"]));
        same("d_first", l.d_first, f(&r["d_first"]));
        same("d_second", l.d_second, f(&r["d_second"]));
    }
}

#[test]
fn clipped_losses_equal_pytorchs() {
    for r in rows("clipped") {
        let (logp, old, eps) = (f(&r["logp"]), f(&r["old"]), f(&r["eps"]));
        let policy = clipped_policy(logp, old, f(&r["advantage"]), eps);
        same("policy", policy.loss, f(&r["policy"]));
        same("d_policy", policy.derivative, f(&r["d_policy"]));
        let grpo = grpo_token(logp, old, f(&r["ref"]), f(&r["advantage"]), eps, f(&r["beta"]));
        same("grpo", grpo.loss, f(&r["grpo"]));
        same("d_grpo", grpo.derivative, f(&r["d_grpo"]));
        let value = clipped_value(f(&r["v"]), f(&r["old_value"]), f(&r["target"]), eps);
        same("value", value.loss, f(&r["value"]));
        same("d_value", value.derivative, f(&r["d_value"]));
    }
}

#[test]
fn estimators_equal_pytorchs() {
    for r in rows("estimators") {
        let rewards = list(&r["rewards"]);
        let found = gae(&rewards, &list(&r["values"]), f(&r["gamma"]), f(&r["lambda"]));
        all_same("advantages", &found.advantages, &r["advantages"]);
        all_same("returns", &found.returns, &r["returns"]);
        all_same("whitened", &whiten(&found.advantages, false), &r["white"]);
        match group_advantages(&rewards, true) {
            Some(group) => all_same("group", &group, &r["group"]),
            None => assert!(r["group"].is_null()),
        }
        match rloo_advantages(&rewards) {
            Some(others) => all_same("leave-one-out", &others, &r["loo"]),
            None => assert!(r["loo"].is_null()),
        }
    }
}
