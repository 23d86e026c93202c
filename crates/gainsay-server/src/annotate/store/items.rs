//! The items of a project.

use sqlx::Row;

use super::{Store, review};
use crate::annotate::error::{AnnotateError, Result};
use crate::annotate::task::{Given, Task};

/// Places of a gold check: everybody may get it.
const UNLIMITED: i64 = 1_000_000_000;

/// An item with its state.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemRow {
    /// Number within the project.
    pub number: i64,
    /// The question.
    pub task: Task,
    /// The right answer of a gold check.
    pub expected: Option<String>,
}

/// A new place in the queue: lower comes first.
#[derive(Clone, Debug, PartialEq)]
pub struct ReRank {
    /// The item's id.
    pub id: String,
    /// Its priority.
    pub priority: f64,
}

impl Store {
    /// Adds items behind those that are there; ids that are known are left as they are. Returns
    /// how many are new.
    ///
    /// # Errors
    /// An id that is known with another prompt or other texts.
    pub async fn add_items(&self, tasks: &[Task]) -> Result<usize> {
        let rows: Vec<(&Task, Option<String>)> = tasks.iter().map(|task| (task, None)).collect();
        self.add(&rows).await
    }

    /// Adds gold checks: comparisons whose right answer is known. They are mixed in among the
    /// items and measure annotators; they are not exported.
    ///
    /// # Errors
    /// As for [`Store::add_items`].
    pub async fn add_gold_checks(&self, checks: &[(Task, Given)]) -> Result<usize> {
        let rows: Vec<(&Task, Option<String>)> =
            checks.iter().map(|(task, given)| (task, Some(given.response.words()))).collect();
        self.add(&rows).await
    }

    async fn add(&self, rows: &[(&Task, Option<String>)]) -> Result<usize> {
        let overlap = self.settings().await?.overlap;
        let mut write = self.write_alone().await?;
        let last: i64 =
            sqlx::query("SELECT COALESCE(MAX(id), 0) FROM items").fetch_one(&mut *write.tx).await?.try_get(0)?;
        let mut added = 0;
        for (task, expected) in rows {
            let number = last + 1 + added as i64;
            let places = if expected.is_some() { UNLIMITED } else { overlap };
            let inserted = sqlx::query(
                "INSERT INTO items (id, ext_id, kind, body, priority, overlap, expected)
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (ext_id) DO NOTHING",
            )
            .bind(number)
            .bind(clean(task.id())?)
            .bind(task.kind().name())
            .bind(task.to_json())
            .bind(number as f64)
            .bind(places)
            .bind(expected.clone())
            .execute(&mut *write.tx)
            .await?;
            if inserted.rows_affected() == 1 {
                added += 1;
                continue;
            }
            let there = sqlx::query("SELECT id, kind, body, expected FROM items WHERE ext_id = $1")
                .bind(task.id())
                .fetch_one(&mut *write.tx)
                .await?;
            if !asks_the_same(&item(&there)?.task, task) {
                return Err(AnnotateError::Input(format!(
                    "item `{}` is in the database with another prompt or other texts; use a new --db for another selection",
                    task.id()
                )));
            }
        }
        if added > 0 {
            review::record(&mut write.tx, "admin", "items", None, &format!("{{\"added\":{added}}}")).await?;
        }
        write.commit().await?;
        Ok(added)
    }

    /// Every item, in the order in which they were added.
    pub async fn items(&self) -> Result<Vec<ItemRow>> {
        let rows = sqlx::query("SELECT id, kind, body, expected FROM items ORDER BY id").fetch_all(&self.pool).await?;
        rows.iter().map(item).collect()
    }

    /// One item by its number.
    pub async fn item(&self, number: i64) -> Result<Option<ItemRow>> {
        let row = sqlx::query("SELECT id, kind, body, expected FROM items WHERE id = $1")
            .bind(number)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(item).transpose()
    }

    /// Gives items new places in the queue.
    pub async fn rerank(&self, places: &[ReRank]) -> Result<()> {
        let mut write = self.write_alone().await?;
        // One order for all writers, so that two servers cannot wait for each other.
        let mut places: Vec<&ReRank> = places.iter().collect();
        places.sort_by(|a, b| a.id.cmp(&b.id));
        let mut moved = 0;
        for place in places {
            let done = sqlx::query("UPDATE items SET priority = $1 WHERE ext_id = $2 AND priority <> $1")
                .bind(place.priority)
                .bind(place.id.clone())
                .execute(&mut *write.tx)
                .await?;
            moved += done.rows_affected();
        }
        if moved > 0 {
            review::record(&mut write.tx, "live", "rank", None, &format!("{{\"moved\":{moved}}}")).await?;
        }
        write.commit().await
    }
}

/// Whether people see the same. What else a record carries, such as its place in a file, differs
/// between two exports of one project.
fn asks_the_same(a: &Task, b: &Task) -> bool {
    a.kind() == b.kind() && a.prompt().messages() == b.prompt().messages() && a.texts() == b.texts()
}

fn clean(id: &str) -> Result<String> {
    if id.contains('\0') {
        return Err(AnnotateError::Input(format!("the id {id:?} holds a NUL character")));
    }
    Ok(id.into())
}

pub(super) fn item(row: &sqlx::any::AnyRow) -> Result<ItemRow> {
    let (kind, body): (String, String) = (row.try_get("kind")?, row.try_get("body")?);
    let task = Task::from_json(&kind, &body).map_err(|problem| AnnotateError::Stored { what: "item", problem })?;
    Ok(ItemRow { number: row.try_get("id")?, task, expected: row.try_get("expected")? })
}
