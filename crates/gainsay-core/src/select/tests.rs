use super::Strategy;
use super::*;
use crate::conflict::{Compat, ConflictOptions, annotate};
use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as _;
use std::collections::BTreeMap;

/// An annotated record of completions (text, reward, log-prob).
fn record(id: &str, completions: &[(&str, f64, f64)]) -> PromptRecord {
    let completions: Vec<_> = completions
        .iter()
        .enumerate()
        .map(|(i, (text, reward, logp))| {
            let other = (1.7 * i as f64 + id.len() as f64).sin();
            serde_json::json!({"text": text, "reward": reward, "logp": logp, "gold": reward * 2.0,
                "token_ids": [1, 2], "token_logps": [0.25 * logp, 0.5 * logp],
                "reward_heads": [reward, reward + other, 0.5 - reward], "features": [reward, other, 1.0]})
        })
        .collect();
    let value = serde_json::json!(
        {"id": id, "prompt": "?", "completions": completions, "meta": {"topic": "t"}});
    let mut record: PromptRecord = serde_json::from_value(value).unwrap();
    let _ = annotate(&mut record, &ConflictOptions::default());
    record
}

/// `agree` has K = 0, `oppose` K = 1, `mixed` K = 1/3; PACS of two opposed completions is -+2.
fn pool() -> Vec<PromptRecord> {
    vec![
        record("agree", &[("a", 1.0, -3.0), ("b", 2.0, -1.0)]),
        record("oppose", &[("a", 1.0, -1.0), ("b", 2.0, -2.0), ("c", 3.0, -3.0)]),
        record("mixed", &[("a", 1.0, -3.0), ("b", 2.0, -1.0), ("c", 3.0, -2.0)]),
        record("flat", &[("a", 1.0, -3.0), ("b", 1.0, -1.0)]),
    ]
}

fn ids(selection: &Selection) -> Vec<&str> {
    selection.records.iter().map(|r| r.id.as_str()).collect()
}

fn options(strategy: Strategy, budget: usize) -> SelectOptions {
    SelectOptions::new(strategy, budget)
}

#[test]
fn names_round_trip() {
    for strategy in Strategy::ALL {
        assert_eq!(strategy.to_string().parse(), Ok(strategy));
        assert_eq!(serde_json::to_value(strategy).unwrap(), strategy.to_string());
    }
    let error = "best".parse::<Strategy>().unwrap_err();
    assert!(error.contains("shf-cas") && error.contains("\"best\""), "{error}");
    assert_eq!("extreme".parse(), Ok(PairRule::Extreme));
}

#[test]
fn shf_cas_takes_conflicting_prompts_first_and_flags_the_rest() {
    let pool = pool();
    let selection = select(&pool, &options(Strategy::ShfCas, 100)).unwrap();
    // oppose: z = (-1.22, 0, 1.22) against its reverse, PACS (-2.45, 0, 2.45): all three pairs
    // contain a completion with |PACS| >= 1. mixed (K = 1/3) and agree (K = 0) are below 1/2;
    // flat is degenerate.
    let mut first: Vec<_> = ids(&selection)[..3].to_vec();
    first.sort_unstable();
    assert_eq!(first, ["oppose/0-1", "oppose/0-2", "oppose/1-2"]);
    assert!(selection.records[..3].iter().all(|r| r.flags.is_empty()));
    assert!(selection.records[3..].iter().all(|r| r.flags == [BELOW_THRESHOLD]));
    let stats = &selection.stats;
    assert_eq!((stats.selected, stats.available, stats.budget), (7, 7, 100));
    assert_eq!((stats.qualified_prompts, stats.unusable_prompts), (1, 1));
    assert_eq!((stats.below_threshold, stats.selected_prompts), (4, 3));
    // Below the threshold one pair of mixed comes before the first of agree, and that before the
    // second of mixed.
    let prompts: Vec<_> = selection.records[3..].iter().map(|r| r.prompt_id.as_str()).collect();
    assert_eq!(prompts, ["mixed", "agree", "mixed", "mixed"]);
}

