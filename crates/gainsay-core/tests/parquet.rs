//! Parquet tables: as notebooks write them (`scripts/goldens/parquet.py`), and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use gainsay_core::files::{self, Reader, Record};
use gainsay_core::record::{Message, PreferenceRecord, Prompt, PromptRecord, SelectionRecord};
use serde_json::json;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn message<T: Record>(path: &Path) -> String {
    let error = Reader::<T>::open(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let error = error.err().expect("an error").to_string();
    error.replace(&format!("{}/", path.parent().unwrap().display()), "")
}

fn record(id: usize) -> PromptRecord {
    let row = json!({"id": format!("p{id}"), "prompt": "Why?", "completions": [
        {"text": "So.", "token_ids": [5, 6], "token_logps": [-0.1, -0.2], "mine": null},
        {"text": "", "logp": -1e-300}], "meta": {"a": [1, null]}, "extra": "kept",
        "messages": {"also": "kept"}});
    serde_json::from_value(row).unwrap()
}

#[test]
fn tables_written_by_pandas() {
    let records = files::read_all::<PromptRecord>(golden("pandas.parquet")).unwrap();
    let expected: Vec<PromptRecord> = [
        json!({"id":"p0","prompt":"Why?","completions":[
            {"text":"So.","token_ids":[5,6],"logp":-2.5,"n_tokens":2,"reward":0.5},
            {"text":"No.","logp":-1.25,"gold":1.0}],"tau_b":0.25,"topic":"sky"}),
        json!({"id":"p1","prompt":"How?","topic":"sea"}),
    ]
    .map(|row| serde_json::from_value(row).unwrap())
    .into();
    assert_eq!(records, expected);
}

#[test]
fn preference_rows_written_by_pandas() {
    let records = files::read_preferences(golden("preferences.parquet")).unwrap();
    let user = |text: &str| Prompt::Chat(vec![Message { role: "user".into(), content: text.into() }]);
    assert_eq!((&records[0].prompt, &records[1].prompt), (&user("q"), &user("r")));
    assert_eq!((records[0].first.text.as_str(), records[1].second.text.as_str()), ("a", "d"));
    assert_eq!((records[0].margin, records[1].margin), (Some(0.5), None));
    assert_eq!((records[0].id.as_str(), records[1].id.as_str()), ("row-1", "row-2"));
}

/// Names that the table itself uses, nulls inside unknown fields, and several row groups.
#[test]
fn nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let mut records: Vec<PromptRecord> = (0..2_000).map(record).collect();
    for record in &mut records {
        record.completions[1].text = "long ".repeat(4_000);
    }
    files::write_all(&path, &records).unwrap();
    let first = fs::read(&path).unwrap();
    assert_eq!(files::read_all::<PromptRecord>(&path).unwrap(), records);
    files::write_all(&path, &records).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first, "the same bytes every time");
    let footer = String::from_utf8_lossy(&first[first.len() - 20_000.min(first.len())..]);
    assert!(footer.contains("gainsay.schema"));
}

#[test]
fn tables_that_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let path = folder.path().join("a.parquet");
    files::write_all(&path, &[record(0), record(0)]).unwrap();
    let error = files::read_all::<PromptRecord>(&path).unwrap_err();
    assert_eq!(
        error.fault.to_string(),
        "id `p0` was already used in row 1; ids must be unique in a file: rename or delete one"
    );
    assert_eq!(
        message::<SelectionRecord>(&path),
        "a.parquet, row 1: not a selection record: it looks like a prompt record; name a file of \
         selection records"
    );
    let bytes = fs::read(&path).unwrap();
    let cut = message::<PromptRecord>(&put("cut.parquet", &bytes[..bytes.len() / 2]));
    assert!(cut.starts_with("cut.parquet: the Parquet table cannot be read ("), "{cut}");
    assert!(cut.ends_with("); make it anew, with zstd or snappy compression"), "{cut}");
    let json = message::<PromptRecord>(&put("json.parquet", br#"{"id":"p0","prompt":"Why?"}"#));
    assert!(json.starts_with("json.parquet: the Parquet table cannot be read ("), "{json}");
    // The version stands in the metadata as text.
    let key = b"gainsay.schema";
    let at = bytes.windows(key.len()).rposition(|window| window == key).unwrap() + key.len();
    let digit = at + bytes[at..].iter().position(|&byte| byte == b'1').unwrap();
    let mut newer = bytes.clone();
    newer[digit] = b'7';
    assert_eq!(
        message::<PromptRecord>(&put("new.parquet", &newer)),
        "new.parquet: made by a newer Gainsay (schema 7, this one reads up to 1); update Gainsay"
    );
    files::write_all::<PreferenceRecord>(&path, &[]).unwrap();
    assert_eq!(
        message::<PreferenceRecord>(&path),
        "a.parquet: the file holds no record; check that the step that made it ran to its end, or \
         that this is the right file"
    );
}

/// A table can hold NaN where JSON cannot: refused with the field, not read as absent.
#[test]
fn not_a_number() {
    let path = golden("nan.parquet");
    assert_eq!(
        message::<PromptRecord>(&path),
        "nan.parquet, row 2: completions[1].reward is NaN, which is not a number; find out what \
         made it, then drop the record or leave the field out"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("a.parquet");
    std::os::unix::fs::symlink("/dev/full", &link).unwrap();
    let error = files::write_all(&link, &[record(0)]).unwrap_err().fault.to_string();
    assert_eq!(
        error,
        "no room to write: No space left on device (os error 28); nothing was left behind: free \
         some space and run again"
    );
}
