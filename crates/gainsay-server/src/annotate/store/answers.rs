//! What annotators answer, begin to write, and take back.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::places::{change_taken, in_hands, lock_annotator, lock_item};
use super::{Store, Write, now, review};
use crate::annotate::error::{AnnotateError, Result};
use crate::annotate::task::Given;
use crate::annotate::web::token;

/// How many answers back an annotator may go.
const UNDO_DEPTH: i64 = 10;

/// The answer to take back: the last one, passing over skips whose items others have filled; and
/// how many skips it passes over. `$1` is the annotator.
const LAST: &str = "SELECT w.item_id, w.state, w.body, i.ext_id,
    (SELECT COUNT(*) FROM work s WHERE s.annotator_id = $1 AND s.state = 'skipped' AND s.answered > w.answered)
    FROM work w JOIN items i ON i.id = w.item_id
    WHERE w.annotator_id = $1 AND (w.state = 'answered' OR (w.state = 'skipped' AND i.taken < i.overlap))
    ORDER BY w.answered DESC, w.item_id DESC LIMIT 1";

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is on the disk.
    Recorded,
    /// The same form came before: nothing changed.
    Replayed,
    /// This form came before with another answer, which stays.
    Differs,
    /// The lease had run out and others have filled the item's places.
    Full,
    /// The annotator does not hold this item with this ticket.
    NotYours,
}

/// What became of an undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// The last answer is open again.
    Reopened,
    /// An earlier answer is open again: what was skipped since has all its answers from others.
    PassedSkips,
    /// So many answers are open again that they come first.
    TooMany,
    /// There is no answer that could be taken back.
    Nothing,
}

impl Store {
    /// Records an answer. `claimed` is the time that the browser measured, which counts up to the
    /// time since the item was opened.
    ///
    /// # Errors
    /// What the database reports; then nothing is recorded.
    pub async fn answer(
        &self,
        annotator: i64,
        name: &str,
        item: i64,
        ticket: &str,
        given: &Given,
        claimed: Option<f64>,
    ) -> Result<Submitted> {
        let mut write = self.write().await?;
        lock_annotator(&mut write.tx, annotator).await?;
        lock_item(&mut write.tx, item).await?;
        let row = sqlx::query(
            "SELECT w.state, w.ticket, w.body, w.opened, w.swapped, i.taken, i.overlap, i.ext_id
             FROM work w JOIN items i ON i.id = w.item_id WHERE w.item_id = $1 AND w.annotator_id = $2",
        )
        .bind(item)
        .bind(annotator)
        .fetch_optional(&mut *write.tx)
        .await?;
        let Some(row) = row else { return Ok(Submitted::NotYours) };
        let body = serde_json::to_string(given).map_err(|e| AnnotateError::Input(e.to_string()))?;
        let had_place = match refused(&row, ticket, &body)? {
            Some(outcome) => return Ok(outcome),
            None => row.try_get::<String, _>("state")? == "leased",
        };
        let change = i64::from(!given.response.is_skip()) - i64::from(had_place);
        if change != 0 {
            change_taken(&mut write.tx, item, change).await?;
        }
        let elapsed = (now() - row.try_get::<i64, _>("opened")?).max(0) as f64 / 1000.0;
        let seconds = claimed.filter(|s| s.is_finite() && *s >= 0.0).map_or(elapsed, |s| s.min(elapsed));
        keep(&mut write, (item, annotator), given.response.is_skip(), &body, seconds).await?;
        let id: String = row.try_get("ext_id")?;
        let left = if row.try_get::<i64, _>("swapped")? == 1 { "second" } else { "first" };
        let detail = format!("{{\"left\":\"{left}\",\"seconds\":{seconds:.1},\"answer\":{body}}}");
        review::record(&mut write.tx, name, "answer", Some(&id), &detail).await?;
        write.commit().await?;
        Ok(Submitted::Recorded)
    }

    /// Opens the annotator's last answer again, with what was answered as the draft.
    pub async fn undo(&self, annotator: i64, name: &str) -> Result<Undone> {
        let lease_seconds = self.settings().await?.lease_seconds;
        loop {
            // Nothing to show for it: others filled the skipped item just now, and the next look
            // passes over it.
            if let Some(outcome) = self.take_back(annotator, name, lease_seconds).await? {
                return Ok(outcome);
            }
        }
    }

