//! What can go wrong on the way to a server, in the server's own words.

use serde_json::Value;

/// The longest piece of a server's answer that is quoted.
const QUOTED: usize = 400;

/// A request that did not end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// The address, or what it asks for, makes no sense.
    #[error("{address}: {problem}")]
    Address {
        /// As the user wrote it.
        address: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The server understood and said no: asking again would not help.
    #[error("{url} answered {status}: {said}{remedy}")]
    Refused {
        /// What was asked.
        url: String,
        /// HTTP status, 4xx.
        status: u16,
        /// The server's own words.
        said: String,
        /// What to do, or nothing.
        remedy: &'static str,
    },
    /// The server failed, was busy or away every time.
    #[error("{url}: gave up after {tries} tries; the last: {last}{remedy}")]
    Unavailable {
        /// What was asked.
        url: String,
        /// How often.
        tries: u32,
        /// The last failure.
        last: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The server failed at a question about itself, as those do that lack what is asked for.
    #[error("{url} answered {status}: {said}")]
    Failed {
        /// What was asked.
        url: String,
        /// HTTP status, 500 or 501.
        status: u16,
        /// The server's own words.
        said: String,
    },
    /// The server's answer is not what its protocol promises.
    #[error("{url}: {problem}; the answer begins: {said}")]
    Answer {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        problem: String,
        /// Its beginning.
        said: String,
    },
    /// The server cannot do this.
    #[error("{url}: {problem}")]
    Unsupported {
        /// The server.
        url: String,
        /// What it lacks and what to do.
        problem: String,
    },
    /// Work on this side failed: a prompt that cannot be rendered, a file that cannot be written.
    #[error("{0}")]
    Local(String),
    /// The user asked to stop.
    #[error("stopped by Ctrl-C. What is finished is on disk: the same command again goes on from there")]
    Stopped,
}

impl RemoteError {
    /// Whether the user's input is at fault (address, key, request) and not the run.
    pub fn is_user_error(&self) -> bool {
        matches!(self, Self::Address { .. } | Self::Refused { .. } | Self::Unsupported { .. })
    }
}

/// Shorthand of this crate.
pub type Result<T> = std::result::Result<T, RemoteError>;

/// The server's own words in an error's body: the message of the usual JSON shapes, else the body.
pub(crate) fn words(body: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(body).ok();
    let message = parsed.as_ref().and_then(|value| {
        let places = ["/error/message", "/message", "/detail", "/error"];
        places.iter().find_map(|place| value.pointer(place)).map(|found| match found {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    });
    quote(&message.unwrap_or_else(|| body.to_owned()))
}

/// The beginning of a text on one line, without control characters.
pub(crate) fn quote(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = line.chars().filter(|c| !c.is_control()).take(QUOTED).collect();
    match (shown.is_empty(), line.chars().count() > QUOTED) {
        (true, _) => "(nothing)".into(),
        (false, true) => format!("{shown} …"),
        (false, false) => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_quoted_in_their_own_words() {
        assert_eq!(words(r#"{"error":{"message":"no such model","code":404}}"#), "no such model");
        assert_eq!(words(r#"{"detail":[{"msg":"field required"}]}"#), r#"[{"msg":"field required"}]"#);
        assert_eq!(words(r#"{"error":"overloaded","error_type":"x"}"#), "overloaded");
        assert_eq!(words("<html>\n  Bad\u{1b}[2J Gateway"), "<html> Bad[2J Gateway");
        assert_eq!(words(""), "(nothing)");
        assert!(words(&"x".repeat(1000)).len() < 420);
    }
}
