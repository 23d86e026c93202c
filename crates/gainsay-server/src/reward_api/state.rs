//! The models in force and what all handlers share.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::time::Duration;

use gainsay_core::engine::{LogProb, RewardFn};
use tokio::sync::Semaphore;

use super::item::Item;
use super::metrics::Metrics;
use super::queue::Queue;

/// A reward function that threads share.
pub type SharedReward = Arc<dyn RewardFn + Send + Sync>;
/// A policy that threads share.
pub type SharedPolicy = Arc<dyn LogProb + Send + Sync>;

/// One reward model of the ensemble.
#[derive(Clone)]
pub struct Member {
    /// Renders prompt and completion itself.
    pub parts: SharedReward,
    /// Reads text, or token ids, that are rendered already.
    pub rendered: SharedReward,
}

/// Counts the tokens of a sample; says what is wrong with one that cannot be read.
pub type Count = Arc<dyn Fn(&Item) -> Result<usize, String> + Send + Sync>;

/// The models that answer; replaced as a whole by a hot swap.
#[derive(Clone)]
pub struct Engine {
    /// The ensemble: its mean is the reward.
    pub members: Vec<Member>,
    /// The policy of PACS.
    pub policy: Option<SharedPolicy>,
    /// Counts tokens, where the model is here.
    pub count: Option<Count>,
    /// Longest sequence, tokens.
    pub max_tokens: usize,
    /// Name and digest.
    pub identity: String,
}

/// What the server accepts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Samples that go through the model together.
    pub batch: usize,
    /// Samples that may wait; beyond, 429.
    pub queue: usize,
    /// Largest body, bytes.
    pub body: usize,
    /// Longest time in which a request's headers must arrive; a connection may be idle as long.
    pub head_time: Duration,
    /// Longest time in which a body must arrive.
    pub body_time: Duration,
    /// Requests for PACS that may wait or run; beyond, 429.
    pub pacs: usize,
    /// How long a batch waits for company, once its first sample is there.
    pub gather: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch: 32,
            queue: 4096,
            body: 8 << 20,
            head_time: Duration::from_secs(30),
            body_time: Duration::from_secs(30),
            pacs: 64,
            gather: Duration::from_millis(2),
        }
    }
}

/// Loads the models of a specification.
pub type Loader = Arc<dyn Fn(&str) -> Result<Engine, String> + Send + Sync>;

/// How newer models come in.
#[derive(Clone)]
pub struct Reload {
    /// Loads.
    pub loader: Loader,
    /// What the server was started with.
    pub spec: String,
}

/// Why a newer model is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// One is being loaded already.
    Busy,
    /// What loading said.
    Failed(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("another model is being loaded; ask again once it is in force"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// Who may have PACS computed: a place for all that wait, one turn at a time.
#[derive(Clone)]
pub(super) struct PacsTurns {
    pub places: Arc<Semaphore>,
    pub turn: Arc<Semaphore>,
}

/// The state of the server; cheap to clone.
#[derive(Clone)]
pub struct RewardState {
    engine: Arc<RwLock<Arc<Engine>>>,
    loading: Arc<Mutex<()>>,
    pub(super) pacs: PacsTurns,
    pub(super) queue: Queue,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) key: Option<Arc<str>>,
    pub(super) reload: Option<Reload>,
}

impl RewardState {
    /// Starts the thread that scores. `key`: what clients must show; `reload`: how to hot swap.
    ///
    /// # Errors
    /// A thread that the system does not grant.
    pub fn new(engine: Engine, limits: Limits, key: Option<String>, reload: Option<Reload>) -> std::io::Result<Self> {
        let metrics = Arc::new(Metrics::default());
        let engine = Arc::new(RwLock::new(Arc::new(engine)));
        let queue = Queue::start(limits, metrics.clone())?;
        let places = Arc::new(Semaphore::new(limits.pacs.clamp(1, Semaphore::MAX_PERMITS)));
        let pacs = PacsTurns { places, turn: Arc::new(Semaphore::new(1)) };
        Ok(Self { engine, loading: Arc::default(), pacs, queue, limits, metrics, key: key.map(Into::into), reload })
    }

    /// The models in force.
    pub fn engine(&self) -> Arc<Engine> {
        self.engine.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other models in force. Requests that were taken end with the old ones; none is lost.
    pub fn swap(&self, engine: Engine) {
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(engine);
        self.metrics.swapped();
    }

    /// Loads `spec`, or what the server was started with, and swaps it in; takes as long as loading
    /// does, and blocks. One at a time: what is asked for meanwhile is refused, so that the models in
    /// force are those whose answer came last.
    ///
    /// # Errors
    /// What loading says, or that another is being loaded; the old models stay in force.
    pub fn load(&self, spec: Option<&str>) -> Result<String, LoadError> {
        let _alone = match self.loading.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(LoadError::Busy),
            // A loader that panicked has swapped nothing in.
            Err(TryLockError::Poisoned(lock)) => lock.into_inner(),
            Ok(lock) => lock,
        };
        let reload = self.reload.as_ref().ok_or(LoadError::Failed("this server cannot load models".into()))?;
        let engine = (reload.loader)(spec.unwrap_or(&reload.spec)).map_err(LoadError::Failed)?;
        let identity = engine.identity.clone();
        self.swap(engine);
        Ok(identity)
    }
}