#[test]
fn a_selected_pair_carries_what_is_known_of_it() {
    let selection = select(&pool(), &options(Strategy::ShfCas, 1)).unwrap();
    let pair = &selection.records[0];
    assert_eq!((pair.rank, pair.strategy.as_str(), pair.why.k), (0, "shf-cas", Some(1.0)));
    assert_eq!(pair.first.token_ids, Some(vec![1, 2]));
    assert_eq!(pair.first.gold, Some(2.0 * (pair.first.index + 1) as f64));
    assert_eq!(pair.meta["topic"], "t");
    assert!(pair.why.pacs_first.is_some() && pair.why.pacs_second.is_some());
}

#[test]
fn extreme_asks_the_most_over_against_the_most_under_valued() {
    let base = options(Strategy::ShfCas, 3);
    let extreme = SelectOptions { pairs: PairRule::Extreme, ..base };
    // PACS (-2.45, 0, 2.45): gaps 4.9 (0-2), 2.45 (0-1 and 1-2, by index).
    assert_eq!(ids(&select(&pool(), &extreme).unwrap()), ["oppose/0-2", "oppose/0-1", "oppose/1-2"]);
}

#[test]
fn selected_wants_both_sides_above_delta_and_all_neither() {
    let selected = SelectOptions { pairs: PairRule::Selected, ..options(Strategy::ShfCas, 9) };
    let selection = select(&pool(), &selected).unwrap();
    let above = selection.records.iter().filter(|r| r.flags.is_empty());
    assert_eq!(above.map(|r| r.id.as_str()).collect::<Vec<_>>(), ["oppose/0-2"]);
    let all = SelectOptions { pairs: PairRule::All, delta: 99.0, ..selected };
    let selection = select(&pool(), &all).unwrap();
    assert_eq!(selection.records.iter().filter(|r| r.flags.is_empty()).count(), 3);
}

#[test]
fn the_papers_rule_thresholds_the_mean_of_abs_pacs() {
    // mean |PACS|: oppose 2/3 * 2.45 = 1.63, mixed 2/3 * 1.22 = 0.82, agree 0.
    let paper =
        SelectOptions { compat: Compat::Paper, pairs: PairRule::All, delta: 0.5, ..options(Strategy::ShfCas, 6) };
    let selection = select(&pool(), &paper).unwrap();
    let prompts: Vec<_> = selection.records.iter().map(|r| r.prompt_id.as_str()).collect();
    assert_eq!(prompts, ["oppose", "oppose", "oppose", "mixed", "mixed", "mixed"]);
    assert_eq!(selection.stats.below_threshold, 0);
}

#[test]
fn one_half_each_for_pacs_and_kendall() {
    // mixed has PACS (0, -1.22, 1.22): above delta although its K is below tau.
    let pacs = select(&pool(), &options(Strategy::Pacs, 2)).unwrap();
    let prompts = |s: &Selection| s.records.iter().map(|r| r.prompt_id.clone()).collect::<Vec<_>>();
    assert_eq!(prompts(&pacs), ["oppose", "mixed"]);
    assert_eq!(pacs.stats.below_threshold, 0);
    let strict = SelectOptions { delta: 99.0, ..options(Strategy::Kendall, 3) };
    let kendall = select(&pool(), &strict).unwrap();
    assert_eq!(prompts(&kendall), ["oppose"; 3]);
    assert_eq!(kendall.stats.below_threshold, 0);
}

#[test]
fn margin_takes_the_smallest_difference() {
    let pool = [
        record("x", &[("a", 0.0, -1.0), ("b", 0.5, -2.0), ("c", 3.0, -3.0)]),
        record("y", &[("a", 0.0, -1.0), ("b", 0.1, -2.0)]),
    ];
    let selection = select(&pool, &options(Strategy::Margin, 3)).unwrap();
    assert_eq!(ids(&selection), ["y/0-1", "x/0-1", "x/1-2"]);
}

#[test]
fn max_min_takes_best_against_worst_once_a_prompt() {
    let selection = select(&pool(), &options(Strategy::MaxMin, 8)).unwrap();
    let mut first: Vec<_> = ids(&selection)[..3].to_vec();
    first.sort_unstable();
    assert_eq!(first, ["agree/0-1", "mixed/0-2", "oppose/0-2"]);
    assert_eq!(ids(&selection)[7], "flat/0-1");
}

