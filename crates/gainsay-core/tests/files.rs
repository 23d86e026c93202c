//! Record files: what is written is read back; what is broken is refused with a clear message.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use gainsay_core::files::{self, Fault, Reader, Record, Writer};
use gainsay_core::ranking::RankingRecord;
use gainsay_core::record::{PreferenceRecord, PromptRecord, SelectionRecord};
use tempfile::TempDir;

const P0: &str = r#"{"schema":1,"id":"p0","prompt":"Why?","completions":[{"text":"So.","token_ids":[5,6],"logp":-2.5,"n_tokens":2,"token_logps":[-1.25,-1.25],"finish":"stop","reward":0.5,"mine":{"a":[1]}}],"meta":{"topic":"sky"},"note":"kept"}"#;
const P1: &str =
    r#"{"schema":1,"id":"p1","prompt":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}]}"#;

fn put(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The message of the first error, without the folder's name.
fn refusal<T: Record>(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = put(folder, name, bytes);
    message::<T>(&path)
}

fn message<T: Record>(path: &Path) -> String {
    let error = files::read_all::<T>(path).err().expect("an error").to_string();
    error.replace(&format!("{}/", path.parent().unwrap().display()), "")
}

#[test]
fn every_format_gives_back_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let records: Vec<PromptRecord> = [P0, P1].iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    for name in ["a.jsonl", "a.json", "a.jsonl.gz", "new/folder/a.jsonl.zst"] {
        let path = folder.path().join(name);
        files::write_all(&path, &records).unwrap();
        let first = fs::read(&path).unwrap();
        assert_eq!(files::read_all::<PromptRecord>(&path).unwrap(), records, "{name}");
        files::write_all(&path, &records).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first, "{name}: the same bytes every time");
    }
    let plain = fs::read_to_string(folder.path().join("a.jsonl")).unwrap();
    assert_eq!(plain, format!("{P0}\n{P1}\n"));
}

#[test]
fn byte_order_mark_crlf_blank_lines_and_gzip_members() {
    let folder = tempfile::tempdir().unwrap();
    let windows = put(&folder, "w.jsonl", format!("\u{feff}{P0}\r\n\r\n  \n{P1}"));
    let mut reader = Reader::<PromptRecord>::open(&windows).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().id, "p0");
    assert_eq!(reader.next().unwrap().unwrap().id, "p1");
    assert_eq!(reader.at(), files::At::Line(4));
    assert!(reader.next().is_none());
    assert!(reader.next().is_none());
    let members = [gzip(format!("{P0}\n").as_bytes()), gzip(P1.as_bytes())].concat();
    let members = put(&folder, "m.jsonl.gz", members);
    assert_eq!(files::read_all::<PromptRecord>(&members).unwrap().len(), 2);
}

#[test]
fn files_that_are_not_there_or_not_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.jsonl");
    assert_eq!(
        message::<PromptRecord>(&missing),
        "none.jsonl: cannot be opened: No such file or directory (os error 2); check the path"
    );
    let inside = folder.path().join("sub");
    fs::create_dir(&inside).unwrap();
    assert_eq!(
        message::<PromptRecord>(&inside),
        "sub: cannot be opened: is a directory; name a file inside this folder"
    );
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.xlsx", "id,prompt\n"),
        "a.xlsx: files ending in .xlsx are not supported; convert it to JSON lines (pandas: \
         df.to_json(path, orient=\"records\", lines=True)) or to Parquet"
    );
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", gzip(P0.as_bytes())),
        "a.jsonl: this is gzip data, which its name does not say; rename it to end in .gz"
    );
}

#[test]
fn empty_files() {
    let folder = tempfile::tempdir().unwrap();
    let say = "the file holds no record; check that the step that made it ran to its end, or that \
               this is the right file";
    for (name, bytes) in [
        ("a.jsonl", Vec::new()),
        ("b.jsonl", b"\n \n".to_vec()),
        ("c.jsonl.gz", gzip(b"")),
        ("d.jsonl.zst", zstd::encode_all(&b""[..], 1).unwrap()),
    ] {
        assert_eq!(refusal::<PromptRecord>(&folder, name, bytes), format!("{name}: {say}"));
    }
}

