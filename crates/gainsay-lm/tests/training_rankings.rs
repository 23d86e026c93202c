//! Reward models trained on rankings, on the tiny random model.

mod training_common;

use gainsay_core::ranking::{Ranking, RankingRecord};
use gainsay_core::record::{Completion, PreferenceRecord, Prompt, SCHEMA};
use gainsay_core::rng::Key;
use gainsay_lm::config::Family;
use gainsay_lm::reward::RewardModel;
use gainsay_lm::train::{
    Feedback, RewardCompany, RewardMethod, RewardTrainOptions, RewardTrainReport, cross_validate, train_reward,
};
use gainsay_lm::{Loaded, load};
use training_common::{quiet, vowel_pairs};

fn base() -> Loaded {
    Loaded { head: None, ..load("tiny-random:1").unwrap() }
}

fn ranking(id: &str, prompt: &str, texts: &[String], groups: Vec<Vec<usize>>) -> RankingRecord {
    let completion = |text: &String| Completion { text: text.clone(), ..Completion::default() };
    RankingRecord {
        schema: SCHEMA,
        id: id.into(),
        prompt: Prompt::Text(prompt.into()),
        completions: texts.iter().map(completion).collect(),
        ranking: Ranking(groups),
        source: None,
        meta: Default::default(),
        extra: Default::default(),
    }
}

/// Words of four letters with 0 to 4 vowels, ranked by their number.
fn vowel_rankings(n: usize, seed: u64) -> Vec<RankingRecord> {
    let mut stream = Key::new(seed, "vowel-rankings").stream();
    (0..n)
        .map(|i| {
            let mut counts: Vec<usize> = (0..4).map(|_| stream.index(5)).collect();
            counts[0] = (counts[1] + 2) % 5;
            let letter = |stream: &mut gainsay_core::rng::Stream, of: &str| of.as_bytes()[stream.index(5)] as char;
            let texts: Vec<String> = counts
                .iter()
                .map(|vowels| {
                    (0..4).map(|c| letter(&mut stream, if c < *vowels { "aeiou" } else { "bcdfg" })).collect()
                })
                .collect();
            let ranks: Vec<usize> = counts.iter().map(|c| 4 - c).collect();
            ranking(&format!("r{i}"), &format!("say {i}"), &texts, Ranking::of_ranks(&ranks).0)
        })
        .collect()
}

/// The same as rankings of two.
fn as_rankings(pairs: &[PreferenceRecord]) -> Vec<RankingRecord> {
    let of = |r: &PreferenceRecord| {
        let groups = if r.p_first == Some(1.0) { vec![vec![0], vec![1]] } else { vec![vec![1], vec![0]] };
        ranking(&r.id, &r.prompt.display(), &[r.first.text.clone(), r.second.text.clone()], groups)
    };
    pairs.iter().map(of).collect()
}

fn options(method: RewardMethod) -> RewardTrainOptions {
    let mut options = RewardTrainOptions::new(method, Family::Llama);
    (options.heldout, options.epochs) = (0.3, 4);
    options.lr = if method == RewardMethod::Full { 3e-3 } else { 2e-2 };
    options
}

fn train(feedback: Feedback<'_>, method: RewardMethod) -> (RewardModel, RewardTrainReport) {
    train_reward(base(), feedback, &options(method), &mut RewardCompany::default(), &mut quiet()).unwrap()
}

const METHODS: [RewardMethod; 3] = [RewardMethod::Head, RewardMethod::Lora, RewardMethod::Full];

#[test]
fn every_method_learns_from_rankings() {
    let rankings = vowel_rankings(60, 3);
    for method in METHODS {
        let (_, report) = train(Feedback { pairs: &[], rankings: &rankings }, method);
        let after = report.epochs.last().unwrap().heldout.unwrap();
        assert!(after.accuracy.unwrap().low > 0.5, "{method:?}: {after:?}");
        assert_eq!((report.pairs.rankings, report.pairs.train + report.pairs.heldout), (60, 60));
        // Six comparisons a ranking.
        assert_eq!(after.pairs, 6 * report.pairs.heldout);
        assert!(report.slices.iter().any(|s| s.by == "length") && report.calibration.is_some());
    }
}

