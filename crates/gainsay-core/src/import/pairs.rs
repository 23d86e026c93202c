//! Rows that compare two answers: PKU-SafeRLHF, HelpSteer2's preferences, UltraFeedback-binarized,
//! RewardBench.

use serde_json::{Map, Value};

use super::cells::{self, number};
use super::{DataFormat, dialogue, row_id, trl, typed};
use crate::record::{Answer, Extra, PreferenceRecord, PreferenceSide, Prompt, SCHEMA, Source};

/// Reads row `number` (1-based) of any format that compares two answers; `None`: another format.
pub fn row(row: &Map<String, Value>, number: u64) -> Option<Result<PreferenceRecord, String>> {
    let (format, _) = DataFormat::of(row)?;
    match format {
        DataFormat::PkuSafeRlhf => Some(pku(row, number)),
        DataFormat::HelpSteer2Preference => Some(helpsteer(row, number)),
        DataFormat::UltraFeedback => Some(ultrafeedback(row, number)),
        DataFormat::RewardBench => Some(rewardbench(row, number)),
        DataFormat::Preference | DataFormat::HhRlhf => trl::row(row, number),
        _ => None,
    }
}

/// PKU-SafeRLHF (arXiv 2406.15513): `first` is response_0. `better_response_id` gives the answer,
/// `is_response_i_safe` the safety signs; what else is said of a response stays with its side.
fn pku(row: &Map<String, Value>, number: u64) -> Result<PreferenceRecord, String> {
    let mut rest = row.clone();
    let prompt = prompt(&mut rest)?;
    let better = match rest.remove("better_response_id").as_ref().and_then(Value::as_i64) {
        Some(0) => 1.0,
        Some(1) => 0.0,
        _ => return Err(format!("better_response_id is {}, expected 0 or 1", shown(row, "better_response_id"))),
    };
    if !matches!(rest.get(SAFER).and_then(Value::as_i64), None | Some(0 | 1)) {
        return Err(format!("{SAFER} is {}, expected 0 or 1", shown(row, SAFER)));
    }
    let mut safe = [None; 2];
    for (id, sign) in safe.iter_mut().enumerate() {
        let name = format!("is_response_{id}_safe");
        *sign = match rest.remove(&name) {
            None | Some(Value::Null) => None,
            Some(Value::Bool(safe)) => Some(safe),
            Some(other) => return Err(format!("{name} is {other}, expected true or false")),
        };
    }
    let [first, second] = [side(&mut rest, "response_0")?, side(&mut rest, "response_1")?];
    let record = record(row, number, prompt, [first, second], Some(better), rest);
    Ok(PreferenceRecord { safe_first: safe[0], safe_second: safe[1], ..record })
}

/// The field of a record that says which response is the safer one: 0 the first, 1 the second.
const SAFER: &str = "safer_response_id";

/// Lets the safer answer win where the record says which it is: a cost model learns from these pairs
/// (Dai et al., Safe RLHF, arXiv 2310.12773, section 3.2), not from which answer helps more. Others stay.
pub fn prefer_safer(record: &mut PreferenceRecord) {
    let (p, answer) = match record.extra.get(SAFER).and_then(Value::as_i64) {
        Some(0) => (1.0, Answer::First),
        Some(1) => (0.0, Answer::Second),
        _ => return,
    };
    (record.p_first, record.answer) = (Some(p), answer);
}

/// HelpSteer2-Preference (arXiv 2410.01257): `first` is response_1, and a negative strength says
/// that it is better; 0 is a tie, -100 that neither is acceptable.
fn helpsteer(row: &Map<String, Value>, number: u64) -> Result<PreferenceRecord, String> {
    let mut rest = row.clone();
    let prompt = prompt(&mut rest)?;
    let strength = rest.get("preference_strength").and_then(Value::as_f64);
    let p_first = match strength {
        Some(-100.0) => None,
        Some(s) if s.fract() == 0.0 && s.abs() <= 3.0 => Some(if s == 0.0 { 0.5 } else { f64::from(s < 0.0) }),
        _ => {
            return Err(format!(
                "preference_strength is {}: it must be a whole number from -3 (response_1 is much better) to 3",
                shown(row, "preference_strength")
            ));
        }
    };
    let sides = [side(&mut rest, "response_1")?, side(&mut rest, "response_2")?];
    Ok(record(row, number, dialogue::helpsteer(prompt), sides, p_first, rest))
}

