//! Who gets which item, and what they answer.

use std::time::{Duration, Instant};

use gainsay_core::rng::Key;
use sqlx::Row;

use super::places::{change_taken, in_hands, lease, lock_annotator, lock_item};
use super::{Engine, ItemRow, Store, Write, items, now, review};
use crate::annotate::error::{AnnotateError, Result};
use crate::annotate::task::Given;
use crate::annotate::web::token;

/// How many answers back an annotator may go.
const UNDO_DEPTH: i64 = 10;

/// Answers wanted from which on a project is large.
const MANY_ANSWERS: i64 = 10_000;

/// How long the totals of a large project are kept.
const TOTALS_AGE: Duration = Duration::from_secs(1);

/// The open items for an annotator, the strongest conflict first; `$1` is the annotator.
const CANDIDATE: &str = "SELECT i.id FROM items i WHERE i.taken < i.overlap AND i.expected IS NULL
    AND NOT EXISTS (SELECT 1 FROM work w WHERE w.item_id = i.id AND w.annotator_id = $1 AND w.state <> 'released')
    ORDER BY i.priority, i.id LIMIT 1";

/// [`CANDIDATE`], passing over items that another transaction is just giving away.
const CANDIDATE_POSTGRES: &str = "SELECT i.id FROM items i WHERE i.taken < i.overlap AND i.expected IS NULL
    AND NOT EXISTS (SELECT 1 FROM work w WHERE w.item_id = i.id AND w.annotator_id = $1 AND w.state <> 'released')
    ORDER BY i.priority, i.id LIMIT 1 FOR UPDATE OF i SKIP LOCKED";

/// A gold check that the annotator has not seen.
const CHECK: &str = "SELECT i.id FROM items i WHERE i.expected IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM work w WHERE w.item_id = i.id AND w.annotator_id = $1 AND w.state <> 'released')
    ORDER BY i.id LIMIT 1";

/// An item in an annotator's hands.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The item.
    pub item: ItemRow,
    /// Must come back with the answer; a new one with every lease.
    pub ticket: String,
    /// Whether the second completion stands on the left.
    pub swapped: bool,
    /// What the annotator has begun to write, JSON.
    pub draft: Option<String>,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is on the disk.
    Recorded,
    /// The same form came before: nothing changed.
    Replayed,
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
    /// There is no answer that could be taken back.
    Nothing,
}

/// How far an annotator and the project are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The annotator's answers, skips included.
    pub mine: i64,
    /// The annotator's answers of the last hour.
    pub last_hour: i64,
    /// Answers of all annotators to items other than gold checks, at most the overlap an item.
    pub answered: i64,
    /// Answers wanted.
    pub wanted: i64,
}

impl Store {
    /// The item that the annotator works on: the one in hand, else a gold check when one is due,
    /// else the open item with the strongest conflict. `None` where nothing is left.
    pub async fn next(&self, annotator: i64) -> Result<Option<Assignment>> {
        let settings = self.settings().await?;
        if let Some(there) = self.in_hand(annotator, settings.lease_seconds).await? {
            return Ok(Some(there));
        }
        self.free_expired().await?;
        let secret = self.secret().await?;
        let mut write = self.write().await?;
        lock_annotator(&mut write.tx, annotator).await?;
        if in_hands(&mut write.tx, annotator).await? > 0 {
            // Another tab was quicker.
            write.commit().await?;
            return self.in_hand(annotator, settings.lease_seconds).await;
        }
        let done: i64 = sqlx::query("SELECT answered FROM annotators WHERE id = $1")
            .bind(annotator)
            .fetch_one(&mut *write.tx)
            .await?
            .try_get(0)?;
        let due = settings.gold_every > 0 && done % settings.gold_every == settings.gold_every - 1;
        let found = match if due { self.pick(&mut write, CHECK, annotator).await? } else { None } {
            Some(check) => Some(check),
            None => {
                let candidate = if self.engine == Engine::Postgres { CANDIDATE_POSTGRES } else { CANDIDATE };
                self.pick(&mut write, candidate, annotator).await?
            }
        };
        let Some(number) = found else {
            write.commit().await?;
            return Ok(None);
        };
        // Which side is random, and the same if the item comes back after a lease ran out.
        let draw = Key::new(annotator as u64, &secret).prompt("side").completion(number as usize).uniform_at(0);
        lease(&mut write.tx, number, annotator, draw < 0.5, settings.lease_seconds).await?;
        write.commit().await?;
        self.in_hand(annotator, settings.lease_seconds).await
    }

