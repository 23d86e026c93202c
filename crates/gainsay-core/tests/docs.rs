//! The examples of `docs/files.md` are read as what they say they are.

use std::fs;
use std::path::Path;

use gainsay_core::files::{self, Record};
use gainsay_core::ranking::RankingRecord;
use gainsay_core::record::{PreferenceRecord, PromptRecord, SelectionRecord};
use serde_json::Value;

/// Blocks of the page in order, as their language line and their text.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).collect()
}

fn count<T: Record>(text: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example.jsonl");
    // An example that is laid out over several lines is one line in a file.
    let line = serde_json::from_str::<Value>(text).map(|value| value.to_string());
    fs::write(&path, line.unwrap_or_else(|_| text.to_string())).unwrap();
    files::read_all::<T>(&path).unwrap_or_else(|error| panic!("{error}\n{text}")).len()
}

/// Kinds of blocks and how many records each holds.
fn read(page: &str) -> Vec<(String, usize)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let page = fs::read_to_string(page).unwrap();
    let count = |(kind, text): (&str, &str)| {
        let records = match kind {
            "json prompt" => count::<PromptRecord>(text),
            "json selection" => count::<SelectionRecord>(text),
            "json preference" => count::<PreferenceRecord>(text),
            "json ranking" => count::<RankingRecord>(text),
            other => panic!("a block of `{other}`"),
        };
        (kind.to_string(), records)
    };
    blocks(&page).into_iter().map(count).collect()
}

fn of(read: &[(String, usize)], kind: &str) -> usize {
    read.iter().filter(|(found, _)| found == kind).map(|(_, records)| records).sum()
}

#[test]
fn every_example_is_read() {
    let files = read("files.md");
    assert_eq!((of(&files, "json prompt"), of(&files, "json preference")), (7, 8));
    assert_eq!(of(&files, "json ranking"), 2);
    // Three blocks of rows that are gathered by prompt, and RewardBench 2's.
    let data = read("data.md");
    assert_eq!((of(&data, "json prompt"), of(&data, "json preference")), (4, 4));
}
