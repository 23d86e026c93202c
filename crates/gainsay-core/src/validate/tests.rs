use super::*;
use crate::conflict::Compat;
use crate::rng::Key;

/// A record of completions (reward, log-prob, gold).
fn record(id: usize, completions: &[(f64, f64, f64)]) -> PromptRecord {
    let completions: Vec<_> = completions
        .iter()
        .enumerate()
        .map(|(i, (reward, logp, gold))| {
            serde_json::json!({"text": "x".repeat(i + 1), "reward": reward, "logp": logp, "gold": gold})
        })
        .collect();
    let value = serde_json::json!({"id": format!("p{id}"), "prompt": "?", "completions": completions});
    serde_json::from_value(value).unwrap()
}

fn validate(records: &[PromptRecord]) -> Result<Validation, ValidateError> {
    let mut validator = Validator::new(ConflictOptions::default());
    records.iter().for_each(|r| validator.see(r));
    validator.finish(Key::new(0, "validate"))
}

fn score(validation: &Validation, name: Score) -> &ScoreReport {
    validation.scores.iter().find(|s| s.name == name).unwrap()
}

#[test]
fn by_hand() {
    let v = validate(&[
        // Concordant, gold agrees: both right. K 0.
        record(0, &[(1.0, -2.0, 0.0), (2.0, -1.0, 1.0)]),
        // Concordant, gold disagrees: both wrong. K 0.
        record(1, &[(1.0, -2.0, 1.0), (2.0, -1.0, 0.0)]),
        // Discordant, gold with the policy. K 1.
        record(2, &[(1.0, -1.0, 1.0), (2.0, -2.0, 0.0)]),
        // Discordant, gold with the reward. K 1.
        record(3, &[(1.0, -1.0, 0.0), (2.0, -2.0, 1.0)]),
        // Equal gold.
        record(4, &[(1.0, -1.0, 0.5), (2.0, -2.0, 0.5)]),
        // Constant reward: degenerate.
        record(5, &[(1.0, -1.0, 0.0), (1.0, -2.0, 1.0)]),
        // Discordant, gold with the policy. K 1.
        record(6, &[(1.0, -1.0, 1.0), (5.0, -2.0, 0.0)]),
    ])
    .unwrap();
    let table = Knowledge { both_right: 1, both_wrong: 1, only_proxy_right: 1, only_policy_right: 2, tied: 0 };
    assert_eq!(v.knowledge, table);
    assert_eq!((v.pairs, v.gold_ties, v.degenerate.total, v.prompts, v.prompts_used), (5, 1, 1, 7, 5));
    assert_eq!(v.reward_accuracy.unwrap().estimate, 0.4);
    // The policy is right in pairs 0, 2 and 6.
    assert!((v.policy_accuracy.unwrap().estimate - 0.6).abs() < 1e-12);
    // Mistakes have K 0 1 1, right pairs K 0 1: of six comparisons 2 won, 3 tied, 1 lost: 3.5 / 6.
    let k = score(&v, Score::KendallTauDistance).auroc.unwrap();
    assert!((k.estimate - 3.5 / 6.0).abs() < 1e-12);
    // With two completions a prompt these are the same question.
    assert_eq!(score(&v, Score::Discordance).auroc, score(&v, Score::KendallTauDistance).auroc);
    // The largest reward difference is a mistake: small margins lose there and tie elsewhere.
    let margin = score(&v, Score::SmallMargin).auroc.unwrap();
    assert!((margin.estimate - 2.0 / 6.0).abs() < 1e-12);
    assert_eq!(v.recommendation.verdict, Verdict::NotDistinguishable);
    assert!(v.recommendation.text.contains("67 %"), "{}", v.recommendation.text);
    // No ensemble, no such score; bytes stand in for token counts.
    assert_eq!(v.scores.len(), 5);
    assert_eq!(v.length_unit, LengthUnit::Bytes);
}

