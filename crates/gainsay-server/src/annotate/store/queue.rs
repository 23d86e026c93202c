//! Who gets which item.

use std::time::{Duration, Instant};

use gainsay_core::rng::Key;
use sqlx::Row;

use super::places::{change_taken, in_hands, lease, lock_annotator, lock_item};
use super::{Engine, ItemRow, Store, Write, items, now};
use crate::annotate::error::Result;

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
        // `taken` counts open leases too. What a lower overlap leaves beyond it counts up to it.
        let all = sqlx::query(
            "SELECT CAST(COALESCE(SUM(CASE WHEN n.answered < n.overlap THEN n.answered ELSE n.overlap END), 0) AS BIGINT),
             CAST(COALESCE(SUM(n.overlap), 0) AS BIGINT)
             FROM (SELECT i.overlap, i.taken - COALESCE(l.leased, 0) AS answered FROM items i
                LEFT JOIN (SELECT item_id, COUNT(*) AS leased FROM work WHERE state = 'leased' GROUP BY item_id) l
                ON l.item_id = i.id WHERE i.expected IS NULL) n",
        )
        .fetch_one(&self.pool)
        .await?;
        let wanted = all.try_get(1)?;
        let totals = [all.try_get(0)?, wanted];
        *known = (wanted > MANY_ANSWERS).then(|| (Instant::now(), totals));
        Ok(totals)
    }
}

fn assignment(row: &sqlx::any::AnyRow) -> Result<Assignment> {
    Ok(Assignment {
        item: items::item(row)?,
        ticket: row.try_get("ticket")?,
        swapped: row.try_get::<i64, _>("swapped")? == 1,
        draft: row.try_get("draft")?,
    })
}