#[test]
fn rso_prefers_large_rewards_and_says_what_it_accepted() {
    let completions: Vec<(String, f64, f64)> = (0..20).map(|i| (format!("t{i}"), f64::from(i), -1.0)).collect();
    let completions: Vec<_> = completions.iter().map(|(t, r, l)| (t.as_str(), *r, *l)).collect();
    let pool = [record("x", &completions)];
    let rso = SelectOptions { rso_beta: 2.0, ..options(Strategy::Rso, 3) };
    let selection = select(&pool, &rso).unwrap();
    assert!(selection.records.iter().all(|r| r.first.index >= 5), "{:?}", ids(&selection));
    let stats = selection.stats.rso.unwrap();
    assert_eq!((stats.candidates, stats.beta), (20, 2.0));
    // Expected: sum over d of exp(-d / 2) = 2.54.
    assert!((1..=8).contains(&stats.accepted), "{stats:?}");
    assert_eq!(selection.stats.available, 190);
}

#[test]
fn random_is_uniform_over_pairs_and_random_spread_over_prompts() {
    let pool = [
        record("x", &[("a", 0.0, -1.0), ("b", 0.5, -2.0), ("c", 3.0, -3.0)]),
        record("y", &[("a", 0.0, -1.0), ("b", 0.1, -2.0)]),
    ];
    let share = |strategy| {
        let mut counts = BTreeMap::new();
        for seed in 0..2000 {
            let selection = select(&pool, &SelectOptions { seed, ..options(strategy, 1) }).unwrap();
            *counts.entry(ids(&selection)[0].to_owned()).or_insert(0) += 1;
        }
        counts
    };
    // Four pairs: 500 each (sd 19). Two prompts: 1000 for the pair of y, 333 for each of x's.
    let random = share(Strategy::Random);
    assert!(random.values().all(|n| (400..600).contains(n)), "{random:?}");
    let spread = share(Strategy::RandomSpread);
    assert!((880..1120).contains(&spread["y/0-1"]), "{spread:?}");
    assert!((250..420).contains(&spread["x/0-1"]), "{spread:?}");
}

#[test]
fn equal_texts_are_never_compared_nor_asked_twice() {
    let pool = [record("x", &[("a", 0.0, -1.0), ("b", 0.5, -2.0), ("a", 3.0, -3.0)])];
    for strategy in Strategy::ALL {
        let selection = select(&pool, &options(strategy, 9)).unwrap();
        assert_eq!(ids(&selection), ["x/0-1"], "{strategy}");
        assert_eq!((selection.stats.identical_pairs, selection.stats.repeated_pairs), (1, 1));
    }
    let same = [record("x", &[("a", 0.0, -1.0), ("a", 0.5, -2.0)])];
    let error = select(&same, &options(Strategy::Random, 1)).unwrap_err();
    assert_eq!(error, SelectError::NoPairs { prompts: 1 });
}

#[test]
fn what_was_asked_before_is_not_asked_again() {
    for strategy in Strategy::ALL {
        let first = select(&pool(), &options(strategy, 3)).unwrap();
        let mut asked: HashSet<String> = first.records.iter().map(|r| r.id.clone()).collect();
        let second = select_unasked(&pool(), &options(strategy, 100), &asked).unwrap();
        assert_eq!(second.stats.asked_before, 3, "{strategy}");
        assert_eq!(second.stats.available + 3, first.stats.available);
        assert!(second.records.iter().all(|r| asked.insert(r.id.clone())), "{strategy}");
        let error = select_unasked(&pool(), &options(strategy, 1), &asked).unwrap_err();
        assert!(matches!(error, SelectError::AllAsked { .. }), "{error}");
    }
}

