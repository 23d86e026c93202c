//! Property tests: any record survives every format, and the order of keys means nothing.

use gainsay_core::files::{self, Record};
use gainsay_core::record::{
    Answer, Candidate, Completion, Extra, Finish, Message, PreferenceRecord, PreferenceSide, Prompt, PromptRecord,
    SCHEMA, SelectionRecord, Source, Vote, Why,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

/// Text with what breaks naive writers: quotes, newlines, NUL, a byte-order mark, emoji.
fn text() -> impl Strategy<Value = String> {
    vec(
        prop_oneof![
            any::<char>(),
            Just('\n'),
            Just('"'),
            Just('\\'),
            Just('\0'),
            Just('\u{feff}'),
            Just('\u{2028}'),
            Just('😀'),
        ],
        0..12,
    )
    .prop_map(String::from_iter)
}

fn name() -> impl Strategy<Value = String> {
    (text(), any::<u32>()).prop_map(|(text, n)| format!("{text}{n}"))
}

fn number() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("JSON has finite numbers only", |x| x.is_finite())
}

fn logp() -> impl Strategy<Value = f64> {
    number().prop_map(|x| -x.abs())
}

/// Fields that no schema knows.
fn extra() -> impl Strategy<Value = Extra> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        number().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec((text(), inner), 0..3).prop_map(|fields| Value::from(Extra::from_iter(fields))),
        ]
    });
    vec((text().prop_map(|name| format!("x-{name}")), value), 0..3).prop_map(Extra::from_iter)
}

fn prompt() -> impl Strategy<Value = Prompt> {
    let role = prop_oneof![Just("system"), Just("user"), Just("assistant")];
    let turn = (role, text()).prop_map(|(role, content)| Message { role: role.to_string(), content });
    prop_oneof![name().prop_map(Prompt::Text), vec(turn, 1..4).prop_map(Prompt::Chat)]
}

fn completion() -> impl Strategy<Value = Completion> {
    let tokens = option::of(vec((any::<u32>(), -100f32..=0.0), 0..4));
    let scores = [option::of(number()), option::of(number()), option::of(number())];
    let finish = option::of(prop_oneof![Just(Finish::Stop), Just(Finish::Length)]);
    let rewards = (option::of(number()), option::of(number()));
    (text(), tokens, any::<[bool; 3]>(), option::of(logp()), finish, scores, rewards, extra()).prop_map(
        |(text, tokens, keep, logp, finish, [pacs, z_reward, z_logp], more, extra)| {
            let kept = |i: usize| tokens.as_ref().filter(|_| keep[i]);
            Completion {
                text,
                token_ids: kept(0).map(|t| t.iter().map(|t| t.0).collect()),
                logp,
                n_tokens: kept(1).map(|t| t.len() as u32),
                token_logps: kept(2).map(|t| t.iter().map(|t| t.1).collect()),
                finish,
                reward: more.0,
                gold: more.1,
                pacs,
                z_reward,
                z_logp,
                extra,
            }
        },
    )
}

fn prompt_record() -> impl Strategy<Value = PromptRecord> {
    let parts = (name(), prompt(), vec(completion(), 0..4), extra(), extra());
    (parts, option::of(0.0..=1.0), option::of(-1.0..=1.0)).prop_map(
        |((id, prompt, completions, meta, extra), kendall_tau_distance, tau_b)| PromptRecord {
            schema: SCHEMA,
            id,
            prompt,
            completions,
            kendall_tau_distance,
            tau_b,
            meta,
            extra,
        },
    )
}

fn candidate(index: usize) -> impl Strategy<Value = Candidate> {
    (text(), option::of(vec(any::<u32>(), 0..4)), option::of(number()))
        .prop_map(move |(text, token_ids, gold)| Candidate { index, text, token_ids, gold })
}

fn selection_record() -> impl Strategy<Value = SelectionRecord> {
    let names = (name(), name(), name(), vec(text(), 0..3), any::<u32>());
    let why = (option::of(0.0..=1.0), option::of(number()), option::of(number()))
        .prop_map(|(k, pacs_first, pacs_second)| Why { k, pacs_first, pacs_second });
    (names, prompt(), candidate(3), candidate(1), why, extra(), extra()).prop_map(
        |((id, prompt_id, strategy, flags, rank), prompt, first, second, why, meta, extra)| SelectionRecord {
            schema: SCHEMA,
            id,
            prompt_id,
            prompt,
            first,
            second,
            strategy,
            rank: rank as usize,
            why,
            flags,
            meta,
            extra,
        },
    )
}

fn side() -> impl Strategy<Value = PreferenceSide> {
    (text(), option::of(vec(any::<u32>(), 0..4)), extra()).prop_map(|(text, token_ids, extra)| PreferenceSide {
        text,
        token_ids,
        finish: None,
        extra,
    })
}

fn vote() -> impl Strategy<Value = Vote> {
    let answer = prop_oneof![Just(Answer::First), Just(Answer::BothBad), Just(Answer::Skip)];
    (text(), answer, option::of(any::<u8>()), option::of(0.0..1e4), extra())
        .prop_map(|(annotator, answer, strength, seconds, extra)| Vote { annotator, answer, strength, seconds, extra })
}

fn preference_record() -> impl Strategy<Value = PreferenceRecord> {
    let answer = prop_oneof![
        (0.5..=1.0).prop_map(|p| (Answer::First, Some(p))),
        (0.0..=0.5).prop_map(|p| (Answer::Second, Some(p))),
        Just((Answer::Tie, Some(0.5))),
        Just((Answer::BothBad, None)),
        Just((Answer::Skip, None)),
    ];
    let source = option::of(prop_oneof![Just(Source::Gold), Just(Source::Web)]);
    let safe = any::<(Option<bool>, Option<bool>)>();
    let margin = option::of(0.0..1e6);
    let labels = (answer, margin, vec(vote(), 0..3), source, safe);
    (name(), prompt(), side(), side(), labels, extra(), extra()).prop_map(
        |(id, prompt, first, second, labels, meta, extra)| {
            let ((answer, p_first), margin, votes, source, (safe_first, safe_second)) = labels;
            PreferenceRecord {
                schema: SCHEMA,
                id,
                prompt,
                first,
                second,
                p_first,
                answer,
                margin,
                votes,
                source,
                safe_first,
                safe_second,
                meta,
                extra,
            }
        },
    )
}

/// Writes the records to each format and compares what is read back; then the same with the keys
/// of every line in another order.
fn survives<T: Record + PartialEq + std::fmt::Debug>(records: &[T]) {
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        let path = folder.path().join(name);
        files::write_all(&path, records).unwrap();
        let read: Vec<T> = files::Reader::open(&path).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(read, records, "{name}");
    }
    for record in records {
        let sorted = serde_json::to_value(record).unwrap();
        let Value::Object(fields) = &sorted else { panic!("a record is an object") };
        let line: Vec<String> =
            fields.iter().rev().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
        let reversed: T = serde_json::from_str(&format!("{{{}}}", line.join(" , "))).unwrap();
        assert_eq!(&reversed, record);
    }
}

const NAMES: [&str; 4] = ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn prompt_records(records in vec(prompt_record(), 1..4)) {
        survives(&records);
    }

    #[test]
    fn selection_records(records in vec(selection_record(), 1..4)) {
        survives(&records);
    }

    #[test]
    fn preference_records(records in vec(preference_record(), 1..4)) {
        survives(&records);
    }
}
