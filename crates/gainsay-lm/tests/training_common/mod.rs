//! What the training tests share.

use std::ops::ControlFlow;

use gainsay_core::record::{Answer, PreferenceRecord, PreferenceSide, Prompt, SCHEMA};
use gainsay_core::rng::Key;
use gainsay_lm::train::TrainEvent;

/// `n` pairs of short random words; the one with more vowels is better.
pub fn vowel_pairs(n: usize, seed: u64) -> Vec<PreferenceRecord> {
    let mut stream = Key::new(seed, "vowel-pairs").stream();
    let mut word = |vowels: bool| -> String {
        let letters = if vowels { "aeiou" } else { "bcdfg" };
        (0..4).map(|_| letters.as_bytes()[stream.index(5)] as char).collect()
    };
    (0..n)
        .map(|i| {
            let first_wins = i % 2 == 0;
            let (first, second) = (word(first_wins), word(!first_wins));
            pair(&format!("pair-{i}"), &format!("say {}", word(false)), &first, &second, first_wins)
        })
        .collect()
}

/// One answered pair.
pub fn pair(id: &str, prompt: &str, first: &str, second: &str, first_wins: bool) -> PreferenceRecord {
    let side = |text: &str| PreferenceSide { text: text.into(), ..PreferenceSide::default() };
    PreferenceRecord {
        schema: SCHEMA,
        id: id.into(),
        prompt: Prompt::Text(prompt.into()),
        first: side(first),
        second: side(second),
        p_first: Some(f64::from(u8::from(first_wins))),
        answer: if first_wins { Answer::First } else { Answer::Second },
        margin: None,
        votes: Vec::new(),
        source: None,
        safe_first: None,
        safe_second: None,
        meta: Default::default(),
        extra: Default::default(),
    }
}

/// A listener that lets training go on.
pub fn quiet() -> impl FnMut(&TrainEvent) -> ControlFlow<()> {
    |_| ControlFlow::Continue(())
}