#[test]
fn heads_decide_by_disagreement() {
    // Heads: reward, reward + sin(..), 1/2 - reward. Of `oppose` the pair 0-2 differs most.
    let pool = &pool()[1..2];
    for strategy in [Strategy::Ensemble, Strategy::InfoGain] {
        assert_eq!(ids(&select(pool, &options(strategy, 3)).unwrap())[0], "oppose/0-2", "{strategy}");
    }
    // Two heads like completion 2 or so, the third likes 0: their favorites meet.
    let met: BTreeMap<String, usize> = (0..200).fold(BTreeMap::new(), |mut counts, seed| {
        let selection = select(pool, &SelectOptions { seed, ..options(Strategy::DoubleTs, 1) }).unwrap();
        *counts.entry(selection.records[0].id.clone()).or_default() += 1;
        counts
    });
    assert!(met["oppose/0-2"] > 150, "{met:?}");
    // Implicit rewards are -1/4 of the log-prob: `oppose` 0-2 differs by 1/2. The most uncertain
    // prompt by mean log-prob comes first.
    let uncertain = [
        record("sure", &[("a", 1.0, -1.0), ("b", 2.0, -3.0)]),
        record("unsure", &[("a", 1.0, -9.0), ("b", 2.0, -8.0), ("c", 2.0, -8.5)]),
    ];
    assert_eq!(ids(&select(&uncertain, &options(Strategy::Apl, 2)).unwrap()), ["unsure/0-1", "sure/0-1"]);
    assert_eq!(ids(&select(pool, &options(Strategy::Apl, 1)).unwrap()), ["oppose/0-2"]);
}

#[test]
fn conflict_comes_before_diversity() {
    let selection = select(&pool(), &options(Strategy::ConflictDiverse, 100)).unwrap();
    let flagged: Vec<bool> = selection.records.iter().map(|r| !r.flags.is_empty()).collect();
    assert!(flagged.is_sorted() && !flagged[0] && flagged[3], "{flagged:?}");
    // Among the three conflicting pairs the longest difference of features comes first.
    assert_eq!(selection.records[0].id, "oppose/0-2");
}

/// The pool without the features of the prompts that `without` names.
fn featureless(without: impl Fn(&str) -> bool) -> Vec<PromptRecord> {
    let mut pool = pool();
    for record in pool.iter_mut().filter(|r| without(&r.id)) {
        record.completions.iter_mut().for_each(|c| drop(c.extra.remove(FEATURES)));
    }
    pool
}

#[test]
fn conflict_without_features_comes_before_what_does_not_conflict() {
    // At tau_K = 0.3 `oppose` and `mixed` conflict; of the two only `mixed` has features.
    let options = SelectOptions { tau_k: 0.3, ..options(Strategy::ConflictDiverse, 100) };
    let selection = select(&featureless(|id| id == "oppose"), &options).unwrap();
    let all = select(&pool(), &SelectOptions { strategy: Strategy::ShfCas, ..options }).unwrap();
    let above: Vec<_> = selection.records.iter().filter(|r| r.flags.is_empty()).collect();
    assert_eq!(above.len(), all.records.iter().filter(|r| r.flags.is_empty()).count());
    let prompts: Vec<_> = above.iter().map(|r| r.prompt_id.as_str()).collect();
    assert!(prompts[0] == "mixed" && prompts[prompts.len() - 3..] == ["oppose"; 3], "{prompts:?}");
    assert_eq!(selection.records.len(), all.records.len());
}

