//! The strongest conflicts, told with their texts.

use gainsay_core::record::Answer;

use super::pool::{Asked, Conflict, Pool, Side};
use super::text::{escape, number, passage, signed};

/// Characters of a text that are shown.
const LIMIT: usize = 900;

/// One card a conflict, strongest first.
pub fn cards(pool: &Pool) -> String {
    pool.strongest.iter().enumerate().map(|(i, conflict)| card(i + 1, conflict)).collect()
}

fn card(rank: usize, conflict: &Conflict) -> String {
    let k = conflict.k.map_or_else(String::new, |k| format!(" · K {}", number(k, 2)));
    format!(
        concat!(
            r#"<article class="card"><h3>{rank}<span class="meta"> · {id} · PACS apart by {strength}{k}</span></h3>"#,
            r#"<div class="asked">{prompt}</div><div class="sides">{over}{under}</div>{outcome}</article>"#
        ),
        rank = rank,
        id = escape(&conflict.id),
        strength = number(conflict.strength(), 2),
        k = k,
        prompt = passage(&conflict.prompt, LIMIT),
        over = side("The reward model prefers", &conflict.over),
        under = side("The policy finds likelier", &conflict.under),
        outcome = outcome(conflict),
    )
}

fn side(name: &str, side: &Side) -> String {
    let gold = side.gold.map(|gold| ("gold", number(gold, 2)));
    let values = [
        ("z(reward)", signed(side.z_reward, 2)),
        ("z(log-prob)", signed(side.z_logp, 2)),
        ("PACS", signed(side.pacs, 2)),
    ];
    let values: String = values
        .into_iter()
        .chain(gold)
        .map(|(name, value)| format!("<span>{name}\u{a0}<b>{value}</b></span>"))
        .collect();
    format!(r#"<div class="side"><h4>{name}</h4><p class="values">{values}</p>{}</div>"#, passage(&side.text, LIMIT),)
}

/// Who was right, and what was asked.
fn outcome(conflict: &Conflict) -> String {
    let right = match conflict.reward_right() {
        Some(true) => "<b>Gold sides with the reward model.</b>",
        Some(false) => r#"<b class="bad">✕ Gold sides with the policy: the reward model is wrong here.</b>"#,
        None if conflict.over.gold.is_some() && conflict.under.gold.is_some() => "Gold holds the two equally good.",
        None => "No gold reward is known for this pair.",
    };
    let asked: String = conflict.asked.iter().map(|asked| question(conflict, asked)).collect();
    format!(r#"<p class="outcome">{right}{asked}</p>"#)
}

/// What became of a question about this very pair.
fn question(conflict: &Conflict, asked: &Asked) -> String {
    let first_is_over = asked.pair.0 == conflict.over.index;
    let answer = match asked.answer {
        None => "not answered yet",
        Some(Answer::Tie) => "answered: a tie",
        Some(Answer::BothBad) => "answered: both bad",
        Some(Answer::Skip) => "skipped",
        Some(answer) if (answer == Answer::First) == first_is_over => "answered for the reward model’s favorite",
        Some(_) => "answered for the policy’s favorite",
    };
    format!(" Asked by {}; {answer}.", escape(&asked.arm))
}
