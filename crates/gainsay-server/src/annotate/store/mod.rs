//! Items, people, leases and answers: embedded SQLite (write-ahead log, every commit reaches the
//! disk) or PostgreSQL, where several servers may share one database.
//!
//! What holds under concurrency comes from transactions alone. Whoever takes, answers or frees a
//! place of an item holds the item's row; `(item, annotator)` is the key of `work`, so nobody can
//! stand there twice. Rows are locked in the order annotator, item, work.

mod answers;
mod items;
mod people;
mod places;
mod queue;
mod review;
mod schema;
mod settings;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyConnection, AnyPool, Connection, Row, Transaction};
use tokio::sync::{Mutex, MutexGuard};

use super::error::{AnnotateError, Result};

pub use answers::{Submitted, Undone};
pub use items::{ItemRow, ReRank};
pub(crate) use people::SESSION_SECONDS;
pub use people::{Person, Session, SessionOwner};
pub use queue::{Assignment, Progress};
pub use review::{Event, GivenElsewhere, Resolution, VoteRow};
pub use settings::{DEFAULT_GUIDELINES, Settings};

/// Which engine holds the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Embedded.
    Sqlite,
    /// By URL.
    Postgres,
}

impl Engine {
    /// A `postgres://` URL names a server, anything else a file.
    fn of(db: &str) -> Self {
        if db.starts_with("postgres://") || db.starts_with("postgresql://") { Self::Postgres } else { Self::Sqlite }
    }
}

/// The open database.
pub struct Store {
    pool: AnyPool,
    engine: Engine,
    /// One writer at a time on SQLite: waiting here is fair and wakes at once.
    writer: Mutex<()>,
    /// Answers given and wanted as of then, where counting them takes long.
    totals: Mutex<Option<(Instant, [i64; 2])>>,
}

/// A write transaction, with this process's turn where the engine needs one.
struct Write<'a> {
    tx: Transaction<'static, Any>,
    _turn: Option<MutexGuard<'a, ()>>,
}

impl Write<'_> {
    async fn commit(self) -> Result<()> {
        Ok(self.tx.commit().await?)
    }
}

