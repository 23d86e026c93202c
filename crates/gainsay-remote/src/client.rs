//! One server: requests with time-outs, retries and answers kept on disk.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use ureq::Agent;
use ureq::http::{HeaderMap, Response};

use crate::address::{Address, Limits, mask};
use crate::error::{RemoteError, Result, quote, words};
use crate::memory::Memory;

/// The longest wait that a server's Retry-After is granted.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The longest wait between tries otherwise.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// The largest answer that is read.
const LARGEST_ANSWER: u64 = 1 << 30;

/// Speaks HTTP to one server.
pub struct Client {
    agent: Agent,
    address: Address,
    key: Option<String>,
    memory: Option<Arc<Memory>>,
    sent: AtomicU64,
    repeated: AtomicU64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address.to_string()).finish_non_exhaustive()
    }
}

/// How a try ended that did not succeed.
enum Failure {
    /// Another try may succeed, after this wait where the server named one.
    Passing { status: Option<u16>, last: String, wait: Option<Duration> },
    /// No further try.
    Final(RemoteError),
}

impl Client {
    /// A client of the server at this address. The API key comes from the environment.
    pub fn new(address: Address, memory: Option<Arc<Memory>>) -> Self {
        let key = std::env::var(&address.key_variable).ok().filter(|key| !key.is_empty());
        Self::with_key(address, memory, key)
    }

