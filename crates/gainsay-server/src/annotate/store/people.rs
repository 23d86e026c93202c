//! Annotators, their one-time invites, and sessions. Tokens are kept as hashes.

use sqlx::Row;

use super::{Store, now, review};
use crate::annotate::error::{AnnotateError, Result};
use crate::annotate::web::token;

/// How long an invite may be used: a week.
const INVITE_MS: i64 = 7 * 24 * 3_600_000;

/// How long a session lasts: 30 days.
pub(crate) const SESSION_SECONDS: i64 = 30 * 24 * 3600;

/// An annotator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Number within the project.
    pub id: i64,
    /// As the admin wrote it.
    pub name: String,
    /// Whether the person may answer.
    pub active: bool,
    /// Whether the guidelines were shown.
    pub briefed: bool,
    /// Answers so far, skips included.
    pub answered: i64,
}

/// Whose session it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOwner {
    /// The admin.
    Admin,
    /// An annotator.
    Annotator(Person),
}

/// A session that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose it is.
    pub owner: SessionOwner,
    /// What every form must carry.
    pub csrf: String,
}

impl Store {
    /// Makes an invite for the annotator of this name, who is made where unknown. Returns the
    /// token; only its hash is kept.
    ///
    /// # Errors
    /// An empty or unreadable name.
    pub async fn invite(&self, name: &str) -> Result<String> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > 60 || name.chars().any(char::is_control) {
            return Err(AnnotateError::Input("an annotator's name has 1 to 60 visible characters".into()));
        }
        let mut write = self.write_alone().await?;
        let id = person_id(&mut write.tx, name).await?;
        let invite = token::random();
        sqlx::query("INSERT INTO invites (hash, annotator_id, expires) VALUES ($1, $2, $3)")
            .bind(token::hash(&invite))
            .bind(id)
            .bind(now() + INVITE_MS)
            .execute(&mut *write.tx)
            .await?;
        review::record(&mut write.tx, "admin", "invite", None, &serde_json::json!({ "name": name }).to_string())
            .await?;
        write.commit().await?;
        Ok(invite)
    }

    /// Whose invite this is, where it can still be used.
    pub async fn invited(&self, invite: &str) -> Result<Option<String>> {
        let row = sqlx::query(
            "SELECT a.name FROM invites i JOIN annotators a ON a.id = i.annotator_id
             WHERE i.hash = $1 AND i.used IS NULL AND i.expires > $2 AND a.active = 1",
        )
        .bind(token::hash(invite))
        .bind(now())
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Uses an invite up: a session's token, or nothing where it is unknown, used or too old.
    pub async fn accept_invite(&self, invite: &str) -> Result<Option<String>> {
        let mut write = self.write().await?;
        let used = sqlx::query("UPDATE invites SET used = $1 WHERE hash = $2 AND used IS NULL AND expires > $1")
            .bind(now())
            .bind(token::hash(invite))
            .execute(&mut *write.tx)
            .await?;
        if used.rows_affected() != 1 {
            return Ok(None);
        }
        let row = sqlx::query(
            "SELECT a.id, a.name FROM invites i JOIN annotators a ON a.id = i.annotator_id
             WHERE i.hash = $1 AND a.active = 1",
        )
        .bind(token::hash(invite))
        .fetch_optional(&mut *write.tx)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let session = open(&mut write.tx, Owner::Annotator(row.try_get(0)?)).await?;
        let name: String = row.try_get(1)?;
        review::record(&mut write.tx, &name, "sign-in", None, "{}").await?;
        write.commit().await?;
        Ok(Some(session))
    }

    /// Opens a session of the admin, whose secret the caller has checked; `secret` is its hash. The
    /// session lasts no longer than the secret does.
    pub async fn open_admin_session(&self, secret: &str) -> Result<String> {
        let mut write = self.write().await?;
        let session = open(&mut write.tx, Owner::Admin(secret)).await?;
        review::record(&mut write.tx, "admin", "sign-in", None, "{}").await?;
        write.commit().await?;
        Ok(session)
    }

    /// The session of a token, where it is open. `secret` is the hash of the admin's secret now.
    pub async fn session(&self, session: &str, secret: &str) -> Result<Option<Session>> {
        let row = sqlx::query(
            "SELECT s.annotator_id, s.csrf, a.name, a.active, a.briefed, a.answered
             FROM sessions s LEFT JOIN annotators a ON a.id = s.annotator_id
             WHERE ((s.hash = $1 AND s.annotator_id IS NOT NULL) OR (s.hash = $2 AND s.annotator_id IS NULL))
             AND s.expires > $3",
        )
        .bind(token::hash(session))
        .bind(admin_hash(session, secret))
        .bind(now())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let csrf = row.try_get(1)?;
        let Some(id) = row.try_get::<Option<i64>, _>(0)? else {
            return Ok(Some(Session { owner: SessionOwner::Admin, csrf }));
        };
        let person = Person {
            id,
            name: row.try_get(2)?,
            active: row.try_get::<i64, _>(3)? == 1,
            briefed: row.try_get::<i64, _>(4)? == 1,
            answered: row.try_get(5)?,
        };
        Ok(person.active.then_some(Session { owner: SessionOwner::Annotator(person), csrf }))
    }

    /// Ends a session; `secret` is the hash of the admin's secret now.
    pub async fn close_session(&self, session: &str, secret: &str) -> Result<()> {
        let mut write = self.write().await?;
        sqlx::query("DELETE FROM sessions WHERE hash = $1 OR hash = $2 OR expires < $3")
            .bind(token::hash(session))
            .bind(admin_hash(session, secret))
            .bind(now())
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }

    /// Remembers that the guidelines were shown.
    pub async fn briefed(&self, annotator: i64) -> Result<()> {
        let mut write = self.write().await?;
        sqlx::query("UPDATE annotators SET briefed = 1 WHERE id = $1").bind(annotator).execute(&mut *write.tx).await?;
        write.commit().await
    }

    /// Lets a person answer, or no longer; an inactive person's sessions end.
    pub async fn set_active(&self, annotator: i64, active: bool) -> Result<()> {
        let mut write = self.write().await?;
        sqlx::query("UPDATE annotators SET active = $1 WHERE id = $2")
            .bind(i64::from(active))
            .bind(annotator)
            .execute(&mut *write.tx)
            .await?;
        if !active {
            sqlx::query("DELETE FROM sessions WHERE annotator_id = $1").bind(annotator).execute(&mut *write.tx).await?;
        }
        let detail = serde_json::json!({ "annotator": annotator, "active": active }).to_string();
        review::record(&mut write.tx, "admin", "access", None, &detail).await?;
        write.commit().await
    }

    /// All annotators by name.
    pub async fn people(&self) -> Result<Vec<Person>> {
        let rows = sqlx::query("SELECT id, name, active, briefed, answered FROM annotators ORDER BY name")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Person {
                    id: row.try_get(0)?,
                    name: row.try_get(1)?,
                    active: row.try_get::<i64, _>(2)? == 1,
                    briefed: row.try_get::<i64, _>(3)? == 1,
                    answered: row.try_get(4)?,
                })
            })
            .collect()
    }
}

