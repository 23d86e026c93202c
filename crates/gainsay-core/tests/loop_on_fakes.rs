//! Sample, score, measure, select, answer and validate on the fakes: the library's whole path,
//! twice, with the same result.

use gainsay_core::conflict::{Annotator, ConflictOptions, SummaryBuilder};
use gainsay_core::engine::{Comparison, Decoding, Oracle, RewardFn, SampleRequest, Sampler, ScoreItem};
use gainsay_core::fake::{FakePolicy, FakeReward};
use gainsay_core::oracle::{GoldOracle, Noise, answered, label_answer};
use gainsay_core::record::{Answer, PreferenceRecord, Prompt, PromptRecord, Source};
use gainsay_core::rng::Key;
use gainsay_core::select::{SelectOptions, Strategy, select};
use gainsay_core::validate::Validator;

const GOLD: FakeReward = FakeReward { seed: 1, spread: 1.0, per_byte: 0.0 };
const PROXY: FakeReward = FakeReward { seed: 1, spread: 1.0, per_byte: 0.3 };

fn pool() -> Vec<PromptRecord> {
    let policy = FakePolicy::chatty();
    let decoding = Decoding { max_new_tokens: 24, ..Decoding::default() };
    let record = |i: usize| {
        let id = format!("p{i}");
        let prompt = Prompt::Text(format!("question {i}"));
        let request = SampleRequest { id: id.clone(), prompt: prompt.clone(), n: 8 };
        let mut completions = policy.sample(&[request], &decoding).unwrap().remove(0);
        for completion in &mut completions {
            let item = [ScoreItem::of(&prompt, completion)];
            let (gold, reward) = (GOLD.rewards(&item).unwrap(), PROXY.rewards(&item).unwrap());
            (completion.gold, completion.reward) = (Some(gold[0]), Some(reward[0]));
        }
        let mut record: PromptRecord = serde_json::from_str(r#"{"id":"","prompt":""}"#).unwrap();
        (record.id, record.prompt, record.completions) = (id, prompt, completions);
        record
    };
    (0..40).map(record).collect()
}

fn preferences() -> (Vec<PromptRecord>, Vec<PreferenceRecord>) {
    let mut pool = pool();
    let mut annotator = Annotator::new(ConflictOptions::default());
    for record in &mut pool {
        annotator.annotate(record).unwrap();
    }
    let selection = select(&pool, &SelectOptions::new(Strategy::ShfCas, 20)).unwrap();
    let oracle = GoldOracle { gold: &GOLD, noise: Noise::None, seed: 0 };
    let answers = selection.records.iter().map(|pair| {
        let item = |text| ScoreItem { prompt: &pair.prompt, text, token_ids: None, finish: None };
        let comparison = Comparison { id: &pair.id, first: item(&pair.first.text), second: item(&pair.second.text) };
        let p = oracle.compare(&[comparison]).unwrap()[0];
        assert_eq!(p, label_answer(pair, Noise::None, 0), "the gold reward and its labels agree");
        answered(pair, p, Source::Gold, "gold")
    });
    let answers = answers.collect();
    (pool, answers)
}

#[test]
fn the_path_is_deterministic_and_finds_the_length_bias() {
    let (pool, answers) = preferences();
    assert_eq!(preferences(), (pool.clone(), answers.clone()));
    assert_eq!(answers.len(), 20);
    assert!(answers.iter().all(|a| matches!(a.answer, Answer::First | Answer::Second)));

    let options = ConflictOptions::default();
    let mut summary = SummaryBuilder::new(options);
    let mut validator = Validator::new(options);
    for record in &pool {
        let outcome = gainsay_core::conflict::annotate(&mut record.clone(), &options);
        summary.see(record, &outcome);
        validator.see(record);
    }
    let summary = summary.finish(Key::new(0, "summary"));
    // The proxy is paid by the byte and every token costs log-prob: they disagree on length.
    assert!(summary.kendall_tau_distance.unwrap().low > 0.5, "{}", summary.render());
    assert!(summary.reward_length.within_prompt.unwrap() > 0.5);
    let validation = validator.finish(Key::new(0, "validate")).unwrap();
    assert!(validation.pairs > 1000 && !validation.reward_accuracy.unwrap().holds(1.0));
}