    /// [`Client::new`] with this API key.
    pub fn with_key(address: Address, memory: Option<Arc<Memory>>, key: Option<String>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(address.limits.timeout))
            .timeout_connect(Some(Duration::from_secs(20)))
            .max_redirects(0)
            .max_idle_connections_per_host(address.limits.concurrency)
            .max_idle_connections(address.limits.concurrency)
            .build();
        Self { agent: config.into(), address, key, memory, sent: AtomicU64::new(0), repeated: AtomicU64::new(0) }
    }

    /// The address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.address.limits
    }

    /// Requests that were sent, and how many of them were tries after the first.
    pub fn requests(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.repeated.load(Ordering::Relaxed))
    }

    /// Removes the answers on disk, once the work that they belong to is done.
    pub fn forget(&self) {
        if let Some(memory) = &self.memory {
            memory.forget();
        }
    }

    /// Posts `body`, and hands the answer to `read`. An answer that `read` takes is kept on disk,
    /// and the same request is never sent again.
    ///
    /// # Errors
    /// A 4xx at once; anything else once the tries are used up; what `read` finds wrong, as a
    /// sentence about the answer.
    pub fn ask<T>(&self, path: &str, body: &Value, read: impl Fn(&Value) -> Found<T>) -> Result<T> {
        let url = self.address.url(path);
        let text = body.to_string();
        let key = Memory::key(&url, &text);
        if let Some(found) = self.memory.as_ref().and_then(|m| m.recall(&key))
            && let Ok(found) = read(&found)
        {
            return Ok(found);
        }
        let answer = self.tries(&url, self.limits().retries, || self.send(&url, Some(&text)))?;
        let found = read(&answer).map_err(|problem| self.wrong(&url, problem, &answer.to_string()))?;
        if let Some(memory) = &self.memory {
            memory.keep(key, &answer)?;
        }
        Ok(found)
    }

    /// One GET, tried again while the server, or the gateway before it, cannot be reached or is
    /// busy; a 500 or 501 is an answer. Nothing is kept.
    pub fn look(&self, path: &str) -> Result<Value> {
        let url = self.address.url(path);
        self.tries(&url, self.limits().retries, || self.send(&url, None).map_err(|f| settle(&url, f)))
    }

    /// [`Client::look`] for a POST: what a server answers to a question about itself.
    pub fn probe(&self, path: &str, body: &Value) -> Result<Value> {
        let url = self.address.url(path);
        let text = body.to_string();
        self.tries(&url, self.limits().retries, || self.send(&url, Some(&text)).map_err(|f| settle(&url, f)))
    }

    fn wrong(&self, url: &str, problem: String, said: &str) -> RemoteError {
        RemoteError::Answer { url: mask(url), problem, said: self.clean(&quote(said)) }
    }

    /// Without the keys, should the server have repeated them.
    fn clean(&self, text: &str) -> String {
        let keys = [self.key.as_deref(), self.address.path_key()];
        keys.into_iter().flatten().fold(text.to_owned(), |text, key| text.replace(key, "***"))
    }

    fn tries(&self, url: &str, retries: u32, send: impl Fn() -> std::result::Result<Value, Failure>) -> Result<Value> {
        for done in 0.. {
            if (self.limits().stop)() {
                return Err(RemoteError::Stopped);
            }
            self.sent.fetch_add(1, Ordering::Relaxed);
            match send() {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { last, wait, .. }) => {
                    let longest = wait.is_some_and(|w| w > LONGEST_WAIT);
                    if done >= retries || longest {
                        let remedy = match self.memory {
                            Some(_) => ". What is finished is on disk: run the same command again",
                            None => "; does the server run, and is the address right?",
                        };
                        return Err(RemoteError::Unavailable { url: mask(url), tries: done + 1, last, remedy });
                    }
                    self.repeated.fetch_add(1, Ordering::Relaxed);
                    self.rest(wait.unwrap_or_else(|| backoff(self.limits().backoff, done, jitter())))?;
                }
            }
        }
        Err(RemoteError::Stopped)
    }

    /// Sleeps, and wakes when the user asks to stop.
    fn rest(&self, wait: Duration) -> Result<()> {
        let until = std::time::Instant::now() + wait;
        while let Some(left) = until.checked_duration_since(std::time::Instant::now()) {
            if (self.limits().stop)() {
                return Err(RemoteError::Stopped);
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }

    fn send(&self, url: &str, body: Option<&str>) -> std::result::Result<Value, Failure> {
        let bearer = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let outcome = match body {
            Some(text) => {
                let mut request = self.agent.post(url).header("content-type", "application/json");
                if let Some(bearer) = &bearer {
                    request = request.header("authorization", bearer);
                }
                request.send(text)
            }
            None => {
                let mut request = self.agent.get(url);
                if let Some(bearer) = &bearer {
                    request = request.header("authorization", bearer);
                }
                request.call()
            }
        };
        match outcome {
            Ok(response) => self.read(url, response),
            Err(error) => Err(self.failed(url, &error)),
        }
    }

    fn failed(&self, url: &str, error: &ureq::Error) -> Failure {
        use ureq::Error::{BadUri, BodyExceedsLimit, ConnectionFailed, HostNotFound, Io, Protocol, Timeout};
        let last = self.clean(&quote(&error.to_string()));
        match error {
            Io(_) | Timeout(_) | ConnectionFailed | HostNotFound | Protocol(_) => {
                Failure::Passing { status: None, last, wait: None }
            }
            BadUri(_) => Failure::Final(RemoteError::Address { address: mask(url), problem: last }),
            BodyExceedsLimit(_) => Failure::Final(RemoteError::Unsupported {
                url: mask(url),
                problem: format!("the answer is too large ({last})"),
            }),
            _ => Failure::Final(RemoteError::Unsupported { url: mask(url), problem: last }),
        }
    }

    fn read(&self, url: &str, mut response: Response<ureq::Body>) -> std::result::Result<Value, Failure> {
        let status = response.status().as_u16();
        let wait = retry_after(response.headers(), SystemTime::now());
        let body = response.body_mut().with_config().limit(LARGEST_ANSWER).lossy_utf8(true).read_to_string();
        let body = match body {
            Ok(body) => body,
            Err(error) if (200..300).contains(&status) => return Err(self.failed(url, &error)),
            Err(_) => String::new(),
        };
        let said = || self.clean(&words(&body));
        match status {
            200..=299 => serde_json::from_str(&body).map_err(|error| {
                let problem = match ["NaN", "Infinity"].iter().find(|word| body.contains(*word)) {
                    Some(word) => format!("the answer holds {word}, which is no number: the model overflows"),
                    None => format!("the answer is no JSON ({error})"),
                };
                Failure::Final(self.wrong(url, problem, &body))
            }),
            429 | 500..=599 => {
                Err(Failure::Passing { status: Some(status), last: format!("{status}: {}", said()), wait })
            }
            _ => Err(Failure::Final(RemoteError::Refused {
                url: mask(url),
                status,
                said: said(),
                remedy: match status {
                    401 | 403 => "; put the key into GAINSAY_API_KEY, or name its variable with #key-env=NAME",
                    404 => "; is the address right, and which #api= does the server speak?",
                    413 => "; send less at once with #batch=1",
                    300..=399 => "; give the address that it redirects to",
                    _ => "",
                },
            })),
        }
    }
}

/// What reading an answer gives, or what is wrong with the answer.
pub type Found<T> = std::result::Result<T, String>;

/// A server's own failure in answer to a probe is an answer: it knows the path. Anything else may be
/// a gateway's word, or pass.
fn settle(url: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Passing { status: Some(status @ (500 | 501)), last, .. } => {
            let said = last.split_once(": ").map_or(last.as_str(), |(_, said)| said).to_owned();
            Failure::Final(RemoteError::Failed { url: mask(url), status, said })
        }
        other => other,
    }
}