/// The annotator of this name, made where unknown; the caller holds the project's lock.
pub(super) async fn person_id(tx: &mut sqlx::Transaction<'static, sqlx::Any>, name: &str) -> Result<i64> {
    let row = sqlx::query("SELECT id FROM annotators WHERE name = $1").bind(name).fetch_optional(&mut **tx).await?;
    if let Some(row) = row {
        return Ok(row.try_get(0)?);
    }
    let id: i64 =
        sqlx::query("SELECT COALESCE(MAX(id), 0) + 1 FROM annotators").fetch_one(&mut **tx).await?.try_get(0)?;
    sqlx::query("INSERT INTO annotators (id, name, created, active) VALUES ($1, $2, $3, 1)")
        .bind(id)
        .bind(name)
        .bind(now())
        .execute(&mut **tx)
        .await?;
    Ok(id)
}

/// For whom a session is opened: an annotator's number, or the admin with the secret's hash.
enum Owner<'a> {
    Annotator(i64),
    Admin(&'a str),
}

/// What is kept of an admin's session: with another secret, its token opens nothing.
fn admin_hash(session: &str, secret: &str) -> String {
    token::hash(&format!("{session} {secret}"))
}

async fn open(tx: &mut sqlx::Transaction<'static, sqlx::Any>, owner: Owner<'_>) -> Result<String> {
    let session = token::random();
    let (hash, annotator) = match owner {
        Owner::Annotator(number) => (token::hash(&session), Some(number)),
        Owner::Admin(secret) => (admin_hash(&session, secret), None),
    };
    sqlx::query("INSERT INTO sessions (hash, annotator_id, csrf, expires) VALUES ($1, $2, $3, $4)")
        .bind(hash)
        .bind(annotator)
        .bind(token::random())
        .bind(now() + SESSION_SECONDS * 1000)
        .execute(&mut **tx)
        .await?;
    Ok(session)
}