#[test]
fn files_that_were_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", format!("{P0}\n{}", &P1[..40])),
        "a.jsonl:2: the file looks cut off here: the last line is incomplete (40 bytes, no \
         newline); copy or make the file anew, or delete this line"
    );
    // At every byte: either a clear message or, where only the newline is gone, the whole record.
    for cut in 1..P0.len() {
        let text = refusal::<PromptRecord>(&folder, "b.jsonl", &P0.as_bytes()[..cut]);
        assert!(text.starts_with("b.jsonl:1: the file looks cut off here"), "{cut}: {text}");
    }
    let long = format!("{P0}\n").repeat(200);
    let packed = gzip(long.as_bytes());
    let early = "the compressed data ends too early: the file looks cut off; copy or make it anew";
    for cut in [packed.len() / 2, packed.len() - 4] {
        let path = put(&folder, "c.jsonl.gz", &packed[..cut]);
        let error = Reader::<PromptRecord>::open(&path).unwrap().find_map(Result::err).unwrap();
        assert_eq!(error.fault.to_string(), early);
    }
    let packed = zstd::encode_all(long.as_bytes(), 1).unwrap();
    let path = put(&folder, "d.jsonl.zst", &packed[..packed.len() / 2]);
    let error = Reader::<PromptRecord>::open(&path).unwrap().find_map(Result::err).unwrap();
    assert_eq!(error.fault.to_string(), early);
}

#[test]
fn damaged_compressed_data() {
    let folder = tempfile::tempdir().unwrap();
    let mut packed = gzip(format!("{P0}\n").repeat(50).as_bytes());
    let middle = packed.len() / 2;
    packed[middle] ^= 0xff;
    let path = put(&folder, "a.jsonl.gz", &packed);
    let error = Reader::<PromptRecord>::open(&path).unwrap().find_map(Result::err).unwrap();
    assert!(matches!(error.fault, Fault::Damaged { .. } | Fault::Json { .. } | Fault::NotUtf8), "{error}");
    assert_eq!(
        refusal::<PromptRecord>(&folder, "b.jsonl.gz", P0),
        "b.jsonl.gz:1: the compressed data is damaged (invalid gzip header); copy or make the \
         file anew"
    );
}

#[test]
fn lines_that_are_not_json() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", format!("{P0}\nprompt: why\n")),
        "a.jsonl:2: not valid JSON: expected value (column 1); correct or delete the line"
    );
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", b"{\"id\":\"\xff\",\"prompt\":\"x\"}\n"),
        "a.jsonl:1: the line is not UTF-8 text; convert the file with `iconv -f ENCODING -t UTF-8`, ENCODING being \
         what it was written in, often LATIN1 or WINDOWS-1252"
    );
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", b"\xff\xfe{\x00"),
        "a.jsonl: the text is UTF-16, not UTF-8; convert it: `iconv -f UTF-16 -t UTF-8 FILE > NEW`"
    );
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", format!("{}\n", &P0[..30])),
        "a.jsonl:1: the JSON does not end on this line; records stand one a line: convert with \
         `jq -c . FILE > FILE.jsonl`"
    );
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.json", format!("{P0}\n[3]\n")),
        "a.json:2: not a prompt record: found [3], expected an object"
    );
}

#[test]
fn not_a_number() {
    let folder = tempfile::tempdir().unwrap();
    for (literal, put) in [("NaN", "NaN"), ("-Infinity", "-Infinity"), ("Infinity", "Infinity")] {
        let row = P0.replace("-2.5", put);
        assert_eq!(
            refusal::<PromptRecord>(&folder, "a.jsonl", format!("{P1}\n{row}\n")),
            format!(
                "a.jsonl:2: completions[0].logp is {literal}, which is not a number; find out \
                 what made it, then drop the record or leave the field out"
            )
        );
    }
    let row = P0.replace("[-1.25,-1.25]", "[-1.25, null]");
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", row),
        "a.jsonl:1: not a prompt record: completions[0].token_logps[1]: invalid type: null, \
         expected f32"
    );
    let row = P0.replace("-2.5", "-1e999");
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", row),
        "a.jsonl:1: not valid JSON: number out of range (column 98); correct or delete the line"
    );
}