    async fn pick(&self, write: &mut Write<'_>, sql: &'static str, annotator: i64) -> Result<Option<i64>> {
        let row = sqlx::query(sql).bind(annotator).fetch_optional(&mut *write.tx).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// The item that the annotator opened last and has not answered; its lease starts anew.
    async fn in_hand(&self, annotator: i64, lease_seconds: i64) -> Result<Option<Assignment>> {
        let row = sqlx::query(
            "SELECT i.id, i.kind, i.body, i.expected, w.ticket, w.swapped, w.draft, w.lease_until
             FROM work w JOIN items i ON i.id = w.item_id WHERE w.annotator_id = $1 AND w.state = 'leased'
             ORDER BY w.opened DESC, w.item_id LIMIT 1",
        )
        .bind(annotator)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let found = assignment(&row)?;
        let until: i64 = row.try_get("lease_until")?;
        if until < now() + lease_seconds * 500 {
            let mut write = self.write().await?;
            let renewed = sqlx::query(
                "UPDATE work SET lease_until = $1 WHERE item_id = $2 AND annotator_id = $3 AND state = 'leased'",
            )
            .bind(now() + lease_seconds * 1000)
            .bind(found.item.number)
            .bind(annotator)
            .execute(&mut *write.tx)
            .await?;
            write.commit().await?;
            if renewed.rows_affected() == 0 {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// The item that a form with this ticket answers, whatever has become of it since.
    pub async fn held(&self, annotator: i64, item: i64, ticket: &str) -> Result<Option<Assignment>> {
        let row = sqlx::query(
            "SELECT i.id, i.kind, i.body, i.expected, w.ticket, w.swapped, w.draft
             FROM work w JOIN items i ON i.id = w.item_id WHERE w.annotator_id = $1 AND i.id = $2 AND w.ticket = $3",
        )
        .bind(annotator)
        .bind(item)
        .bind(ticket)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(assignment).transpose()
    }

    /// Frees the places of leases that ran out.
    async fn free_expired(&self) -> Result<()> {
        let expired = sqlx::query(
            "SELECT item_id, annotator_id FROM work WHERE state = 'leased' AND lease_until < $1
             ORDER BY item_id LIMIT 50",
        )
        .bind(now())
        .fetch_all(&self.pool)
        .await?;
        if expired.is_empty() {
            return Ok(());
        }
        for row in expired {
            // One item a transaction: whoever holds several could wait for each other.
            let mut write = self.write().await?;
            let (item, annotator): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            lock_item(&mut write.tx, item).await?;
            let freed = sqlx::query(
                "UPDATE work SET state = 'released'
                 WHERE item_id = $1 AND annotator_id = $2 AND state = 'leased' AND lease_until < $3",
            )
            .bind(item)
            .bind(annotator)
            .bind(now())
            .execute(&mut *write.tx)
            .await?;
            if freed.rows_affected() == 1 {
                change_taken(&mut write.tx, item, -1).await?;
            }
            write.commit().await?;
        }
        Ok(())
    }

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
            "SELECT w.state, w.ticket, w.opened, w.swapped, i.taken, i.overlap, i.ext_id
             FROM work w JOIN items i ON i.id = w.item_id WHERE w.item_id = $1 AND w.annotator_id = $2",
        )
        .bind(item)
        .bind(annotator)
        .fetch_optional(&mut *write.tx)
        .await?;
        let Some(row) = row else { return Ok(Submitted::NotYours) };
        let (state, held): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if held != ticket {
            return Ok(Submitted::NotYours);
        }
        let (taken, overlap): (i64, i64) = (row.try_get(4)?, row.try_get(5)?);
        let had_place = match state.as_str() {
            "leased" => true,
            "released" if taken < overlap => false,
            "released" => return Ok(Submitted::Full),
            _ => return Ok(Submitted::Replayed),
        };
        let change = i64::from(!given.response.is_skip()) - i64::from(had_place);
        if change != 0 {
            change_taken(&mut write.tx, item, change).await?;
        }
        let elapsed = (now() - row.try_get::<i64, _>(2)?).max(0) as f64 / 1000.0;
        let seconds = claimed.filter(|s| s.is_finite() && *s >= 0.0).map_or(elapsed, |s| s.min(elapsed));
        let body = serde_json::to_string(given).map_err(|e| AnnotateError::Input(e.to_string()))?;
        keep(&mut write, (item, annotator), given.response.is_skip(), &body, seconds).await?;
        let id: String = row.try_get(6)?;
        let left = if row.try_get::<i64, _>(3)? == 1 { "second" } else { "first" };
        let detail = format!("{{\"left\":\"{left}\",\"seconds\":{seconds:.1},\"answer\":{body}}}");
        review::record(&mut write.tx, name, "answer", Some(&id), &detail).await?;
        write.commit().await?;
        Ok(Submitted::Recorded)
    }

    /// Opens the annotator's last answer again, with what was answered as the draft.
    pub async fn undo(&self, annotator: i64, name: &str) -> Result<Undone> {
        let lease_seconds = self.settings().await?.lease_seconds;
        let mut write = self.write().await?;
        lock_annotator(&mut write.tx, annotator).await?;
        let open = in_hands(&mut write.tx, annotator).await?;
        let row = sqlx::query(
            "SELECT w.item_id, w.state, w.swapped, w.body, i.ext_id FROM work w JOIN items i ON i.id = w.item_id
             WHERE w.annotator_id = $1 AND w.state IN ('answered', 'skipped') ORDER BY w.answered DESC, w.item_id DESC
             LIMIT 1",
        )
        .bind(annotator)
        .fetch_optional(&mut *write.tx)
        .await?;
        let Some(row) = row else { return Ok(Undone::Nothing) };
        if open > UNDO_DEPTH {
            return Ok(Undone::Nothing);
        }
        let (item, state): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        lock_item(&mut write.tx, item).await?;
        if state == "skipped" {
            let row = sqlx::query("SELECT taken, overlap FROM items WHERE id = $1")
                .bind(item)
                .fetch_one(&mut *write.tx)
                .await?;
            if row.try_get::<i64, _>(0)? >= row.try_get::<i64, _>(1)? {
                return Ok(Undone::Nothing);
            }
            change_taken(&mut write.tx, item, 1).await?;
        }
        let body: Option<String> = row.try_get(3)?;
        sqlx::query(
            "UPDATE work SET state = 'leased', ticket = $1, opened = $2, lease_until = $3, body = NULL, draft = $4,
             seconds = NULL, answered = NULL WHERE item_id = $5 AND annotator_id = $6",
        )
        .bind(token::random())
        .bind(now())
        .bind(now() + lease_seconds * 1000)
        .bind(body.clone())
        .bind(item)
        .bind(annotator)
        .execute(&mut *write.tx)
        .await?;
        sqlx::query("UPDATE annotators SET answered = answered - 1 WHERE id = $1")
            .bind(annotator)
            .execute(&mut *write.tx)
            .await?;
        let id: String = row.try_get(4)?;
        review::record(&mut write.tx, name, "undo", Some(&id), &body.unwrap_or_else(|| "{}".into())).await?;
        write.commit().await?;
        Ok(Undone::Reopened)
    }

    /// Keeps what the annotator has begun to write; nothing where the item is not in hand.
    pub async fn keep_draft(&self, annotator: i64, item: i64, ticket: &str, draft: &str) -> Result<bool> {
        let mut write = self.write().await?;
        let kept = sqlx::query(
            "UPDATE work SET draft = $1 WHERE item_id = $2 AND annotator_id = $3 AND ticket = $4 AND state = 'leased'",
        )
        .bind(draft)
        .bind(item)
        .bind(annotator)
        .bind(ticket)
        .execute(&mut *write.tx)
        .await?;
        write.commit().await?;
        Ok(kept.rows_affected() == 1)
    }

    /// How far an annotator and the project are.
    pub async fn progress(&self, annotator: i64) -> Result<Progress> {
        let mine = sqlx::query(
            "SELECT COUNT(*), CAST(COALESCE(SUM(CASE WHEN answered > $2 THEN 1 ELSE 0 END), 0) AS BIGINT)
             FROM work WHERE annotator_id = $1 AND state IN ('answered', 'skipped')",
        )
        .bind(annotator)
        .bind(now() - 3_600_000)
        .fetch_one(&self.pool)
        .await?;
        let [answered, wanted] = self.totals().await?;
        Ok(Progress { mine: mine.try_get(0)?, last_hour: mine.try_get(1)?, answered, wanted })
    }

    /// Answers given, at most the overlap an item, and wanted. Of a large project, where it takes
    /// longer than all else that a page needs, it is at most a second old.
    async fn totals(&self) -> Result<[i64; 2]> {
        let mut known = self.totals.lock().await;
        if let Some((_, totals)) = known.filter(|(at, _)| at.elapsed() < TOTALS_AGE) {
            return Ok(totals);
        }
        let all = sqlx::query(
            "SELECT CAST(COALESCE(SUM(CASE WHEN taken < overlap THEN taken ELSE overlap END), 0) AS BIGINT),
             CAST(COALESCE(SUM(overlap), 0) AS BIGINT) FROM items WHERE expected IS NULL",
        )
        .fetch_one(&self.pool)
        .await?;
        let leased: i64 = sqlx::query(
            "SELECT COUNT(*) FROM work w JOIN items i ON i.id = w.item_id
             WHERE w.state = 'leased' AND i.expected IS NULL",
        )
        .fetch_one(&self.pool)
        .await?
        .try_get(0)?;
        let wanted = all.try_get(1)?;
        let totals = [all.try_get::<i64, _>(0)? - leased, wanted];
        *known = (wanted > MANY_ANSWERS).then(|| (Instant::now(), totals));
        Ok(totals)
    }
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
    sqlx::query("UPDATE annotators SET answered = answered + 1 WHERE id = $1")
        .bind(annotator)
        .execute(&mut *write.tx)
        .await?;
    Ok(())
}

fn assignment(row: &sqlx::any::AnyRow) -> Result<Assignment> {
    Ok(Assignment {
        item: items::item(row)?,
        ticket: row.try_get("ticket")?,
        swapped: row.try_get::<i64, _>("swapped")? == 1,
        draft: row.try_get("draft")?,
    })
}