    async fn take_back(&self, annotator: i64, name: &str, lease_seconds: i64) -> Result<Option<Undone>> {
        let mut write = self.write().await?;
        lock_annotator(&mut write.tx, annotator).await?;
        let row = sqlx::query(LAST).bind(annotator).fetch_optional(&mut *write.tx).await?;
        let Some(row) = row else { return Ok(Some(Undone::Nothing)) };
        if in_hands(&mut write.tx, annotator).await? > UNDO_DEPTH {
            return Ok(Some(Undone::TooMany));
        }
        let (item, state): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        lock_item(&mut write.tx, item).await?;
        if state == "skipped" {
            let places = sqlx::query("SELECT taken, overlap FROM items WHERE id = $1")
                .bind(item)
                .fetch_one(&mut *write.tx)
                .await?;
            if places.try_get::<i64, _>(0)? >= places.try_get::<i64, _>(1)? {
                return Ok(None);
            }
            change_taken(&mut write.tx, item, 1).await?;
        }
        let body: Option<String> = row.try_get(2)?;
        reopen(&mut write, (item, annotator), body.clone(), lease_seconds).await?;
        let id: String = row.try_get(3)?;
        review::record(&mut write.tx, name, "undo", Some(&id), &body.unwrap_or_else(|| "{}".into())).await?;
        write.commit().await?;
        let passed = row.try_get::<i64, _>(4)? > 0;
        Ok(Some(if passed { Undone::PassedSkips } else { Undone::Reopened }))
    }

    /// Keeps what the annotator has begun to write, and the item for another lease: who writes is
    /// at work. Nothing where the item is not in hand.
    pub async fn keep_draft(&self, annotator: i64, item: i64, ticket: &str, draft: &str) -> Result<bool> {
        let lease_seconds = self.settings().await?.lease_seconds;
        let mut write = self.write().await?;
        let kept = sqlx::query(
            "UPDATE work SET draft = $1, lease_until = $2
             WHERE item_id = $3 AND annotator_id = $4 AND ticket = $5 AND state = 'leased'",
        )
        .bind(draft)
        .bind(now() + lease_seconds * 1000)
        .bind(item)
        .bind(annotator)
        .bind(ticket)
        .execute(&mut *write.tx)
        .await?;
        write.commit().await?;
        Ok(kept.rows_affected() == 1)
    }
}

/// Why an answer to a row of `work` is not recorded, if it is not.
fn refused(row: &AnyRow, ticket: &str, body: &str) -> Result<Option<Submitted>> {
    let (state, held): (String, String) = (row.try_get("state")?, row.try_get("ticket")?);
    if held != ticket {
        return Ok(Some(Submitted::NotYours));
    }
    let (taken, overlap): (i64, i64) = (row.try_get("taken")?, row.try_get("overlap")?);
    Ok(match state.as_str() {
        "leased" => None,
        "released" if taken < overlap => None,
        "released" => Some(Submitted::Full),
        _ if row.try_get::<Option<String>, _>("body")?.as_deref() == Some(body) => Some(Submitted::Replayed),
        _ => Some(Submitted::Differs),
    })
}

/// Puts an answer into the row of its lease.
async fn keep(write: &mut Write<'_>, row: (i64, i64), skip: bool, body: &str, seconds: f64) -> Result<()> {
    let (item, annotator) = row;
    sqlx::query(
        "UPDATE work SET state = $1, body = $2, seconds = $3, answered = $4, draft = NULL
         WHERE item_id = $5 AND annotator_id = $6",
    )
    .bind(if skip { "skipped" } else { "answered" })
    .bind(body)
    .bind(seconds)
    .bind(now())
    .bind(item)
    .bind(annotator)
    .execute(&mut *write.tx)
    .await?;
    count(write, annotator, 1).await
}

/// Turns an answer into a lease again, with what was answered as its draft.
async fn reopen(write: &mut Write<'_>, row: (i64, i64), draft: Option<String>, lease_seconds: i64) -> Result<()> {
    let (item, annotator) = row;
    sqlx::query(
        "UPDATE work SET state = 'leased', ticket = $1, opened = $2, lease_until = $3, body = NULL, draft = $4,
         seconds = NULL, answered = NULL WHERE item_id = $5 AND annotator_id = $6",
    )
    .bind(token::random())
    .bind(now())
    .bind(now() + lease_seconds * 1000)
    .bind(draft)
    .bind(item)
    .bind(annotator)
    .execute(&mut *write.tx)
    .await?;
    count(write, annotator, -1).await
}

async fn count(write: &mut Write<'_>, annotator: i64, by: i64) -> Result<()> {
    sqlx::query("UPDATE annotators SET answered = answered + $1 WHERE id = $2")
        .bind(by)
        .bind(annotator)
        .execute(&mut *write.tx)
        .await?;
    Ok(())
}