#[test]
fn schemas() {
    let folder = tempfile::tempdir().unwrap();
    let with = |schema: &str| P1.replace("\"schema\":1", &format!("\"schema\":{schema}"));
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", with("2")),
        "a.jsonl:1: made by a newer Gainsay (schema 2, this one reads up to 1); update Gainsay"
    );
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", with("99999999999")),
        "a.jsonl:1: made by a newer Gainsay (schema 99999999999, this one reads up to 1); update \
         Gainsay"
    );
    for found in ["\"1\"", "null", "1.5", "-1"] {
        assert_eq!(
            refusal::<PromptRecord>(&folder, "a.jsonl", with(found)),
            format!("a.jsonl:1: `schema` is {found}, not a version number; write \"schema\":1")
        );
    }
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", with("0")),
        "a.jsonl:1: schema is 0: versions start at 1; write \"schema\":1"
    );
    let none = put(&folder, "b.jsonl", P1.replace("\"schema\":1,", ""));
    assert_eq!(files::read_all::<PromptRecord>(&none).unwrap()[0].schema, 1);
}

#[test]
fn ids_that_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let twice = format!("{P0}\n\n{P1}\n{P0}\n");
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", &twice),
        "a.jsonl:4: id `p0` was already used in line 1; ids must be unique in a file: rename or \
         delete one"
    );
    let path = put(&folder, "a.jsonl", &twice);
    assert_eq!(Reader::<PromptRecord>::open(&path).unwrap().filter_map(Result::ok).count(), 3);
}

#[test]
fn values_that_contradict_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (
            "[5,6]",
            "[5]",
            "completions[0]: token_logps has 2 entries but token_ids has 1 entries: they must agree; sample or score the completion anew",
        ),
        (
            "\"n_tokens\":2",
            "\"n_tokens\":3",
            "completions[0]: n_tokens is 3 but token_ids has 2 entries: they must agree; sample or score the completion anew",
        ),
        (
            "-2.5",
            "0.25",
            "completions[0]: logp is 0.25: a log-prob is at most 0; store the natural log of the probability",
        ),
        ("[-1.25,-1.25]", "[-1.25,0.5]", "completions[0]: token_logps[1] is 0.5: a log-prob is finite and at most 0"),
        ("\"Why?\"", "\"\"", "prompt is empty: give it text, or delete the record"),
        ("\"Why?\"", "[]", "prompt has no turns: give it one, or delete the record"),
        (
            "\"Why?\"",
            "[{\"role\":\"human\",\"content\":\"x\"}]",
            "prompt[0].role is `human`: it must be system, user or assistant",
        ),
        ("\"p0\"", "\"\"", "id is empty: give every record an id of its own"),
        ("\"meta\"", "\"tau_b\":1.5,\"meta\"", "tau_b is 1.5: it must lie between -1 and 1"),
    ];
    for (from, to, what) in cases {
        let row = P0.replacen(from, to, 1);
        assert_eq!(refusal::<PromptRecord>(&folder, "a.jsonl", row), format!("a.jsonl:1: {what}"));
    }
}

