//! What an admin looks at: votes, disagreements, decisions, the audit trail.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::{Any, Row, Transaction};

use super::{Store, Write, now, people, places};
use crate::annotate::error::{AnnotateError, Result};
use crate::annotate::measure::disagreements;
use crate::annotate::task::Given;
use crate::annotate::web::token;

/// One answer or skip.
#[derive(Clone, Debug, PartialEq)]
pub struct VoteRow {
    /// The item's number.
    pub item: i64,
    /// Who answered.
    pub annotator: String,
    /// The answer.
    pub given: Given,
    /// Whether the second completion stood on the left.
    pub swapped: bool,
    /// Time taken, seconds.
    pub seconds: f64,
    /// When, milliseconds since 1970.
    pub at: i64,
}

/// An answer that was given elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenElsewhere {
    /// The item's id.
    pub item: String,
    /// Who answered.
    pub annotator: String,
    /// The answer.
    pub given: Given,
    /// Whether the second completion stood on the left.
    pub swapped: bool,
    /// Time taken, seconds.
    pub seconds: f64,
}

/// An admin's decision on an item.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    /// The item's number.
    pub item: i64,
    /// The answer that counts.
    pub given: Given,
    /// Why.
    pub reason: String,
}

/// A line of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, milliseconds since 1970.
    pub at: i64,
    /// Who.
    pub actor: String,
    /// `answer`, `undo`, `resolve`, `setting`, `invite`, ...
    pub action: String,
    /// The item's id.
    pub item: Option<String>,
    /// JSON.
    pub detail: String,
}

/// Adds a line to the audit trail, in the transaction of what it tells.
pub(super) async fn record(
    tx: &mut Transaction<'static, Any>,
    actor: &str,
    action: &'static str,
    item: Option<&str>,
    detail: &str,
) -> Result<()> {
    // Orders what this process writes within one millisecond.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (at, n) = (now(), COUNT.fetch_add(1, Ordering::Relaxed));
    sqlx::query("INSERT INTO events (id, at, actor, action, item, detail) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(format!("{at:014}-{n:010}-{}", &token::random()[..12]))
        .bind(at)
        .bind(actor)
        .bind(action)
        .bind(item)
        .bind(detail)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

impl Store {
    /// All answers and skips, by item and time.
    pub async fn votes(&self) -> Result<Vec<VoteRow>> {
        let rows = sqlx::query(
            "SELECT w.item_id, a.name, w.body, w.swapped, w.seconds, w.answered
             FROM work w JOIN annotators a ON a.id = w.annotator_id
             WHERE w.state IN ('answered', 'skipped') ORDER BY w.item_id, w.answered, a.name",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(VoteRow {
                    item: row.try_get(0)?,
                    annotator: row.try_get(1)?,
                    given: given(&row.try_get::<String, _>(2)?)?,
                    swapped: row.try_get::<i64, _>(3)? == 1,
                    seconds: row.try_get::<Option<f64>, _>(4)?.unwrap_or(0.0),
                    at: row.try_get::<Option<i64>, _>(5)?.unwrap_or(0),
                })
            })
            .collect()
    }

    /// How many answers other than skips there are, gold checks left out.
    pub async fn answer_count(&self) -> Result<i64> {
        let row = sqlx::query(
            "SELECT COUNT(*) FROM work w JOIN items i ON i.id = w.item_id
             WHERE w.state = 'answered' AND i.expected IS NULL",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Whether nobody has anything left to answer: somebody has answered, and every item has its
    /// answers or was answered or skipped by everybody who may answer. While items lack answers
    /// and nobody may answer, somebody is still to be let in. Gold checks do not count.
    pub async fn is_finished(&self) -> Result<bool> {
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM work w JOIN items i ON i.id = w.item_id
                WHERE i.expected IS NULL AND w.state IN ('answered', 'skipped')),
             (SELECT COUNT(*) FROM items i WHERE i.expected IS NULL
                AND (SELECT COUNT(*) FROM work w WHERE w.item_id = i.id AND w.state = 'answered') < i.overlap
                AND (NOT EXISTS (SELECT 1 FROM annotators a WHERE a.active = 1)
                    OR EXISTS (SELECT 1 FROM annotators a WHERE a.active = 1 AND NOT EXISTS (SELECT 1 FROM work w
                    WHERE w.item_id = i.id AND w.annotator_id = a.id AND w.state IN ('answered', 'skipped')))))",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(row.try_get::<i64, _>(0)? > 0 && row.try_get::<i64, _>(1)? == 0)
    }

    /// How many items wait for the admin: annotators contradict each other, and nobody has decided.
    pub async fn undecided(&self) -> Result<usize> {
        let (items, votes) = (self.items().await?, self.votes().await?);
        Ok(disagreements(&items, &votes, &self.resolutions().await?).len())
    }

    /// All decisions.
    pub async fn resolutions(&self) -> Result<Vec<Resolution>> {
        let rows =
            sqlx::query("SELECT item_id, body, reason FROM resolutions ORDER BY item_id").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                Ok(Resolution {
                    item: row.try_get(0)?,
                    given: given(&row.try_get::<String, _>(1)?)?,
                    reason: row.try_get(2)?,
                })
            })
            .collect()
    }

    /// Decides an item; a later decision replaces an earlier one, and both stay in the audit trail.
    ///
    /// # Errors
    /// An item that is not there.
    pub async fn resolve(&self, item: i64, decided: &Given, reason: &str) -> Result<()> {
        let mut write = self.write_alone().await?;
        let row =
            sqlx::query("SELECT ext_id FROM items WHERE id = $1").bind(item).fetch_optional(&mut *write.tx).await?;
        let Some(row) = row else { return Err(AnnotateError::Input(format!("there is no item {item}"))) };
        let body = serde_json::to_string(decided).map_err(|e| AnnotateError::Input(e.to_string()))?;
        sqlx::query(
            "INSERT INTO resolutions (item_id, body, reason, at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (item_id) DO UPDATE SET body = excluded.body, reason = excluded.reason, at = excluded.at",
        )
        .bind(item)
        .bind(body.clone())
        .bind(reason)
        .bind(now())
        .execute(&mut *write.tx)
        .await?;
        let id: String = row.try_get(0)?;
        let detail = serde_json::json!({ "answer": decided, "reason": reason }).to_string();
        record(&mut write.tx, "admin", "resolve", Some(&id), &detail).await?;
        write.commit().await
    }

    /// The latest lines of the audit trail, newest first.
    pub async fn events(&self, limit: i64) -> Result<Vec<Event>> {
        let rows = sqlx::query("SELECT at, actor, action, item, detail FROM events ORDER BY id DESC LIMIT $1")
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Event {
                    at: row.try_get(0)?,
                    actor: row.try_get(1)?,
                    action: row.try_get(2)?,
                    item: row.try_get(3)?,
                    detail: row.try_get(4)?,
                })
            })
            .collect()
    }

    /// Adds answers that were given elsewhere. An answer of the same person to the same item that
    /// is there stays. Returns how many are new.
    ///
    /// # Errors
    /// An item that is not there; then nothing is added.
    pub async fn import_votes(&self, votes: &[GivenElsewhere]) -> Result<usize> {
        let mut write = self.write_alone().await?;
        let people = hold_people(&mut write, votes).await?;
        let mut rows = Vec::with_capacity(votes.len());
        for vote in votes {
            rows.push((item_number(&mut write, &vote.item).await?, people[vote.annotator.as_str()], vote));
        }
        // One order for all writers, so that two servers cannot wait for each other.
        rows.sort_by_key(|(item, ..)| *item);
        let mut added = 0;
        for (item, annotator, vote) in rows {
            added += usize::from(put_vote(&mut write, item, annotator, vote).await?);
        }
        write.commit().await?;
        Ok(added)
    }
}