impl Store {
    /// Opens the database, a path (SQLite) or a `postgres://` URL, and makes missing tables.
    ///
    /// # Errors
    /// A database that cannot be reached, or that another version wrote.
    pub async fn open(db: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let engine = Engine::of(db);
        let wrong = |problem: String| AnnotateError::Open { db: shown(db), problem };
        let (url, connections) = match engine {
            Engine::Postgres => (db.to_string(), 16),
            Engine::Sqlite => (sqlite_url(db).map_err(|e| wrong(e.to_string()))?, 4),
        };
        let options = AnyPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(10))
            .after_connect(move |connection, _| Box::pin(prepare(connection, engine)));
        let hint = match engine {
            Engine::Postgres => "is the server running, and may this user create tables?",
            Engine::Sqlite => "name a file in a folder that can be written",
        };
        let refused = |e: sqlx::Error| wrong(format!("cannot be opened: {e}; {hint}"));
        // A pool tries again and again; what is wrong from the start is said at once.
        let mut probe = AnyConnection::connect(&url).await.map_err(refused)?;
        prepare(&mut probe, engine).await.map_err(refused)?;
        probe.close().await.map_err(refused)?;
        let pool = options.connect(&url).await.map_err(refused)?;
        let store = Self { pool, engine, writer: Mutex::new(()), totals: Mutex::default() };
        store.make_tables().await.map_err(|e| match e {
            AnnotateError::Database(e) => refused(e),
            other => other,
        })?;
        match store.meta("schema").await? {
            Some(version) if version == schema::VERSION => Ok(store),
            found => Err(wrong(format!(
                "its tables are of version {}; this build reads {}",
                found.unwrap_or_else(|| "unknown".into()),
                schema::VERSION
            ))),
        }
    }

    /// [`Store::open`] for a database that must be there already: a mistyped path makes no file.
    ///
    /// # Errors
    /// A file that does not exist; what [`Store::open`] reports.
    pub async fn open_existing(db: &str) -> Result<Self> {
        if Engine::of(db) == Engine::Sqlite && !std::path::Path::new(db).is_file() {
            let problem = "there is no such database; name the one that `annotate serve` or `import` made".into();
            return Err(AnnotateError::Open { db: shown(db), problem });
        }
        Self::open(db).await
    }

    /// Which engine holds the tables.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    async fn make_tables(&self) -> Result<()> {
        // They are made all at once. To make them again, even where they are there, PostgreSQL locks
        // whole tables in an order of its own, in the way of whoever answers on another server.
        if matches!(self.meta("schema").await, Ok(Some(_))) {
            return Ok(());
        }
        let mut write = self.write().await?;
        if self.engine == Engine::Postgres {
            // Servers that start together would make the same tables at once.
            sqlx::query("SELECT pg_advisory_xact_lock(7241980)").execute(&mut *write.tx).await?;
        }
        for statement in schema::TABLES {
            sqlx::query(statement).execute(&mut *write.tx).await?;
        }
        let secret = super::web::token::random();
        for (key, value) in [("schema", schema::VERSION), ("lock", "0"), ("secret", &secret)] {
            sqlx::query("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING")
                .bind(key)
                .bind(value)
                .execute(&mut *write.tx)
                .await?;
        }
        write.commit().await
    }

    async fn write(&self) -> Result<Write<'_>> {
        match self.engine {
            Engine::Postgres => Ok(Write { tx: self.pool.begin().await?, _turn: None }),
            Engine::Sqlite => {
                let turn = self.writer.lock().await;
                Ok(Write { tx: self.pool.begin_with("BEGIN IMMEDIATE").await?, _turn: Some(turn) })
            }
        }
    }

    /// A write transaction that excludes every other one of its kind: for what an admin changes.
    async fn write_alone(&self) -> Result<Write<'_>> {
        let mut write = self.write().await?;
        sqlx::query("UPDATE meta SET value = value WHERE key = 'lock'").execute(&mut *write.tx).await?;
        Ok(write)
    }

    async fn meta(&self, key: &str) -> Result<Option<String>> {
        let row = sqlx::query("SELECT value FROM meta WHERE key = $1").bind(key).fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// The project's own random secret, the seed of which side a completion stands on.
    pub(crate) async fn secret(&self) -> Result<String> {
        Ok(self.meta("secret").await?.unwrap_or_default())
    }

    /// Whether the database answers.
    pub async fn is_alive(&self) -> bool {
        sqlx::query("SELECT 1").execute(&self.pool).await.is_ok()
    }
}

/// What a connection needs before anything else.
async fn prepare(connection: &mut AnyConnection, engine: Engine) -> std::result::Result<(), sqlx::Error> {
    if engine == Engine::Sqlite {
        for pragma in ["PRAGMA busy_timeout = 10000", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"] {
            sqlx::query(pragma).execute(&mut *connection).await?;
        }
    }
    Ok(())
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// The URL of an embedded database; the file is made, readable by its owner alone.
fn sqlite_url(path: &str) -> std::io::Result<String> {
    if let Some(parent) = std::path::Path::new(path).parent()
        && !parent.as_os_str().is_empty()
    {
        std::fs::create_dir_all(parent)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?;
    let encoded: String = path
        .bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    Ok(format!("sqlite://{encoded}?mode=rwc"))
}

/// A database's name without its password.
pub fn shown(db: &str) -> String {
    match (db.split_once("://"), db.rfind('@')) {
        (Some((scheme, rest)), Some(at)) => {
            let user = rest.split([':', '@']).next().unwrap_or_default();
            format!("{scheme}://{user}{}", &db[at..])
        }
        _ => db.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(shown("postgres://ann:pw@host/db"), "postgres://ann@host/db");
        assert_eq!(shown("postgres://host/db"), "postgres://host/db");
        assert_eq!(shown("runs/a@b.db"), "runs/a@b.db");
    }
}