#[test]
fn a_proxy_tie_is_half_a_mistake() {
    let v = validate(&[record(0, &[(1.0, -2.0, 0.0), (1.0, -1.0, 1.0), (3.0, -3.0, 2.0)])]).unwrap();
    assert_eq!((v.proxy_ties, v.knowledge.tied), (1, 1));
    // Of three pairs one is tied and two are right.
    assert!((v.reward_accuracy.unwrap().estimate - 2.5 / 3.0).abs() < 1e-12);
}

/// Prompts of five completions. Gold is standard normal; the reward is gold, or its reverse on a
/// third of the prompts; the log-prob is `sign` times gold, with noise.
fn simulated(sign: f64) -> Vec<PromptRecord> {
    let mut stream = Key::new(1, "validate-test").stream();
    (0..120)
        .map(|p| {
            let wrong = if p % 3 == 0 { -1.0 } else { 1.0 };
            let completions: Vec<_> = (0..5)
                .map(|_| {
                    let gold = stream.normal();
                    (wrong * gold + 0.3 * stream.normal(), 10.0 * (sign * gold + stream.normal()), gold)
                })
                .collect();
            record(p, &completions)
        })
        .collect()
}

#[test]
fn the_verdict_follows_what_the_policy_knows() {
    let pays = validate(&simulated(1.0)).unwrap();
    assert_eq!(pays.recommendation.verdict, Verdict::ConflictPays);
    let k = score(&pays, Score::KendallTauDistance);
    assert!(k.auroc.unwrap().estimate > 0.8 && k.lift_20.unwrap().low > 1.0, "{k:?}");
    assert!(pays.recommendation.text.contains("shf-cas"));
    let away = validate(&simulated(-1.0)).unwrap();
    assert_eq!(away.recommendation.verdict, Verdict::PointsAway);
    assert!(away.recommendation.text.contains("random-spread"));
    assert_eq!(validate(&simulated(0.0)).unwrap().recommendation.verdict, Verdict::NotDistinguishable);
}

#[test]
fn a_reward_model_without_mistakes_leaves_nothing_to_find() {
    let v = validate(&[record(0, &[(1.0, -2.0, 0.0), (2.0, -1.0, 1.0)])]).unwrap();
    assert_eq!(v.recommendation.verdict, Verdict::Undefined);
    assert_eq!(v.scores[0].auroc, None);
    assert!(v.render().contains("not defined"));
}

#[test]
fn ensemble_variance_is_scored_where_every_pair_has_it() {
    let mut records = simulated(1.0);
    for completion in records.iter_mut().flat_map(|r| &mut r.completions) {
        completion.extra.insert("reward_var".into(), completion.gold.into());
    }
    assert_eq!(validate(&records).unwrap().scores.last().unwrap().name, Score::EnsembleVariance);
}

#[test]
fn errors_say_what_to_do() {
    let unlabeled = r#"{"id":"x","prompt":"?","completions":[
        {"text":"a","reward":1,"logp":-1},{"text":"b","reward":2,"logp":-2}]}"#;
    let error = validate(&[serde_json::from_str(unlabeled).unwrap()]).unwrap_err();
    assert!(error.to_string().contains("--gold"), "{error}");
    let equal = validate(&[record(0, &[(1.0, -1.0, 0.5), (2.0, -2.0, 0.5)])]).unwrap_err();
    assert_eq!(equal, ValidateError::NoPairs { prompts: 1, degenerate: 0, gold_ties: 1 });
    let unscored = r#"{"id":"x","prompt":"?","completions":[{"text":"a","gold":1}]}"#;
    let error = validate(&[serde_json::from_str(unscored).unwrap()]).unwrap_err();
    assert!(error.to_string().contains("gainsay score"), "{error}");
}

#[test]
fn renders_and_serializes() {
    let v = validate(&simulated(1.0)).unwrap();
    let text = v.render();
    for part in ["AUROC", "K of the prompt", "shared ignorance", "complementary knowledge", "Conflict pays"] {
        assert!(text.contains(part), "{text}");
    }
    let json = serde_json::to_value(&v).unwrap();
    assert_eq!(json["scores"][0]["name"], "kendall_tau_distance");
    assert_eq!(json["recommendation"]["verdict"], "conflict_pays");
    assert_eq!(json["convention"]["compat"], serde_json::to_value(Compat::Standard).unwrap());
}
