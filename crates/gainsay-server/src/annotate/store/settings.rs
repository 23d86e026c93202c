//! What an admin sets, on the page or by options of the command.

use std::collections::HashMap;

use sqlx::Row;

use super::{Store, review};
use crate::annotate::error::{AnnotateError, Result};

/// Where the value is kept that an option of the command has last set.
const BY_OPTION: &str = "option ";

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

impl Settings {
    /// The settings under the names they are kept by.
    fn pairs(&self) -> [(&'static str, String); 7] {
        [
            ("title", self.title.clone()),
            ("guidelines", self.guidelines.clone()),
            ("overlap", self.overlap.to_string()),
            ("gold_every", self.gold_every.to_string()),
            ("lease_seconds", self.lease_seconds.to_string()),
            ("cost_per_hour", self.cost_per_hour.to_string()),
            ("labels", self.labels.join("\n")),
        ]
    }

    /// Takes a value as it is kept; names that are no settings, and values that do not fit, change
    /// nothing.
    fn take(&mut self, name: &str, value: String) {
        match name {
            "title" => self.title = value,
            "guidelines" => self.guidelines = value,
            "overlap" => self.overlap = value.parse().unwrap_or(self.overlap),
            "gold_every" => self.gold_every = value.parse().unwrap_or(self.gold_every),
            "lease_seconds" => self.lease_seconds = value.parse().unwrap_or(self.lease_seconds),
            "cost_per_hour" => self.cost_per_hour = value.parse().unwrap_or(self.cost_per_hour),
            "labels" => self.labels = value.split('\n').map(str::to_owned).collect(),
            _ => {}
        }
    }
}

impl Store {
    /// The settings; what was never set has its default.
    pub async fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::default();
        self.metas().await?.into_iter().for_each(|(name, value)| settings.take(&name, value));
        Ok(settings)
    }

    async fn metas(&self) -> Result<HashMap<String, String>> {
        let rows = sqlx::query("SELECT key, value FROM meta").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Changes settings; a new overlap holds for every item at once.
    ///
    /// # Errors
    /// Values out of range.
    pub async fn set(&self, settings: &Settings, actor: &str) -> Result<()> {
        self.change(settings, actor, &[]).await
    }

    /// Takes what options of the command say, by the names of [`Settings`]. An option that says
    /// what it said the last time changes nothing: what an admin has set since stays when the same
    /// command starts again.
    ///
    /// # Errors
    /// Values out of range.
    pub async fn take_options(&self, options: &[(&'static str, String)]) -> Result<()> {
        let known = self.metas().await?;
        let is_new = |(name, value): &&(&str, String)| known.get(&format!("{BY_OPTION}{name}")) != Some(value);
        let new: Vec<(&str, String)> = options.iter().filter(is_new).cloned().collect();
        let mut settings = self.settings().await?;
        new.iter().for_each(|(name, value)| settings.take(name, value.clone()));
        self.change(&settings, "admin", &new).await
    }

    async fn change(&self, settings: &Settings, actor: &str, options: &[(&str, String)]) -> Result<()> {
        check(settings)?;
        let mut write = self.write_alone().await?;
        for (key, value) in settings.pairs() {
            if put(&mut write.tx, key, &value).await? {
                let detail = serde_json::json!({ "key": key, "value": value }).to_string();
                review::record(&mut write.tx, actor, "setting", None, &detail).await?;
            }
        }
        for (name, value) in options {
            put(&mut write.tx, &format!("{BY_OPTION}{name}"), value).await?;
        }
        sqlx::query("UPDATE items SET overlap = $1 WHERE expected IS NULL AND overlap <> $1")
            .bind(settings.overlap)
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }
}

/// Keeps a value; whether it is another than before.
async fn put(tx: &mut sqlx::Transaction<'static, sqlx::Any>, key: &str, value: &str) -> Result<bool> {
    let changed = sqlx::query(
        "INSERT INTO meta (key, value) VALUES ($1, $2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE meta.value <> excluded.value",
    )
    .bind(key)
    .bind(value)
    .execute(&mut **tx)
    .await?;
    Ok(changed.rows_affected() > 0)
}

fn check(settings: &Settings) -> Result<()> {
    let wrong = |text: &str| Err(AnnotateError::Input(text.into()));
    if !(1..=1000).contains(&settings.overlap) {
        return wrong("the overlap is 1 to 1000 answers an item");
    }
    if !(5..=86_400).contains(&settings.lease_seconds) {
        return wrong("a lease lasts 5 to 86400 seconds");
    }
    if settings.gold_every == 1 || !(0..=1000).contains(&settings.gold_every) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_ranges() {
        assert!(check(&Settings::default()).is_ok());
        assert!(check(&Settings { overlap: 0, ..Settings::default() }).is_err());
        assert!(check(&Settings { gold_every: 1, ..Settings::default() }).is_err());
        assert!(check(&Settings { cost_per_hour: f64::NAN, ..Settings::default() }).is_err());
        assert!(check(&Settings { labels: vec!["one".into()], ..Settings::default() }).is_err());
    }
}