#[test]
fn rankings_of_two_train_as_their_pairs_do() {
    let pairs = vowel_pairs(60, 5);
    let rankings = as_rankings(&pairs);
    for method in METHODS {
        let (a, of_pairs) = train((&pairs).into(), method);
        let (b, of_rankings) = train(Feedback { pairs: &[], rankings: &rankings }, method);
        let last = |r: &RewardTrainReport| r.epochs.last().unwrap().heldout.unwrap();
        assert_eq!(last(&of_pairs).accuracy, last(&of_rankings).accuracy, "{method:?}");
        assert!((last(&of_pairs).loss - last(&of_rankings).loss).abs() < 1e-3, "{method:?}");
        let size = a.head.iter().fold(0f32, |m, w| m.max(w.abs()));
        for (x, y) in a.head.iter().zip(&b.head) {
            assert!((x - y).abs() < 1e-2 * size, "{method:?}: {x} {y}");
        }
    }
}

#[test]
fn pairs_and_rankings_are_learned_together_and_folds_take_both() {
    let (pairs, rankings) = (vowel_pairs(30, 5), vowel_rankings(30, 4));
    let both = Feedback { pairs: &pairs, rankings: &rankings };
    let (_, report) = train(both, RewardMethod::Lora);
    assert_eq!((report.pairs.rankings, report.pairs.train + report.pairs.heldout), (30, 60));
    for method in [RewardMethod::Head, RewardMethod::Lora] {
        let all = RewardTrainOptions { heldout: 0.0, ..options(method) };
        let result = cross_validate(&base(), both, &all, 3, &mut RewardCompany::default(), &mut quiet()).unwrap();
        let tied = |r: &RankingRecord| r.ranking.0.iter().map(|g| (g.len() * (g.len() - 1) / 2) as u64).sum::<u64>();
        let ties: u64 = rankings.iter().map(tied).sum();
        assert_eq!(result.accuracy.unwrap().n, 30 + 30 * 6 - ties);
        assert!(result.accuracy.unwrap().low > 0.5, "{method:?}: {result:?}");
    }
}

#[test]
fn a_ranking_that_cannot_be_read_is_named() {
    let mut rankings = vowel_rankings(3, 3);
    rankings[1].extra.insert("weight".into(), serde_json::json!(-1));
    let feedback = Feedback { pairs: &[], rankings: &rankings };
    let error =
        train_reward(base(), feedback, &options(RewardMethod::Head), &mut RewardCompany::default(), &mut quiet())
            .unwrap_err();
    assert!(error.is_user_error() && error.to_string().contains("ranking r1: weight is -1"), "{error}");
}

#[test]
fn a_weight_counts_like_as_many_rankings() {
    // Heavy rankings that say the opposite win, light ones lose.
    let agrees = |weight: f64| {
        let mut rankings = vowel_rankings(60, 3);
        for record in &mut rankings[..30] {
            record.ranking.0.reverse();
            record.extra.insert("weight".into(), serde_json::json!(weight));
        }
        let all = RewardTrainOptions { heldout: 0.0, ..options(RewardMethod::Head) };
        let feedback = Feedback { pairs: &[], rankings: &rankings };
        let (model, _) = train_reward(base(), feedback, &all, &mut RewardCompany::default(), &mut quiet()).unwrap();
        let test = vowel_pairs(40, 9);
        let sides = test
            .iter()
            .flat_map(|r| [&r.first, &r.second].map(|s| gainsay_core::engine::ScoreItem::side(&r.prompt, s)));
        let local = gainsay_lm::reward::LocalReward::new(model, Default::default());
        let rewards = gainsay_core::engine::RewardFn::rewards(&local, &sides.collect::<Vec<_>>()).unwrap();
        let right = |(r, pair): (&PreferenceRecord, &[f64])| (pair[0] > pair[1]) == (r.p_first == Some(1.0));
        test.iter().zip(rewards.chunks(2)).filter(|case| right(*case)).count() as f64 / 40.0
    };
    assert!(agrees(0.05) > 0.7 && agrees(20.0) < 0.3, "{} {}", agrees(0.05), agrees(20.0));
}