/// base * 2^done, at most 30 s, times a factor in [1/2, 1].
fn backoff(base: Duration, done: u32, jitter: f64) -> Duration {
    let doubled = base.saturating_mul(2u32.saturating_pow(done)).min(LONGEST_BACKOFF);
    doubled.mul_f64(0.5 + 0.5 * jitter)
}

/// Uniform in [0, 1), from the system's own randomness: retries of many clients must spread.
fn jitter() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

/// The wait that a server asks for, in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Runs `work` on every item, at most `concurrency` at once; results in the items' order.
///
/// # Errors
/// That of the first item, in order, that failed; no further item is begun then.
pub fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    concurrency: usize,
    work: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::SeqCst);
            let Some(item) = items.get(index) else { return done };
            let outcome = work(item);
            if outcome.is_err() {
                next.store(items.len(), Ordering::SeqCst);
            }
            done.push((index, outcome));
        }
    };
    let workers = concurrency.clamp(1, items.len().max(1));
    let mut outcomes: Vec<(usize, Result<T>)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(run)).collect();
        handles.into_iter().flat_map(|h| h.join().unwrap_or_default()).collect()
    });
    outcomes.sort_by_key(|(index, _)| *index);
    let results: Vec<T> = outcomes.into_iter().map(|(_, outcome)| outcome).collect::<Result<_>>()?;
    if results.len() == items.len() { Ok(results) } else { Err(RemoteError::Local("a request's thread failed".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_bounds() {
        let base = Duration::from_millis(100);
        assert_eq!(backoff(base, 0, 1.0), base);
        assert_eq!(backoff(base, 3, 0.0), Duration::from_millis(400));
        assert_eq!(backoff(base, 60, 1.0), LONGEST_BACKOFF);
        assert!((0..100).map(|_| jitter()).all(|j| (0.0..1.0).contains(&j)));
    }

    #[test]
    fn retry_after_in_seconds_and_as_a_date() {
        let at = |value: &str| {
            let headers = HeaderMap::from_iter([(ureq::http::header::RETRY_AFTER, value.parse().unwrap())]);
            retry_after(&headers, SystemTime::UNIX_EPOCH)
        };
        assert_eq!(at("3"), Some(Duration::from_secs(3)));
        assert_eq!(at("0.25"), Some(Duration::from_millis(250)));
        assert_eq!(at("Thu, 01 Jan 1970 00:01:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!((at("soon"), at("-1")), (None, None));
    }

    #[test]
    fn order_is_kept_and_the_first_error_stops() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(in_parallel(&items, 7, |i| Ok(i * 2)).unwrap(), (0..100).map(|i| i * 2).collect::<Vec<_>>());
        let begun = AtomicUsize::new(0);
        let error = in_parallel(&items, 4, |i| {
            begun.fetch_add(1, Ordering::SeqCst);
            if *i >= 10 { Err(RemoteError::Local(i.to_string())) } else { Ok(()) }
        });
        assert_eq!(error.unwrap_err().to_string(), "10");
        assert!(begun.load(Ordering::SeqCst) < 20);
        assert_eq!(in_parallel(&[], 4, |_: &usize| Ok(1)).unwrap(), Vec::<i32>::new());
    }
}
