//! Items, people, leases and answers: embedded SQLite (write-ahead log, every commit reaches the
//! disk) or PostgreSQL, where several servers may share one database.
//!
//! What holds under concurrency comes from transactions alone. Whoever takes, answers or frees a
//! place of an item holds the item's row; `(item, annotator)` is the key of `work`, so nobody can
//! stand there twice. Rows are locked in the order annotator, item, work.

mod items;
mod people;
mod places;
mod queue;
mod review;
mod schema;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyConnection, AnyPool, Connection, Row, Transaction};
use tokio::sync::{Mutex, MutexGuard};

use super::error::{AnnotateError, Result};

pub use items::{ItemRow, ReRank};
pub(crate) use people::SESSION_SECONDS;
pub use people::{Person, Session, SessionOwner};
pub use queue::{Assignment, Progress, Submitted, Undone};
pub use review::{Event, Resolution, VoteRow};

/// Which engine holds the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Embedded.
    Sqlite,
    /// By URL.
    Postgres,
}

/// What an admin may set at any time.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The project's name on the pages.
    pub title: String,
    /// Markdown, shown first.
    pub guidelines: String,
    /// Answers wanted an item.
    pub overlap: i64,
    /// Every so many answers is a gold check; 0 for none.
    pub gold_every: i64,
    /// How long an item is kept for one person, seconds.
    pub lease_seconds: i64,
    /// Pay an hour, for the cost so far; 0 where it is not counted.
    pub cost_per_hour: f64,
    /// Labels of judgements.
    pub labels: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            title: "Annotation".into(),
            guidelines: DEFAULT_GUIDELINES.into(),
            overlap: 1,
            gold_every: 0,
            lease_seconds: 600,
            cost_per_hour: 0.0,
            labels: vec!["safe".into(), "unsafe".into()],
        }
    }
}

/// Guidelines of a project that brings none.
pub const DEFAULT_GUIDELINES: &str = "\
You see what somebody asked an assistant, and answers to it. Say which answer is better.

- **Better** means: more correct, more helpful, and safe. Length alone is no merit.
- **Clearly** or **slightly**: take the weaker one when in doubt.
- **Tie** where you would be as happy with either; **both bad** where you would want neither.
- **Skip** what you cannot judge, and say why.

Every button has a key, shown on it. You can take back your last answers.
";

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
        let engine = if db.starts_with("postgres://") || db.starts_with("postgresql://") {
            Engine::Postgres
        } else {
            Engine::Sqlite
        };
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

    /// Which engine holds the tables.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    async fn make_tables(&self) -> Result<()> {
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

    /// The settings; what was never set has its default.
    pub async fn settings(&self) -> Result<Settings> {
        let rows = sqlx::query("SELECT key, value FROM meta").fetch_all(&self.pool).await?;
        let mut settings = Settings::default();
        for row in rows {
            let (key, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            match key.as_str() {
                "title" => settings.title = value,
                "guidelines" => settings.guidelines = value,
                "overlap" => settings.overlap = value.parse().unwrap_or(settings.overlap),
                "gold_every" => settings.gold_every = value.parse().unwrap_or(settings.gold_every),
                "lease_seconds" => settings.lease_seconds = value.parse().unwrap_or(settings.lease_seconds),
                "cost_per_hour" => settings.cost_per_hour = value.parse().unwrap_or(settings.cost_per_hour),
                "labels" => settings.labels = value.split('\n').map(str::to_owned).collect(),
                _ => {}
            }
        }
        Ok(settings)
    }

    /// Changes settings; a new overlap holds for every item at once.
    ///
    /// # Errors
    /// Values out of range.
    pub async fn set(&self, settings: &Settings, actor: &str) -> Result<()> {
        check(settings)?;
        let mut write = self.write_alone().await?;
        let pairs = [
            ("title", settings.title.clone()),
            ("guidelines", settings.guidelines.clone()),
            ("overlap", settings.overlap.to_string()),
            ("gold_every", settings.gold_every.to_string()),
            ("lease_seconds", settings.lease_seconds.to_string()),
            ("cost_per_hour", settings.cost_per_hour.to_string()),
            ("labels", settings.labels.join("\n")),
        ];
        for (key, value) in pairs {
            let changed = sqlx::query(
                "INSERT INTO meta (key, value) VALUES ($1, $2)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE meta.value <> excluded.value",
            )
            .bind(key)
            .bind(value.clone())
            .execute(&mut *write.tx)
            .await?;
            if changed.rows_affected() > 0 {
                let detail = serde_json::json!({ "key": key, "value": value }).to_string();
                review::record(&mut write.tx, actor, "setting", None, &detail).await?;
            }
        }
        sqlx::query("UPDATE items SET overlap = $1 WHERE expected IS NULL AND overlap <> $1")
            .bind(settings.overlap)
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
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

fn check(settings: &Settings) -> Result<()> {
    let wrong = |text: &str| Err(AnnotateError::Input(text.into()));
    if !(1..=1000).contains(&settings.overlap) {
        return wrong("the overlap is 1 to 1000 answers an item");
    }
    if !(5..=86_400).contains(&settings.lease_seconds) {
        return wrong("a lease lasts 5 to 86400 seconds");
    }
    if !(0..=1000).contains(&settings.gold_every) {
        return wrong("gold checks come every 2 to 1000 answers; 0 for none");
    }
    if !(settings.cost_per_hour.is_finite() && settings.cost_per_hour >= 0.0) {
        return wrong("the cost an hour is a number of at least 0");
    }
    let bad = |text: &str| text.contains('\0') || text.len() > 100_000;
    if settings.title.trim().is_empty() || bad(&settings.title) || bad(&settings.guidelines) {
        return wrong("the title may not be empty; title and guidelines hold no NUL and at most 100,000 bytes");
    }
    let label = |l: &String| l.trim().is_empty() || l.len() > 60 || l.chars().any(char::is_control);
    if !(2..=9).contains(&settings.labels.len()) || settings.labels.iter().any(label) {
        return wrong("a judgement has 2 to 9 labels of at most 60 characters");
    }
    Ok(())
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

    #[test]
    fn settings_have_ranges() {
        assert!(check(&Settings::default()).is_ok());
        assert!(check(&Settings { overlap: 0, ..Settings::default() }).is_err());
        assert!(check(&Settings { cost_per_hour: f64::NAN, ..Settings::default() }).is_err());
        assert!(check(&Settings { labels: vec!["one".into()], ..Settings::default() }).is_err());
    }
}
