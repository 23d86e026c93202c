//! The data sets and logs of other projects, written after their documentation, and what is wrong
//! with malformed ones, by file and line.

use std::fs;
use std::path::{Path, PathBuf};

use gainsay_core::files::{self, Reader, Record, first_row};
use gainsay_core::import::pairs::prefer_safer;
use gainsay_core::import::{ColumnMap, DataFormat};
use gainsay_core::record::{Answer, Message, PreferenceRecord, Prompt, PromptRecord, SelectionRecord};
use serde_json::{Value, json};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn put(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn read<T: Record>(name: &str, text: &str) -> Result<Vec<T>, String> {
    let folder = folder();
    let path = put(&folder, name, text);
    files::read_all(path).map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

fn pairs(rows: &[Value]) -> Result<Vec<PreferenceRecord>, String> {
    read("a.jsonl", &lines(rows))
}

fn prompts(rows: &[Value]) -> Result<Vec<PromptRecord>, String> {
    read("a.jsonl", &lines(rows))
}

/// The message for a good row followed by a bad one: it must name line 2.
fn refused<T: Record + std::fmt::Debug>(good: &Value, bad: Value) -> String {
    let said = read::<T>("a.jsonl", &lines(&[good.clone(), bad])).unwrap_err();
    let head = format!("a.jsonl:2: not a {} record: ", T::KIND.name());
    said.strip_prefix(&head).unwrap_or_else(|| panic!("{said}")).to_string()
}

fn with(row: &Value, name: &str, value: Value) -> Value {
    let mut row = row.clone();
    row[name] = value;
    row
}

fn format_of(row: &Value) -> DataFormat {
    DataFormat::of(row.as_object().unwrap()).unwrap().0
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn turn(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}

fn pku() -> Value {
    let harm = json!({"Violence": true, "Privacy Violation": false});
    json!({"prompt":"How do I pick a lock?","response_0":"Like this.","response_1":"I would rather not.",
        "prompt_source":"x","response_0_source":"Alpaca-7B","response_1_source":"Alpaca2-7B",
        "is_response_0_safe":false,"is_response_1_safe":true,"response_0_harm_category":harm,
        "response_1_harm_category":{"Violence":false},"response_0_severity_level":2,"response_1_severity_level":0,
        "better_response_id":0,"safer_response_id":1,"response_0_sha256":"ab","response_1_sha256":"cd"})
}

#[test]
fn pku_saferlhf_keeps_answers_and_safety_signs_apart() {
    assert_eq!(format_of(&pku()), DataFormat::PkuSafeRlhf);
    let second = with(&pku(), "better_response_id", json!(1));
    let records = pairs(&[pku(), second]).unwrap();
    let first = &records[0];
    assert_eq!((first.first.text.as_str(), first.second.text.as_str()), ("Like this.", "I would rather not."));
    assert_eq!((first.p_first, first.answer), (Some(1.0), Answer::First));
    assert_eq!((first.safe_first, first.safe_second), (Some(false), Some(true)));
    assert_eq!(first.first.extra["severity_level"], json!(2));
    assert_eq!(first.first.extra["harm_category"]["Violence"], json!(true));
    assert_eq!(first.second.extra["sha256"], json!("cd"));
    assert_eq!(first.extra, *json!({"prompt_source":"x","safer_response_id":1}).as_object().unwrap());
    assert_eq!((records[1].p_first, records[1].answer), (Some(0.0), Answer::Second));
    // A cost model learns which answer is the safer one, whichever helps more.
    let mut safer = records.clone();
    safer.iter_mut().for_each(prefer_safer);
    assert!(safer.iter().all(|record| (record.p_first, record.answer) == (Some(0.0), Answer::Second)));
    let mut silent = pairs(&[json!({"prompt":"q","chosen":"a","rejected":"b"})]).unwrap().remove(0);
    let before = silent.clone();
    prefer_safer(&mut silent);
    assert_eq!(silent, before);
}

#[test]
fn pku_saferlhf_malformed() {
    let bad = |name: &str, value: Value| refused::<PreferenceRecord>(&pku(), with(&pku(), name, value));
    assert_eq!(bad("better_response_id", json!(2)), "better_response_id is 2, expected 0 or 1");
    assert_eq!(bad("safer_response_id", json!(-1)), "safer_response_id is -1, expected 0 or 1");
    assert_eq!(bad("is_response_1_safe", json!("yes")), "is_response_1_safe is \"yes\", expected true or false");
    assert_eq!(bad("response_0", json!(["a"])), "response_0 is [\"a\"], expected text");
    let mut missing = pku();
    missing.as_object_mut().unwrap().remove("better_response_id");
    assert_eq!(refused::<PreferenceRecord>(&pku(), missing), "better_response_id is missing, expected 0 or 1");
}

fn helpsteer_preference() -> Value {
    json!({"split":"train","prompt":"c?","response_1":"a","response_2":"b","preference_strength":-2,
        "preference_statement":"@Response 1 is better","preference_elaboration":"…",
        "three_most_similar_preferences":[{"statement":"s","strength":-2}],
        "all_preferences_unprocessed":[{"statement":"s","strength":-100}]})
}

#[test]
fn helpsteer2_preference_negative_means_response_1() {
    assert_eq!(format_of(&helpsteer_preference()), DataFormat::HelpSteer2Preference);
    let strengths = [-3, -1, 0, 1, 3, -100];
    let rows: Vec<Value> =
        strengths.iter().map(|s| with(&helpsteer_preference(), "preference_strength", json!(s))).collect();
    let records = pairs(&rows).unwrap();
    let p: Vec<Option<f64>> = records.iter().map(|record| record.p_first).collect();
    assert_eq!(p, [Some(1.0), Some(1.0), Some(0.5), Some(0.0), Some(0.0), None]);
    let answers: Vec<Answer> = records.iter().map(|record| record.answer).collect();
    use Answer::{BothBad, First, Second, Tie};
    assert_eq!(answers, [First, First, Tie, Second, Second, BothBad]);
    assert_eq!(records[0].extra["preference_strength"], json!(-3));
    let bad = |value: Value| {
        let row = with(&helpsteer_preference(), "preference_strength", value);
        refused::<PreferenceRecord>(&helpsteer_preference(), row)
    };
    let say = "it must be a whole number from -3 (response_1 is much better) to 3";
    assert_eq!(bad(json!(4)), format!("preference_strength is 4: {say}"));
    assert_eq!(bad(json!(0.5)), format!("preference_strength is 0.5: {say}"));
    assert_eq!(bad(json!("a")), format!("preference_strength is \"a\": {say}"));
}

fn helpsteer(response: &str, helpfulness: i64) -> Value {
    json!({"prompt":"c?\n<extra_id_1>Assistant\nC.\n<extra_id_1>User\nmore?","response":response,
        "helpfulness":helpfulness,"correctness":3,"coherence":4,"complexity":1,"verbosity":2})
}

#[test]
fn helpsteer2_ratings_are_gathered_by_prompt() {
    let other = json!({"prompt":"d?","response":"z","helpfulness":0,"correctness":0,"coherence":1,
        "complexity":1,"verbosity":1});
    let rows = [helpsteer("a", 3), helpsteer("b", 4), other.clone(), with(&other, "response", json!("y"))];
    assert_eq!(format_of(&rows[0]), DataFormat::HelpSteer2);
    let records = prompts(&rows).unwrap();
    assert_eq!(records.len(), 2);
    let turns = vec![turn("user", "c?"), turn("assistant", "C."), turn("user", "more?")];
    assert_eq!(records[0].prompt, Prompt::Chat(turns));
    let golds: Vec<Option<f64>> = records[0].completions.iter().map(|c| c.gold).collect();
    assert_eq!(golds, [Some(3.0), Some(4.0)]);
    assert_eq!(records[0].completions[0].extra["verbosity"], json!(2));
    // As pairs: the higher helpfulness is better, equal ones are ties.
    let pairs = pairs(&rows).unwrap();
    assert_eq!(pairs[0].id, "p0/0-1");
    assert_eq!((pairs[0].p_first, pairs[0].answer), (Some(0.0), Answer::Second));
    assert_eq!((pairs[1].p_first, pairs[1].answer), (Some(0.5), Answer::Tie));
    let bad = with(&helpsteer("b", 1), "helpfulness", json!("good"));
    assert_eq!(refused::<PromptRecord>(&helpsteer("a", 3), bad), "helpfulness is \"good\", expected a finite number");
}

fn ultrafeedback() -> Value {
    let side = |text: &str| json!([{"role":"user","content":"q"},{"role":"assistant","content":text}]);
    json!({"prompt":"q","prompt_id":"ab12","chosen":side("a"),"rejected":side("b"),"messages":side("a"),
        "score_chosen":8.5,"score_rejected":6.0})
}

#[test]
fn ultrafeedback_binarized() {
    assert_eq!(format_of(&ultrafeedback()), DataFormat::UltraFeedback);
    // A prompt stands in several rows, with one prompt_id.
    let records = pairs(&[ultrafeedback(), ultrafeedback()]).unwrap();
    assert_eq!((records[0].id.as_str(), records[1].id.as_str()), ("ab12/1", "ab12/2"));
    assert_eq!((records[0].first.text.as_str(), records[0].second.text.as_str()), ("a", "b"));
    assert_eq!(records[0].prompt, Prompt::Text("q".into()));
    assert_eq!((&records[0].first.extra["score"], &records[0].second.extra["score"]), (&json!(8.5), &json!(6.0)));
    let bad =
        |name: &str, value: Value| refused::<PreferenceRecord>(&ultrafeedback(), with(&ultrafeedback(), name, value));
    assert_eq!(
        bad("score_rejected", json!(9)),
        "score_chosen is 8.5 and score_rejected 9: the chosen answer must not be rated lower"
    );
    assert_eq!(bad("score_chosen", Value::Null), "score_chosen is missing, expected a number");
    assert_eq!(bad("prompt_id", json!(3)), "prompt_id is 3, expected text");
    assert_eq!(
        bad("rejected", json!([{"role":"user","content":"q"}])),
        "rejected does not go on after the prompt with a turn of the assistant"
    );
}

#[test]
fn rewardbench() {
    let row = json!({"prompt":"q","chosen":"a","chosen_model":"m","rejected":"b","rejected_model":"n",
        "subset":"donotanswer","id":17});
    assert_eq!(format_of(&row), DataFormat::RewardBench);
    // Ids count within a subset.
    let other = with(&row, "subset", json!("hep-go"));
    let records = pairs(&[row.clone(), other]).unwrap();
    assert_eq!((records[0].id.as_str(), records[1].id.as_str()), ("donotanswer/17", "hep-go/17"));
    assert_eq!(records[0].meta["subset"], json!("donotanswer"));
    assert_eq!(records[0].second.extra["model"], json!("n"));
    let candidates = prompts(std::slice::from_ref(&row)).unwrap();
    let golds: Vec<Option<f64>> = candidates[0].completions.iter().map(|c| c.gold).collect();
    assert_eq!(golds, [Some(1.0), Some(0.0)]);
    let bad = |name: &str, value: Value| refused::<PreferenceRecord>(&row, with(&row, name, value));
    assert_eq!(bad("subset", json!(3)), "subset is 3, expected text");
    assert_eq!(bad("chosen", json!(3)), "chosen is 3, expected text or a list of turns");
}

fn rewardbench2() -> Value {
    json!({"id":"7","prompt":"q","chosen":["a"],"rejected":["b","c","d"],"num_correct":1,"num_incorrect":3,
        "total_completions":4,"models":["m","n","o","p"],"subset":"Focus","additional_metadata":null})
}

#[test]
fn rewardbench_2() {
    assert_eq!(format_of(&rewardbench2()), DataFormat::RewardBench2);
    let record = prompts(&[rewardbench2()]).unwrap().remove(0);
    assert_eq!((record.id.as_str(), &record.meta["subset"]), ("Focus/7", &json!("Focus")));
    let golds: Vec<Option<f64>> = record.completions.iter().map(|c| c.gold).collect();
    assert_eq!(golds, [Some(1.0), Some(0.0), Some(0.0), Some(0.0)]);
    let bad = |name: &str, value: Value| refused::<PromptRecord>(&rewardbench2(), with(&rewardbench2(), name, value));
    assert_eq!(bad("num_correct", json!(2)), "num_correct is 2, but there are 1 chosen answers");
    assert_eq!(bad("total_completions", json!(5)), "total_completions is 5, but there are 4 answers");
    assert_eq!(bad("rejected", json!([])), "rejected is [], expected a list of at least one answer");
    assert_eq!(bad("chosen", json!([3])), "chosen is 3, expected text or a list of turns");
    assert_eq!(bad("id", json!(7)), "id is 7, expected text");
}

#[test]
fn openrlhf_rows() {
    // Preferences: whole conversations, or a prompt with strings (--data.prompt_key).
    let side = |text: &str| json!([{"role":"user","content":"q"},{"role":"assistant","content":text}]);
    let rows = [
        json!({"chosen":side("a"),"rejected":side("b"),"margin":1.5}),
        json!({"prompt":"q","chosen":"a","rejected":"b"}),
    ];
    let records = pairs(&rows).unwrap();
    assert_eq!((records[0].margin, records[0].first.text.as_str()), (Some(1.5), "a"));
    // Prompts, under two names.
    let asked =
        prompts(&[json!({"input":"q","label":"4"}), json!({"context_messages":[{"role":"user","content":"r"}]})]);
    let asked = asked.unwrap();
    assert_eq!((&asked[0].prompt, &asked[0].extra["label"]), (&Prompt::Text("q".into()), &json!("4")));
    assert_eq!(asked[1].prompt, Prompt::Chat(vec![turn("user", "r")]));
    // Rollouts of its batch inference.
    let row = |output: &str, reward: f64| json!({"input":"q","output":output,"reward":reward});
    let rolled = prompts(&[row("a", 0.5), row("b", -0.5)]).unwrap();
    assert_eq!(rolled.len(), 1);
    assert_eq!(rolled[0].completions[1].reward, Some(-0.5));
    let bad = json!({"input":"q","output":"a","reward":[1.0]});
    assert_eq!(refused::<PromptRecord>(&row("a", 0.5), bad), "reward is [1.0], expected a finite number");
}

#[test]
fn verl_rollouts_are_gathered_by_prompt_and_step() {
    let row = |input: &str, output: &str, step: i64, score: f64| json!({"input":input,"output":output,"gts":"42","score":score,"step":step,"acc":true});
    // The batch is balanced over workers: rows of one prompt do not stand together.
    let rows = [row("q", "a", 1, 0.5), row("r", "b", 1, 1.0), row("q", "c", 1, -0.5), row("q", "d", 2, 0.0)];
    assert_eq!(format_of(&rows[0]), DataFormat::VerlRollouts);
    let records = prompts(&rows).unwrap();
    let texts: Vec<Vec<&str>> =
        records.iter().map(|r| r.completions.iter().map(|c| c.text.as_str()).collect()).collect();
    assert_eq!(texts, [vec!["a", "c"], vec!["b"], vec!["d"]]);
    assert_eq!((&records[0].meta["step"], &records[2].meta["step"]), (&json!(1), &json!(2)));
    assert_eq!(records[0].completions[0].extra, *json!({"gts":"42","acc":true}).as_object().unwrap());
    let mut cut = row("q", "e", 1, 0.5);
    cut.as_object_mut().unwrap().remove("output");
    assert_eq!(refused::<PromptRecord>(&rows[0], cut), "output is missing");
    let text = format!("{}\n{}", rows[0], "{\"input\":\"q\",\"out");
    let said = read::<PromptRecord>("a.jsonl", &text).unwrap_err();
    assert!(said.starts_with("a.jsonl:2: the file looks cut off here"), "{said}");
}

/// The records of a table that TRL's GRPOTrainer logged (scripts/goldens/formats.py).
fn is_the_logged_table(records: &[PromptRecord]) {
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].prompt, Prompt::Chat(vec![turn("user", "Sky?")]));
    let values: Vec<(&str, Option<f64>)> =
        records.iter().flat_map(|r| &r.completions).map(|c| (c.text.as_str(), c.reward)).collect();
    assert_eq!(values, [("Blue.", Some(0.5)), ("Green.", Some(-1.5)), ("Wet.", Some(2.0)), ("Dry.", Some(0.25))]);
    assert_eq!(records[0].meta["reward_columns"], json!(["reward_model"]));
    assert_eq!(records[0].completions[0].extra["advantage"], json!(1.0));
}

#[test]
fn trl_completions_from_parquet_and_arrow() {
    for name in
        ["trl-completions.parquet", "completions-lz4.feather", "completions-zstd.feather", "completions-stream.arrow"]
    {
        let row = first_row(golden(name)).unwrap().unwrap();
        assert_eq!(DataFormat::of(&row).unwrap().0, DataFormat::TrlCompletions, "{name}");
        is_the_logged_table(&files::read_all(golden(name)).unwrap());
    }
}

#[test]
fn trl_rewards_and_log_probs() {
    let row = |completion: &str, more: Value| {
        let mut row = json!({"step":1,"prompt":"q","completion":completion,"advantage":0.0});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    // Several reward functions: their sum, as with TRL's weights of 1; a null counts as not given.
    let rows = [
        row("a", json!({"format_reward":1.0,"length_reward":0.25,"logp":[-0.5,-1.0],"words":3})),
        row("b", json!({"format_reward":null,"length_reward":0.5,"logp":-2.0,"words":4})),
    ];
    let record = prompts(&rows).unwrap().remove(0);
    let rewards: Vec<Option<f64>> = record.completions.iter().map(|c| c.reward).collect();
    assert_eq!(rewards, [Some(1.25), Some(0.5)]);
    assert_eq!(record.meta["reward_columns"], json!(["format_reward", "length_reward"]));
    assert_eq!((record.completions[0].logp, record.completions[0].n_tokens), (Some(-1.5), Some(2)));
    assert_eq!(record.completions[0].token_logps, Some(vec![-0.5, -1.0]));
    assert_eq!((record.completions[1].logp, record.completions[1].n_tokens), (Some(-2.0), None));
    let good = row("a", json!({"r":1.0,"logp":-1.0}));
    let bad = |logp: Value| refused::<PromptRecord>(&good, row("b", json!({"r":1.0,"logp":logp})));
    assert!(bad(json!(0.5)).starts_with("logp is 0.5, above 0: the column must hold log-probs"));
    assert_eq!(bad(json!([-0.5, null])), "logp[1] is missing");
    assert_eq!(bad(json!("x")), "logp is \"x\", expected a finite number");
    // Without gold they are no preferences.
    assert_eq!(
        read::<PreferenceRecord>("a.jsonl", &lines(&[good.clone(), good])).unwrap_err(),
        "a.jsonl:1: not a preference record: the completions have no gold labels to compare them by"
    );
}

#[test]
fn labeled_answers_are_pairs_where_preferences_are_asked_for() {
    let answer = |text: &str, gold: Value| json!({"text":text,"gold":gold});
    let pool =
        json!({"prompt":"q","responses":[answer("a", json!(0.9)), answer("b", json!(0.1)), answer("c", json!(0.1))]});
    // One that cannot be compared with another gives no pair, and stops nothing.
    let lone = json!({"prompt":"r","responses":[answer("a", json!(0.9)), {"text":"b"}]});
    let own = json!({"id":"mine","prompt":"s","completions":[answer("a", json!(-3.0)), answer("b", json!(2.5)), {"text":"c"}]});
    let read = pairs(&[pool.clone(), lone.clone(), own]).unwrap();
    let told: Vec<(&str, &str, &str, Option<f64>)> =
        read.iter().map(|r| (r.id.as_str(), r.first.text.as_str(), r.second.text.as_str(), r.p_first)).collect();
    let expected = [
        ("row-1/0-1", "a", "b", Some(1.0)),
        ("row-1/0-2", "a", "c", Some(1.0)),
        ("row-1/1-2", "b", "c", Some(0.5)),
        ("mine/0-1", "a", "b", Some(0.0)),
    ];
    assert_eq!(told, expected);
    // What is wrong is told by the row's line, and a file without any pair is none.
    let wrong = json!({"prompt":"q","responses":[answer("a", json!(1.5))]});
    assert_eq!(
        pairs(&[pool.clone(), wrong]).unwrap_err(),
        "a.jsonl:2: not a preference record: responses[0]: gold is 1.5: in a pool it must lie between 0 and 1"
    );
    let bare = json!({"id":"p","prompt":"s","completions":[{"text":"a"},{"text":"b"}]});
    let none = pairs(&[lone.clone(), bare.clone()]).unwrap_err();
    assert!(none.contains("not a preference record: the completions have no gold labels"), "{none}");
    assert_eq!(pairs(&[bare, pool.clone()]).unwrap()[0].id, "row-2/0-1");
    // Rows without an id have the same one as where prompts are asked for.
    let (of_pairs, of_prompts) =
        (pairs(&[pool.clone(), pool.clone()]).unwrap(), prompts(&[pool.clone(), pool]).unwrap());
    assert_eq!(of_pairs[3].id, format!("{}/0-1", of_prompts[1].id));
}

fn mapped(name: &str, text: &str, map: &str) -> Result<Vec<PromptRecord>, String> {
    let folder = folder();
    let path = put(&folder, name, text);
    let map: ColumnMap = map.parse().unwrap();
    let read = Reader::open_mapped(path, Some(&map)).and_then(Iterator::collect);
    read.map_err(|error: files::FileError| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

#[test]
fn plain_tables_by_map() {
    let csv =
        "question,answer,score,lp\n\"Sky, why?\",Blue.,0.5,-3.25\n\"Sky, why?\",\"Gre\"\"en.\",1,-4\nSea?,007,2,-1\n";
    let map = "prompt=question,completion=answer,reward=score,logp=lp";
    let records = mapped("a.csv", csv, map).unwrap();
    let values: Vec<_> =
        records[0].completions.iter().map(|c| (c.text.as_str(), c.reward.unwrap(), c.logp.unwrap())).collect();
    assert_eq!(values, [("Blue.", 0.5, -3.25), ("Gre\"en.", 1.0, -4.0)]);
    assert_eq!(records[1].completions[0].text, "007");
    let tsv = csv.replace("\"Sky, why?\"", "Sky").replace("\"Gre\"\"en.\"", "Green").replace(',', "\t");
    assert_eq!(mapped("a.tsv", &tsv, map).unwrap().len(), 2);

    // Wide: lists, or numbered columns.
    let list = lines(&[json!({"q":"x","answers":["a","b"],"r":[1.0,2.0],"l":[[-0.5,-0.5],[-2.0]]})]);
    let wide = mapped("a.jsonl", &list, "prompt=q,completion=answers,reward=r,logp=l").unwrap().remove(0);
    assert_eq!((wide.completions[1].reward, wide.completions[0].logp), (Some(2.0), Some(-1.0)));
    let numbered = "q,a_2,a_10,r_2,r_10\nx,two,ten,0.5,1.5\n";
    let wide = mapped("a.csv", numbered, "prompt=q,completion=a_*,reward=r_*").unwrap().remove(0);
    assert_eq!((wide.completions[1].text.as_str(), wide.completions[1].reward), ("ten", Some(1.5)));

    // Rows that belong together by another column.
    let grouped =
        lines(&[json!({"uid":1,"prompt":"x","completion":"a"}), json!({"uid":2,"prompt":"x","completion":"b"})]);
    assert_eq!(mapped("a.jsonl", &grouped, "group=uid").unwrap().len(), 2);
}

#[test]
fn maps_and_tables_that_are_wrong() {
    let parse = |text: &str| text.parse::<ColumnMap>().unwrap_err();
    let names = "prompt, completion, reward, logp, gold, group";
    assert_eq!(parse("reward"), format!("`reward`: write NAME=COLUMN, with the names {names}"));
    assert_eq!(parse("rward=x"), format!("unknown name `rward`; the names are {names}"));
    let csv = "q,a,r\nx,y,1\n";
    assert_eq!(
        mapped("a.csv", csv, "prompt=q,completion=a,reward=score").unwrap_err(),
        "a.csv:2: not a prompt record: there is no column `score`; the table has a, q, r"
    );
    assert_eq!(
        mapped("a.csv", "q,a,r\nx,y,1\nx,z,bad\n", "prompt=q,completion=a,reward=r").unwrap_err(),
        "a.csv:3: not a prompt record: r is \"bad\", expected a finite number"
    );
    assert_eq!(
        mapped("a.csv", "q,a,r\nx,y,1\nx,z,NaN\n", "prompt=q,completion=a,reward=r").unwrap_err(),
        "a.csv:3: not a prompt record: r is \"NaN\", expected a finite number"
    );
    assert_eq!(
        mapped("a.csv", "q,a,r\nx,y,1\nx,z,1,2\n", "prompt=q,completion=a,reward=r").unwrap_err(),
        "a.csv:3: the row has 4 cells, the header 3; quote cells that hold commas, quotes or line breaks"
    );
    assert_eq!(
        mapped("a.csv", "q,q\nx,y\n", "prompt=q,completion=a").unwrap_err(),
        "a.csv:1: two columns are called `q`; rename one"
    );
    let list = lines(&[json!({"prompt":"x","completion":["a","b"],"r":[1.0]})]);
    assert_eq!(
        mapped("a.jsonl", &list, "reward=r").unwrap_err(),
        "a.jsonl:1: not a prompt record: completion has 2 answers, but r 1 entries: their numbers must be equal"
    );
}

#[test]
fn json_arrays_and_csv_hold_every_kind() {
    let rows = [pku(), pku()];
    let array = serde_json::to_string_pretty(&rows).unwrap();
    let records = read::<PreferenceRecord>("a.json", &array).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(records, pairs(&rows).unwrap());
    // The line named is where the element begins.
    let bad = format!("[\n{},\n{}\n]", pku(), with(&pku(), "better_response_id", json!(7)));
    let said = read::<PreferenceRecord>("a.json", &bad).unwrap_err();
    assert_eq!(said, "a.json:3: not a preference record: better_response_id is 7, expected 0 or 1");
    let said = read::<PreferenceRecord>("a.json", &array[..array.len() - 2]).unwrap_err();
    assert!(said.starts_with("a.json:1: the file is one JSON array that does not end"), "{said}");
    assert!(read::<PreferenceRecord>("a.json", "[]").unwrap_err().contains("holds no record"));

    let csv = "id,prompt,chosen,rejected,margin\nx,\"[{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"q\"\"}]\",a,\"b\nc\",0.5\ny,5,6,7,\n";
    let records = read::<PreferenceRecord>("a.csv", csv).unwrap();
    assert_eq!(records[0].prompt, Prompt::Chat(vec![turn("user", "q")]));
    assert_eq!((records[0].second.text.as_str(), records[0].margin), ("b\nc", Some(0.5)));
    assert_eq!((records[1].first.text.as_str(), records[1].margin), ("6", None));
    assert!(read::<PreferenceRecord>("a.csv", "id,prompt\n").unwrap_err().contains("holds no record"));
    let latin = folder();
    let path = latin.path().join("a.csv");
    fs::write(&path, b"prompt,chosen,rejected\nq,\xe9,b\n").unwrap();
    let said = files::read_preferences(path).unwrap_err().to_string();
    assert!(said.contains("a.csv:2") && said.contains("not UTF-8"), "{said}");
}

#[test]
fn packed_tables() {
    use std::io::Write as _;
    let csv = "prompt,chosen,rejected\nq,a,b\n";
    let folder = folder();
    let gz = folder.path().join("a.csv.gz");
    let mut encoder = flate2::write::GzEncoder::new(fs::File::create(&gz).unwrap(), flate2::Compression::fast());
    encoder.write_all(csv.as_bytes()).unwrap();
    encoder.finish().unwrap();
    let zst = folder.path().join("a.json.zst");
    let array = json!([{"prompt":"q","chosen":"a","rejected":"b"}]).to_string();
    fs::write(&zst, zstd::encode_all(array.as_bytes(), 3).unwrap()).unwrap();
    for path in [gz, zst] {
        let records = files::read_preferences(&path).unwrap();
        assert_eq!(records[0].first.text, "a", "{}", path.display());
    }
}

#[test]
fn patterns_read_several_files_in_order() {
    let folder = folder();
    let row = |output: &str| json!({"input":"q","output":output,"score":0.5,"step":1});
    put(&folder, "10.jsonl", &lines(&[row("c")]));
    put(&folder, "9.jsonl", &lines(&[row("a"), row("b")]));
    put(&folder, "other.txt", "not one of them");
    let pattern = folder.path().join("*.jsonl");
    let records: Vec<PromptRecord> = files::read_all(&pattern).unwrap();
    let texts: Vec<Vec<&str>> =
        records.iter().map(|r| r.completions.iter().map(|c| c.text.as_str()).collect()).collect();
    assert_eq!(texts, [vec!["a", "b"], vec!["c"]]);
    assert_eq!((records[0].id.as_str(), records[1].id.as_str()), ("p0", "p1"));
    // A fault names its own file.
    put(&folder, "10.jsonl", &lines(&[row("c"), json!({"input":"q","output":3,"score":0.5,"step":1})]));
    let said = files::read_all::<PromptRecord>(&pattern).unwrap_err().to_string();
    assert!(said.contains("/10.jsonl:2: ") && said.contains("output is 3"), "{said}");
    let none = files::read_all::<PromptRecord>(folder.path().join("*.csv")).unwrap_err().to_string();
    assert!(none.contains("no file matches this pattern"), "{none}");
    // Row numbers go on from file to file; own ids may not repeat.
    let pair = |id: Option<&str>| {
        let mut row = json!({"prompt":"q","chosen":"a","rejected":"b"});
        row["id"] = json!(id);
        row
    };
    put(&folder, "a.pairs", &lines(&[pair(None), pair(None)]));
    put(&folder, "b.pairs", &lines(&[pair(None), pair(Some("row-1"))]));
    let said = files::read_preferences(folder.path().join("*.pairs")).unwrap_err().to_string();
    assert!(said.contains("/b.pairs:2: id `row-1` was already used in line 1 of "), "{said}");
    assert!(said.contains("/a.pairs; ids must be unique"), "{said}");
}

#[test]
fn pairs_as_candidates_and_as_comparisons() {
    let own = json!({"schema":1,"id":"x","prompt":"q","first":{"text":"a"},"second":{"text":"b"},"p_first":0.75,
        "answer":"first"});
    let skipped = json!({"schema":1,"id":"y","prompt":"q","first":{"text":"a"},"second":{"text":"b"},"answer":"skip"});
    let records = prompts(&[own, skipped, pku()]).unwrap();
    let golds: Vec<Vec<Option<f64>>> = records.iter().map(|r| r.completions.iter().map(|c| c.gold).collect()).collect();
    assert_eq!(golds, [vec![Some(0.75), Some(0.25)], vec![None, None], vec![Some(1.0), Some(0.0)]]);
    assert_eq!(records[2].completions[1].extra["safe"], json!(true));
    let asked: Vec<SelectionRecord> = read("a.jsonl", &lines(&[pku(), pku()])).unwrap();
    assert_eq!((asked[1].rank, asked[1].strategy.as_str()), (1, "given"));
    assert_eq!((asked[0].first.gold, asked[0].second.gold), (Some(1.0), Some(0.0)));
}

#[test]
fn arrow_files_that_are_damaged() {
    let folder = folder();
    let bytes = fs::read(golden("completions-stream.arrow")).unwrap();
    let cut = folder.path().join("cut.arrow");
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let said = files::read_all::<PromptRecord>(&cut).unwrap_err().to_string();
    assert!(said.contains("cut.arrow") && said.contains("the Arrow file cannot be read"), "{said}");
    fs::write(&cut, "prompt,answer\n").unwrap();
    let said = files::read_all::<PromptRecord>(&cut).unwrap_err().to_string();
    assert!(said.contains("the Arrow file cannot be read"), "{said}");
    let renamed = folder.path().join("a.jsonl");
    fs::copy(golden("completions-lz4.feather"), &renamed).unwrap();
    let said = files::read_all::<PromptRecord>(&renamed).unwrap_err().to_string();
    assert!(said.contains("this is an Arrow file") && said.contains("rename it to end in .arrow"), "{said}");
    let out = files::write_all::<PromptRecord>(folder.path().join("out.csv"), &[]).unwrap_err().to_string();
    assert!(out.contains("records are written as .jsonl"), "{out}");
}