/// The numbers of those who voted, whose rows this transaction holds from here on.
async fn hold_people<'a>(write: &mut Write<'_>, votes: &'a [GivenElsewhere]) -> Result<HashMap<&'a str, i64>> {
    let names: BTreeSet<&str> = votes.iter().map(|vote| vote.annotator.as_str()).collect();
    let mut people = HashMap::new();
    for name in names {
        people.insert(name, people::person_id(&mut write.tx, name).await?);
    }
    let mut numbers: Vec<i64> = people.values().copied().collect();
    numbers.sort_unstable();
    for number in numbers {
        places::lock_annotator(&mut write.tx, number).await?;
    }
    Ok(people)
}

async fn item_number(write: &mut Write<'_>, id: &str) -> Result<i64> {
    let row = sqlx::query("SELECT id FROM items WHERE ext_id = $1").bind(id).fetch_optional(&mut *write.tx).await?;
    match row {
        Some(row) => Ok(row.try_get(0)?),
        None => Err(AnnotateError::Input(format!("an answer names the item `{id}`, which is not there"))),
    }
}

/// Adds one answer, where the person has none to the item; whether it is new.
async fn put_vote(write: &mut Write<'_>, item: i64, annotator: i64, vote: &GivenElsewhere) -> Result<bool> {
    places::lock_item(&mut write.tx, item).await?;
    let skip = vote.given.response.is_skip();
    let body = serde_json::to_string(&vote.given).map_err(|e| AnnotateError::Input(e.to_string()))?;
    let inserted = sqlx::query(
        "INSERT INTO work (item_id, annotator_id, state, ticket, swapped, opened, lease_until, body, seconds,
         answered) VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $6) ON CONFLICT (item_id, annotator_id) DO NOTHING",
    )
    .bind(item)
    .bind(annotator)
    .bind(if skip { "skipped" } else { "answered" })
    .bind(token::random())
    .bind(i64::from(vote.swapped))
    .bind(now())
    .bind(body.clone())
    .bind(vote.seconds)
    .execute(&mut *write.tx)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    if !skip {
        places::change_taken(&mut write.tx, item, 1).await?;
    }
    sqlx::query("UPDATE annotators SET answered = answered + 1 WHERE id = $1")
        .bind(annotator)
        .execute(&mut *write.tx)
        .await?;
    record(&mut write.tx, &vote.annotator, "import", Some(&vote.item), &body).await?;
    Ok(true)
}

fn given(body: &str) -> Result<Given> {
    serde_json::from_str(body).map_err(|e| AnnotateError::Stored { what: "answer", problem: e.to_string() })
}