/// UltraFeedback-binarized: both sides are whole conversations; `messages` repeats the chosen one.
fn ultrafeedback(row: &Map<String, Value>, number: u64) -> Result<PreferenceRecord, String> {
    let mut rest = row.clone();
    rest.remove("messages");
    let id = match rest.remove("prompt_id") {
        Some(Value::String(id)) => id,
        other => return Err(format!("prompt_id is {}, expected text", other.unwrap_or_default())),
    };
    let mut score = |name: &str| number_of(&rest.remove(name).unwrap_or_default(), name);
    let scores = [score("score_chosen")?, score("score_rejected")?];
    if scores[0] < scores[1] {
        return Err(format!(
            "score_chosen is {} and score_rejected {}: the chosen answer must not be rated lower",
            scores[0], scores[1]
        ));
    }
    let mut record = trl::row(&rest, number).ok_or("chosen or rejected is missing")??;
    for (side, score) in [(&mut record.first, scores[0]), (&mut record.second, scores[1])] {
        side.extra.insert("score".into(), score.into());
    }
    // A prompt may stand in several rows.
    Ok(PreferenceRecord { id: format!("{id}/{number}"), ..record })
}

/// RewardBench (arXiv 2403.13787): the subset goes to `meta`, the models' names to the sides.
fn rewardbench(row: &Map<String, Value>, number: u64) -> Result<PreferenceRecord, String> {
    let mut rest = row.clone();
    let subset = cells::text(&rest.remove("subset").unwrap_or_default(), "subset")?.to_string();
    let models = ["chosen_model", "rejected_model"].map(|name| rest.remove(name));
    let mut record = trl::row(&rest, number).ok_or("chosen or rejected is missing")??;
    for (side, model) in [&mut record.first, &mut record.second].into_iter().zip(models) {
        side.extra.extend(model.map(|model| ("model".to_string(), model)));
    }
    // Its ids are unique within a subset.
    record.id = format!("{subset}/{}", record.id);
    record.meta.insert("subset".into(), subset.into());
    Ok(record)
}

fn number_of(value: &Value, name: &str) -> Result<f64, String> {
    number(value, name)?.ok_or_else(|| format!("{name} is missing, expected a number"))
}

fn shown(row: &Map<String, Value>, name: &str) -> String {
    row.get(name).map_or("missing".into(), Value::to_string)
}

fn prompt(rest: &mut Map<String, Value>) -> Result<Prompt, String> {
    typed(rest.remove("prompt").unwrap_or_default()).map_err(|what| format!("prompt: {what}"))
}

/// A response with the fields that carry its name: `response_0_source` becomes `source`.
fn side(rest: &mut Map<String, Value>, name: &str) -> Result<PreferenceSide, String> {
    let text = cells::text(&rest.remove(name).unwrap_or_default(), name)?.to_string();
    let prefix = format!("{name}_");
    let own: Vec<String> = rest.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
    let extra: Extra = own
        .into_iter()
        .filter_map(|key| {
            let value = rest.remove(&key)?;
            Some((key[prefix.len()..].to_string(), value))
        })
        .collect();
    Ok(PreferenceSide { text, extra, ..PreferenceSide::default() })
}

fn record(
    row: &Map<String, Value>,
    number: u64,
    prompt: Prompt,
    [first, second]: [PreferenceSide; 2],
    p_first: Option<f64>,
    mut extra: Extra,
) -> PreferenceRecord {
    for known in ["id", "schema"] {
        extra.remove(known);
    }
    let answer = match p_first {
        None => Answer::BothBad,
        Some(p) if p > 0.5 => Answer::First,
        Some(p) if p < 0.5 => Answer::Second,
        Some(_) => Answer::Tie,
    };
    PreferenceRecord {
        schema: SCHEMA,
        id: row_id(row, number),
        prompt,
        first,
        second,
        p_first,
        answer,
        margin: None,
        votes: Vec::new(),
        source: Some(Source::Labels),
        safe_first: None,
        safe_second: None,
        meta: Extra::new(),
        extra,
    }
}