#[test]
fn errors_say_what_to_do() {
    let bare: PromptRecord =
        serde_json::from_str(r#"{"id":"x","prompt":"?","completions":[{"text":"a"},{"text":"b"}]}"#).unwrap();
    let message = |pool: &[PromptRecord], options: SelectOptions| select(pool, &options).unwrap_err().to_string();
    let bare = [bare];
    assert!(message(&bare, options(Strategy::Kendall, 1)).contains("gainsay conflicts"));
    assert!(message(&bare, options(Strategy::Margin, 1)).contains("gainsay score"));
    assert_eq!(select(&bare, &options(Strategy::Random, 1)).unwrap().records.len(), 1);
    for strategy in
        [Strategy::Ensemble, Strategy::InfoGain, Strategy::DoubleTs, Strategy::KCenter, Strategy::DOpt, Strategy::Apl]
    {
        let text = message(&bare, options(strategy, 1));
        assert!(text.contains(strategy.needs().unwrap().0) && text.contains("gainsay s"), "{text}");
    }
    for strategy in [Strategy::KCenter, Strategy::DOpt, Strategy::ConflictDiverse] {
        let text = message(&featureless(|_| true), options(strategy, 1));
        assert!(text.contains("two completions with features") && text.contains("gainsay score --features"), "{text}");
        let mut ragged = pool();
        ragged[2].completions[1].extra.insert(FEATURES.into(), serde_json::json!([1.0, 2.0]));
        let text = message(&ragged, options(strategy, 1));
        assert!(text.contains("\"mixed\", completion 1: 2 features, but 3 before"), "{text}");
    }
    assert!(message(&pool()[3..], options(Strategy::ShfCas, 1)).contains("degenerate"));
    assert!(message(&pool(), options(Strategy::Random, 0)).contains("budget is 0"));
    let nan = SelectOptions { tau_k: f64::NAN, ..options(Strategy::ShfCas, 1) };
    assert!(message(&pool(), nan).contains("tau-k"));
    let twice = [pool().remove(0), pool().remove(0)];
    assert!(message(&twice, options(Strategy::Random, 1)).contains("\"agree\""));
    let mut mixed = pool();
    mixed[1].meta.insert("logp_policy".into(), "other".into());
    assert!(message(&mixed, options(Strategy::ShfCas, 1)).contains("logp_policy"));
    assert!(select(&mixed, &options(Strategy::Margin, 1)).is_ok());
}

/// Pools of up to 6 prompts with up to 6 completions, coarse values for ties.
fn any_pool() -> impl proptest::strategy::Strategy<Value = Vec<PromptRecord>> {
    let completion = (0u8..5, -3i8..3, -3i8..3);
    let completions = prop::collection::vec(completion, 0..6);
    prop::collection::vec(completions, 1..6).prop_map(|prompts| {
        let prompt = |(p, completions): (usize, Vec<(u8, i8, i8)>)| {
            let texts: Vec<String> = completions.iter().map(|c| format!("t{}", c.0)).collect();
            let rows: Vec<_> = completions
                .iter()
                .zip(&texts)
                .map(|((_, r, l), text)| (text.as_str(), f64::from(*r), f64::from(*l)))
                .collect();
            record(&format!("p{p}"), &rows)
        };
        prompts.into_iter().enumerate().map(prompt).collect()
    })
}

fn any_options() -> impl proptest::strategy::Strategy<Value = SelectOptions> {
    let pairs = [PairRule::Spread, PairRule::Extreme, PairRule::Selected, PairRule::All];
    (0..Strategy::ALL.len(), 0..4usize, 1..30usize, 0..3u64).prop_map(move |(s, p, budget, seed)| SelectOptions {
        pairs: pairs[p],
        seed,
        ..options(Strategy::ALL[s], budget)
    })
}

proptest! {
    #[test]
    fn every_selection_keeps_its_promises(pool in any_pool(), options in any_options()) {
        let Ok(selection) = select(&pool, &options) else { return Ok(()) };
        let stats = &selection.stats;
        let expected = (options.budget as u64).min(stats.available) as usize;
        prop_assert_eq!(selection.records.len(), expected);
        prop_assert_eq!(stats.selected, expected);
        let mut seen = HashSet::new();
        for (rank, pair) in selection.records.iter().enumerate() {
            prop_assert_eq!(pair.rank, rank);
            prop_assert!(pair.first.index < pair.second.index);
            prop_assert!(pair.first.text != pair.second.text);
            let texts = (pair.prompt_id.clone(), pair.first.text.clone(), pair.second.text.clone());
            prop_assert!(seen.insert(texts), "asked twice: {}", pair.id);
            if options.strategy.uses_conflict() {
                prop_assert!(pair.why.k.is_some(), "degenerate: {}", pair.id);
            }
        }
        let flagged = selection.records.iter().map(|r| !r.flags.is_empty()).collect::<Vec<_>>();
        prop_assert!(flagged.is_sorted(), "a flagged pair before one above the thresholds");
    }

    #[test]
    fn the_order_of_the_records_does_not_matter(
        pool in any_pool(), options in any_options(), order in 0u64..9,
    ) {
        let mut shuffled = pool.clone();
        crate::rng::Key::new(order, "test").stream().shuffle(&mut shuffled);
        prop_assert_eq!(select(&pool, &options), select(&shuffled, &options));
    }

    #[test]
    fn a_smaller_budget_is_a_prefix(pool in any_pool(), options in any_options()) {
        let larger = SelectOptions { budget: options.budget + 1, ..options };
        if let (Ok(small), Ok(large)) = (select(&pool, &options), select(&pool, &larger)) {
            prop_assert_eq!(&large.records[..small.records.len()], &small.records[..]);
        }
    }
}
