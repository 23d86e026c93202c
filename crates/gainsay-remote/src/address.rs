//! A server as the user writes it: a URL, with options behind `#`, where no server sees them.
//!
//! `http://gpu1:8000#api=vllm-classify,tokenizer=models/rm,concurrency=32`

use std::fmt;
use std::time::Duration;

use crate::error::{RemoteError, Result};

/// Where the API key is read from unless `key-env` names another variable.
pub const KEY_VARIABLE: &str = "GAINSAY_API_KEY";

/// A server's URL with the options that came with it.
#[derive(Clone, Debug)]
pub struct Address {
    /// Without options and trailing slash.
    pub base: String,
    /// Which protocol to speak; found out from the server where absent.
    pub api: Option<String>,
    /// The server's name for the model; its first where absent.
    pub model: Option<String>,
    /// A local model whose tokenizer and chat template render what is sent.
    pub tokenizer: Option<String>,
    /// Send text as it stands, without a chat template.
    pub raw: bool,
    /// File that describes any other JSON protocol.
    pub map: Option<String>,
    /// Environment variable that holds the API key.
    pub key_variable: String,
    /// How hard to try.
    pub limits: Limits,
}

/// How many requests at once, how large, how long, how often.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests under way at once.
    pub concurrency: usize,
    /// Items a request, where the protocol takes several.
    pub batch: usize,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Tries after the first.
    pub retries: u32,
    /// Wait before the second try; doubles with every further one, with jitter.
    pub backoff: Duration,
    /// Says whether the user wants to stop.
    pub stop: fn() -> bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrency: 8,
            batch: 8,
            timeout: Duration::from_secs(180),
            retries: 5,
            backoff: Duration::from_millis(500),
            stop: || false,
        }
    }
}

/// Whether a model's name on the command line is a server's address.
pub fn is_address(spec: &str) -> bool {
    spec.starts_with("http://") || spec.starts_with("https://")
}

impl Address {
    /// Reads `URL[#name=value,...]`.
    ///
    /// # Errors
    /// No http(s) URL, an option that is not known, a value that cannot be read, user information
    /// in the URL (it would end up in files).
    pub fn parse(text: &str) -> Result<Self> {
        let fault = |problem: String| RemoteError::Address { address: mask(&hide_user(text)), problem };
        let (url, options) = text.split_once('#').unwrap_or((text, ""));
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let Some(authority) = rest.map(|rest| rest.split('/').next().unwrap_or_default()) else {
            return Err(fault("a server's address begins with http:// or https://".into()));
        };
        if authority.is_empty() {
            return Err(fault("the address names no host".into()));
        }
        if authority.contains('@') {
            return Err(fault(format!("keys do not belong into addresses; put the key into {KEY_VARIABLE}")));
        }
        if url.contains('?') {
            return Err(fault("options follow a `#`, not a `?`".into()));
        }
        let mut address = Self {
            base: url.trim_end_matches('/').to_owned(),
            api: None,
            model: None,
            tokenizer: None,
            raw: false,
            map: None,
            key_variable: KEY_VARIABLE.into(),
            limits: Limits::default(),
        };
        for option in options.split(',').filter(|o| !o.is_empty()) {
            address.set(option).map_err(fault)?;
        }
        Ok(address)
    }

    fn set(&mut self, option: &str) -> std::result::Result<(), String> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if value.is_empty() && name != "raw" {
            return Err(format!("option `{name}` needs a value: {name}=…"));
        }
        let number = || match value.parse::<u32>() {
            Ok(n) if n > 0 || name == "retries" => Ok(n),
            _ => Err(format!("option `{option}`: give a whole number above 0")),
        };
        match name {
            "api" => self.api = Some(value.into()),
            "model" => self.model = Some(value.into()),
            "tokenizer" => self.tokenizer = Some(value.into()),
            "raw" => self.raw = true,
            "map" => self.map = Some(value.into()),
            "key-env" => self.key_variable = value.into(),
            "concurrency" => self.limits.concurrency = number()? as usize,
            "batch" => self.limits.batch = number()? as usize,
            "timeout" => self.limits.timeout = Duration::from_secs(u64::from(number()?)),
            "retries" => self.limits.retries = number()?,
            _ => {
                return Err(format!(
                    "option `{name}` is not known; there are api, model, tokenizer, raw, map, key-env, concurrency, \
                     batch, timeout (seconds) and retries"
                ));
            }
        }
        Ok(())
    }

    /// Whether the URL's path holds a key, `/k/KEY`.
    pub fn holds_key(&self) -> bool {
        self.path_key().is_some()
    }

    /// The key in the URL's path, `/k/KEY`.
    pub(crate) fn path_key(&self) -> Option<&str> {
        key_in(&self.base).map(|key| &self.base[key])
    }

    /// The URL of `path` on this server. Where the address already ends in the path, or in its
    /// first part (`/v1`), that is not doubled.
    pub fn url(&self, path: &str) -> String {
        let bare = path.trim_end_matches('/');
        if !bare.is_empty() && self.base.ends_with(bare) {
            return format!("{}{}", self.base, &path[bare.len()..]);
        }
        match path.strip_prefix("/v1") {
            Some(rest) if self.base.ends_with("/v1") => format!("{}{rest}", self.base),
            _ => format!("{}{path}", self.base.trim_end_matches("/v1")),
        }
    }
}