#[test]
fn turns_with_more_than_role_and_content() {
    let folder = tempfile::tempdir().unwrap();
    let with = |more: &str| P1.replace("\"Hi\"}", &format!("\"Hi\",{more}}}"));
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", with(r#""tool_calls":[{"id":1}]"#)),
        "a.jsonl:1: not a prompt record: prompt[1]: a turn has a role and a content only: remove \
         `tool_calls`"
    );
    let empty = put(&folder, "b.jsonl", with(r#""name":null"#));
    let plain = put(&folder, "c.jsonl", P1);
    assert_eq!(files::read_all::<PromptRecord>(&empty).unwrap(), files::read_all::<PromptRecord>(&plain).unwrap());
}

#[test]
fn records_of_another_kind() {
    let folder = tempfile::tempdir().unwrap();
    let selection = r#"{"schema":1,"id":"p/0-1","prompt_id":"p","prompt":"q","first":{"index":0,"text":"a"},"second":{"index":1,"text":"b"},"strategy":"random","rank":0,"why":{"k":0.5,"pacs_first":1.0,"pacs_second":-1.0},"flags":[]}"#;
    let preference = r#"{"schema":1,"id":"p/0-1","prompt":"q","first":{"text":"a"},"second":{"text":"b"},"p_first":1.0,"answer":"first"}"#;
    let read = put(&folder, "s.jsonl", selection);
    assert_eq!(files::read_all::<SelectionRecord>(&read).unwrap()[0].id, "p/0-1");
    let read = put(&folder, "p.jsonl", preference);
    assert_eq!(files::read_all::<PreferenceRecord>(&read).unwrap()[0].p_first, Some(1.0));
    assert_eq!(
        refusal::<PromptRecord>(&folder, "a.jsonl", selection),
        "a.jsonl:1: not a prompt record: it looks like a selection record; name a file of prompt \
         records"
    );
    assert_eq!(
        refusal::<PreferenceRecord>(&folder, "a.jsonl", selection),
        "a.jsonl:1: not a preference record: it looks like a selection record; name a file of \
         preference records"
    );
    assert_eq!(
        refusal::<SelectionRecord>(&folder, "a.jsonl", P0),
        "a.jsonl:1: not a selection record: it looks like a prompt record; name a file of \
         selection records"
    );
    assert_eq!(
        refusal::<SelectionRecord>(&folder, "a.jsonl", selection.replace(":1,\"text\"", ":0,\"text\"")),
        "a.jsonl:1: first and second are both completion 0: a comparison needs two"
    );
    assert_eq!(
        refusal::<PreferenceRecord>(
            &folder,
            "a.jsonl",
            preference.replace("\"answer\":\"first\"", "\"answer\":\"skip\"")
        ),
        "a.jsonl:1: answer is skip, but p_first is 1: first needs p_first >= 0.5, second <= 0.5, \
         a tie any; both_bad and skip have none"
    );
    assert_eq!(
        refusal::<PreferenceRecord>(&folder, "a.jsonl", preference.replace("1.0", "1.5")),
        "a.jsonl:1: p_first is 1.5: it must lie between 0 and 1"
    );
    assert_eq!(
        refusal::<PreferenceRecord>(&folder, "a.jsonl", preference.replace("first\"}", "left\"}")),
        "a.jsonl:1: not a preference record: answer: unknown variant `left`, expected one of \
         `first`, `second`, `tie`, `both_bad`, `skip`"
    );
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(&folder, "a.jsonl", "old\n");
    let record: PromptRecord = serde_json::from_str(P0).unwrap();
    let mut writer = Writer::create(&path).unwrap();
    for _ in 0..10_000 {
        writer.write(&record).unwrap();
    }
    assert_eq!(names(&folder), [".a.jsonl.partial", "a.jsonl"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old\n");
    assert_eq!(
        Writer::<PromptRecord>::create(&path).err().unwrap().fault.to_string(),
        "another run is writing this file; wait for it or choose another name"
    );
    drop(writer);
    assert_eq!(names(&folder), ["a.jsonl"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old\n");
    // A killed run's left-over is replaced.
    put(&folder, ".a.jsonl.partial", "half a li");
    files::write_all(&path, &[record]).unwrap();
    assert_eq!(names(&folder), ["a.jsonl"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{P0}\n"));
}

#[test]
fn a_writer_refuses_what_it_could_not_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut record: PromptRecord = serde_json::from_str(P0).unwrap();
    record.completions[0].reward = Some(f64::NAN);
    let path = folder.path().join("a.jsonl");
    let error = files::write_all(&path, &[record]).unwrap_err();
    assert_eq!(
        error.fault.to_string(),
        "completions[0]: reward is NaN: it must be a finite number; drop the record or leave the \
         field out"
    );
    assert!(names(&folder).is_empty());
}

#[cfg(unix)]
#[test]
fn places_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder, "file", "x");
    let record: PromptRecord = serde_json::from_str(P0).unwrap();
    let under_a_file = folder.path().join("file/a.jsonl");
    let error = files::write_all(&under_a_file, std::slice::from_ref(&record)).unwrap_err();
    assert!(
        error.fault.to_string().ends_with("a part of the path is a file, not a folder: choose another path"),
        "{error}"
    );
    let error = files::write_all(folder.path(), std::slice::from_ref(&record)).unwrap_err();
    assert_eq!(error.fault.to_string(), "cannot be written: is a directory; this is a folder: name a file");
    assert_eq!(names(&folder), ["file"]);
}

/// `/dev/full` takes the open and refuses every byte, as a full disk does.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let record: PromptRecord = serde_json::from_str(P0).unwrap();
    let error = files::write_all("/dev/full", std::slice::from_ref(&record)).unwrap_err();
    let say = "/dev/full: no room to write: No space left on device (os error 28); nothing was \
               left behind: free some space and run again";
    assert_eq!(error.to_string(), say);
    assert_eq!(files::write_atomic("/dev/full", b"bytes").unwrap_err().to_string(), say);
}

/// Links stay links, and devices stay devices.
#[cfg(unix)]
#[test]
fn links_and_devices() {
    let folder = tempfile::tempdir().unwrap();
    let real = put(&folder, "real.jsonl", "old");
    let link = folder.path().join("link.jsonl");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    files::write_atomic(&link, b"new").unwrap();
    assert_eq!(fs::read_to_string(&real).unwrap(), "new");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    files::write_atomic("/dev/null", b"gone").unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

const RANKING: &str = r#"{"schema":1,"id":"r0","prompt":"Why?","completions":[{"text":"So."},{"text":"Because.","mine":1},{"text":"No."}],"ranking":[[1],[0,2]],"source":"web","note":"kept"}"#;

#[test]
fn rankings_are_files_like_all_others() {
    let folder = tempfile::tempdir().unwrap();
    let record: RankingRecord = serde_json::from_str(RANKING).unwrap();
    for name in ["r.jsonl", "r.jsonl.gz", "r.parquet"] {
        let path = folder.path().join(name);
        files::write_all(&path, std::slice::from_ref(&record)).unwrap();
        assert_eq!(files::read_all::<RankingRecord>(&path).unwrap(), std::slice::from_ref(&record), "{name}");
    }
    // As prompts they are rollouts; what is unknown there is kept.
    let prompts = files::read_all::<PromptRecord>(folder.path().join("r.jsonl")).unwrap();
    assert_eq!((prompts[0].completions.len(), prompts[0].extra.contains_key("ranking")), (3, true));
    let bare =
        put(&folder, "bare.jsonl", r#"{"prompt":"q","completions":[{"text":"a"},{"text":"b"}],"ranking":[1,0]}"#);
    assert_eq!(files::read_all::<RankingRecord>(&bare).unwrap()[0].id, "row-1");
    assert_eq!(files::read_all::<PromptRecord>(&bare).unwrap()[0].id, "row-1");
}

#[test]
fn what_is_no_ranking_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let with = |ranking: &str| {
        let row = RANKING.replace("\"r0\"", "\"r1\"").replace("[[1],[0,2]]", ranking);
        refusal::<RankingRecord>(&folder, "r.jsonl", format!("{RANKING}\n{row}\n"))
    };
    for (ranking, words) in [
        ("[[1],[3]]", "ranking names completion 3, and there are 3"),
        ("[[1],[0,1]]", "ranking names completion 1 twice"),
        ("[[1],[]]", "ranking[1] is empty"),
        ("[[1]]", "fewer than 2 completions"),
        ("[\"1\"]", "ranking"),
        ("[-1,0]", "a list of places"),
        ("7", "ranking"),
    ] {
        let message = with(ranking);
        assert!(message.starts_with("r.jsonl:2") && message.contains(words), "{message}");
    }
    let pair = refusal::<RankingRecord>(&folder, "p.jsonl", r#"{"prompt":"q","chosen":"a","rejected":"b"}"#);
    assert!(pair.contains("looks like a preference record"), "{pair}");
    let other = refusal::<PreferenceRecord>(&folder, "r.jsonl", RANKING);
    assert!(other.contains("looks like a ranking record"), "{other}");
}