impl fmt::Display for Address {
    /// The URL alone, as it may stand in files and messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask(&self.base))
    }
}

/// Where a URL holds the key of a reward server, `/k/KEY`: `gainsay serve` takes it there, as
/// trainers' clients send no headers.
fn key_in(url: &str) -> Option<std::ops::Range<usize>> {
    let path = url.find("://").map(|at| at + 3).and_then(|host| Some(host + url[host..].find('/')?))?;
    let start = path + url[path..].find("/k/")? + 3;
    let length = url[start..].find(['/', '#', '?']).unwrap_or(url.len() - start);
    (length > 0).then_some(start..start + length)
}

/// The URL without the key in its path.
pub(crate) fn mask(url: &str) -> String {
    key_in(url).map_or_else(|| url.to_owned(), |key| format!("{}***{}", &url[..key.start], &url[key.end..]))
}

/// The text without what stands before an `@` in its authority.
fn hide_user(text: &str) -> String {
    match (text.find("://"), text.find('@')) {
        (Some(start), Some(at)) if start < at => format!("{}***{}", &text[..start + 3], &text[at..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_the_hash() {
        let address = Address::parse("http://h:1/v1/#api=tei,model=m/x,concurrency=3,timeout=9,retries=0,raw").unwrap();
        assert_eq!((address.base.as_str(), address.api.as_deref()), ("http://h:1/v1", Some("tei")));
        assert_eq!((address.model.as_deref(), address.raw), (Some("m/x"), true));
        assert_eq!((address.limits.concurrency, address.limits.retries), (3, 0));
        assert_eq!(address.limits.timeout, Duration::from_secs(9));
    }

    #[test]
    fn paths_are_not_doubled() {
        let url = |base: &str, path: &str| Address::parse(base).unwrap().url(path);
        assert_eq!(url("http://h/v1", "/v1/models"), "http://h/v1/models");
        assert_eq!(url("http://h", "/v1/models"), "http://h/v1/models");
        assert_eq!(url("http://h/v1", "/classify"), "http://h/classify");
        assert_eq!(url("http://h:5000/get_reward", "/get_reward"), "http://h:5000/get_reward");
        assert_eq!(url("http://h", "/generate/"), "http://h/generate/");
    }

    #[test]
    fn keys_in_paths_are_not_shown() {
        let address = Address::parse("http://h:5000/k/sesame/get_reward#raw").unwrap();
        assert_eq!(
            (address.path_key(), address.to_string().as_str()),
            (Some("sesame"), "http://h:5000/k/***/get_reward")
        );
        assert_eq!(address.url("/get_reward"), "http://h:5000/k/sesame/get_reward");
        assert_eq!(mask("https://h/rm/k/sesame"), "https://h/rm/k/***");
        assert_eq!(mask("http://k/k"), "http://k/k");
        let error = Address::parse("http://h/k/sesame#apis=x").unwrap_err().to_string();
        assert!(error.contains("/k/***#apis=x") && !error.contains("sesame"), "{error}");
    }

    #[test]
    fn wrong_addresses_say_what_to_do() {
        for (text, part) in [
            ("ftp://h", "http://"),
            ("http://", "no host"),
            ("http://h?x=1", "`#`"),
            ("http://h#apis=x", "not known"),
            ("http://h#model", "needs a value"),
            ("http://h#batch=0", "above 0"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.to_string().contains(part) && error.is_user_error(), "{error}");
        }
        let error = Address::parse("http://me:sesame@h/").unwrap_err().to_string();
        assert!(error.contains("GAINSAY_API_KEY") && !error.contains("sesame"), "{error}");
    }
}
