//! Models by their names on the command line.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use gainsay_core::engine::{
    Decoding, EngineError, LogProb, RewardFn, RewardsByHead, SampleRequest, Sampler, ScoreItem, SequenceLogp,
};
use gainsay_core::known::KnownReward;
use gainsay_core::record::Completion;
use gainsay_lm::model::{Backbone, Model, Place, Precision};
use gainsay_lm::policy::LocalPolicy;
use gainsay_lm::reward::{LocalReward, RewardModel};
use gainsay_lm::sequence::{Settings, Truncate};
use gainsay_lm::source::Loaded;
use gainsay_remote::{Address, RemotePolicy, RemoteReward};

use crate::cli::{Device, Dtype, ModelArgs};
use crate::error::{Error, Result};
use crate::remote;

/// What applies to every model of a command.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// Prompts verbatim, without the chat template.
    pub raw: bool,
    /// Cut too long sequences from the prompt's left instead of refusing them.
    pub truncate: bool,
    /// Number format of products with the weights.
    pub dtype: Dtype,
    /// File in which the answers of servers are kept until the work is done.
    pub answers: Option<PathBuf>,
}

impl ModelOptions {
    fn settings(&self) -> Settings {
        let truncate = if self.truncate { Truncate::Left } else { Truncate::Refuse };
        let usual = Settings::default();
        let (batch_tokens, max_rows) = (usual.batch_tokens * at_a_time(), usual.max_rows * at_a_time());
        Settings { raw: self.raw, truncate, batch_tokens, max_rows, ..usual }
    }
}

/// Applies `--threads` and `--device`; returns the number of threads.
///
/// # Errors
/// As [`place_on`].
pub fn prepare(args: &ModelArgs) -> Result<usize> {
    place_on(args.device)?;
    Ok(threads(args.threads))
}

/// Where the models of this process compute, once that has been said.
static PLACE: OnceLock<Place> = OnceLock::new();

/// Says where models that are loaded from now on compute.
///
/// # Errors
/// A device that this build or this machine does not compute on.
pub fn place_on(device: Device) -> Result<()> {
    if let Device::Cuda(ordinal) = device {
        let place = Place::cuda(ordinal).map_err(|e| Error::Input(format!("--device {e}")))?;
        let _ = PLACE.set(place);
    }
    Ok(())
}

/// How many times as much a GPU computes at once as the processor.
pub fn at_a_time() -> usize {
    if place().is_gpu() { 4 } else { 1 }
}

fn place() -> Place {
    PLACE.get().cloned().unwrap_or_default()
}

/// Sets the number of threads; 0 takes every core. Returns the number in force.
pub fn threads(wanted: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if wanted == 0 { cores } else { wanted };
    gainsay_kernels::set_threads(threads);
    // Fails only where the pool exists already.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    threads
}

/// Loads a model. Its identity ends in the number format, and `cuda` on a GPU, as log-probs depend
/// on them. A backbone that is in memory already is shared, and with it the rows below the lowest
/// adapter.
///
/// # Errors
/// What loading reports; a server's URL is refused with the reason.
pub fn load(spec: &str, dtype: Dtype) -> Result<Loaded> {
    if gainsay_remote::is_address(spec) {
        // Printed without what its path may hold of a key.
        let server = Address::parse(spec).map_or_else(|_| "a URL".into(), |address| address.to_string());
        return Err(Error::Input(format!(
            "{server}: this needs the model itself, not a server: give a folder, a .gguf file, hf:org/name, or smollm2-135m"
        )));
    }
    let mut loaded = gainsay_lm::source::load_knowing(spec, &|digest| known(digest, dtype))?;
    let on = if place().is_gpu() { " cuda" } else { "" };
    loaded.identity = format!("{} {dtype}{on}", loaded.identity);
    let first_adapted = Model::new(loaded.backbone.clone(), loaded.adapter.clone()).first_adapted();
    loaded.backbone = shared(loaded.backbone, dtype, first_adapted);
    Ok(loaded)
}

/// A backbone in memory.
struct Known {
    digest: String,
    dtype: Dtype,
    backbone: Weak<Backbone>,
    /// The lowest layer but 0 where an adapter of it begins.
    meeting: usize,
}

static BACKBONES: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// The backbone in memory that has this digest and this format.
fn known(digest: &str, dtype: Dtype) -> Option<Arc<Backbone>> {
    let known = BACKBONES.lock().unwrap_or_else(PoisonError::into_inner);
    known.iter().find(|k| k.digest == digest && k.dtype == dtype)?.backbone.upgrade()
}

/// The backbone in memory that has these weights and this format, or this one.
fn shared(mut backbone: Arc<Backbone>, dtype: Dtype, first_adapted: usize) -> Arc<Backbone> {
    let mut known = BACKBONES.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|k| k.backbone.strong_count() > 0);
    let meeting = if first_adapted > 0 { first_adapted } else { backbone.layers.len() };
    if let Some(same) = known.iter_mut().find(|k| k.digest == backbone.digest && k.dtype == dtype)
        && let Some(found) = same.backbone.upgrade()
    {
        same.meeting = same.meeting.min(meeting);
        found.trunk.meet_at(same.meeting);
        return found;
    }
    if let Some(fresh) = Arc::get_mut(&mut backbone) {
        if dtype == Dtype::Bf16 {
            fresh.set_precision(Precision::Bf16);
        }
        fresh.place = place();
    }
    if backbone.place == Place::Engine {
        backbone.pack();
    }
    let (digest, weak) = (backbone.digest.clone(), Arc::downgrade(&backbone));
    known.push(Known { digest, dtype, backbone: weak, meeting });
    backbone
}

/// Loads a policy.
pub fn policy(spec: &str, options: &ModelOptions) -> Result<LocalPolicy> {
    let mut loaded = load(spec, options.dtype)?;
    if options.raw {
        // Log-probs of prompts as they stand and of chats are not to be mixed.
        loaded.identity.push_str(" (verbatim prompts)");
    }
    Ok(LocalPolicy::new(&loaded, options.settings())?)
}

/// Loads a model for its features alone: any backbone will do. Long prompts lose their left.
///
/// # Errors
/// What loading reports.
pub fn featurizer(spec: &str, dtype: Dtype) -> Result<LocalReward> {
    let mut loaded = load(spec, dtype)?;
    loaded.head.get_or_insert_with(|| vec![0.0; loaded.backbone.config.hidden_size]);
    let options = ModelOptions { truncate: true, dtype, ..ModelOptions::default() };
    Ok(LocalReward::new(RewardModel::from_loaded(&loaded)?, options.settings()))
}

/// Loads a reward model.
///
/// # Errors
/// What loading reports, or a model without a reward head.
pub fn reward(spec: &str, options: &ModelOptions) -> Result<LocalReward> {
    let mut model = RewardModel::from_loaded(&load(spec, options.dtype)?)?;
    if options.raw {
        model.identity.push_str(" (verbatim prompts)");
    }
    Ok(LocalReward::new(model, options.settings()))
}

/// Where the answers of servers are kept while `out` is being made.
pub fn answers_beside(out: &Path) -> PathBuf {
    beside(out, ".answers")
}

/// Where the features of a file's completions are kept.
pub fn features_beside(file: &Path) -> PathBuf {
    beside(file, ".features")
}

/// What is kept next to a file or folder: its name with `ending` behind it.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// A policy by its name: here, or behind a server.
pub enum AnyPolicy {
    /// Computed here.
    Local(Box<LocalPolicy>),
    /// Behind a URL.
    Remote(Box<RemotePolicy>),
}

/// A policy, local or behind a server.
///
/// # Errors
/// What loading or connecting reports.
pub fn any_policy(spec: &str, options: &ModelOptions) -> Result<AnyPolicy> {
    match gainsay_remote::is_address(spec) {
        true => Ok(AnyPolicy::Remote(Box::new(remote::policy(spec, options)?))),
        false => Ok(AnyPolicy::Local(Box::new(policy(spec, options)?))),
    }
}

impl AnyPolicy {
    /// Sequences that were cut.
    pub fn truncated(&self) -> u64 {
        match self {
            Self::Local(policy) => policy.counters().truncated(),
            Self::Remote(_) => 0,
        }
    }

    /// The work is done: answers of a server need not be kept.
    pub fn forget(&self) {
        if let Self::Remote(policy) = self {
            policy.client().forget();
        }
    }

    fn log_prob(&self) -> &dyn LogProb {
        match self {
            Self::Local(policy) => policy.as_ref(),
            Self::Remote(policy) => policy.as_ref(),
        }
    }
}

impl Sampler for AnyPolicy {
    fn sample(
        &self,
        requests: &[SampleRequest],
        decoding: &Decoding,
    ) -> std::result::Result<Vec<Vec<Completion>>, EngineError> {
        match self {
            Self::Local(policy) => policy.sample(requests, decoding),
            Self::Remote(policy) => policy.sample(requests, decoding),
        }
    }

    fn identity(&self) -> String {
        self.log_prob().identity()
    }
}

impl LogProb for AnyPolicy {
    fn logps(&self, items: &[ScoreItem<'_>]) -> std::result::Result<Vec<SequenceLogp>, EngineError> {
        self.log_prob().logps(items)
    }

    fn identity(&self) -> String {
        self.log_prob().identity()
    }

    fn tokens(&self) -> u64 {
        self.log_prob().tokens()
    }
}

/// A reward by its name: computed here, known, or behind a server.
pub enum AnyReward {
    /// A reward model here.
    Local(Box<LocalReward>),
    /// A rule.
    Known(KnownReward),
    /// Behind a URL.
    Remote(Box<RemoteReward>),
}

/// A reward: `word:W`, `length:N`, `program:P`, a URL, or a reward model.
///
/// # Errors
/// A known reward that makes no sense; what loading or connecting reports.
pub fn any_reward(spec: &str, options: &ModelOptions) -> Result<AnyReward> {
    if gainsay_remote::is_address(spec) {
        return Ok(AnyReward::Remote(Box::new(remote::reward(spec, options)?)));
    }
    match KnownReward::parse(spec) {
        Some(known) => Ok(AnyReward::Known(known.map_err(|e| Error::Input(e.to_string()))?)),
        None => Ok(AnyReward::Local(Box::new(reward(spec, options)?))),
    }
}

impl AnyReward {
    /// Sequences that were cut.
    pub fn truncated(&self) -> u64 {
        match self {
            Self::Local(model) => model.counters().truncated(),
            Self::Known(_) | Self::Remote(_) => 0,
        }
    }

    /// The work is done: answers of a server need not be kept.
    pub fn forget(&self) {
        if let Self::Remote(model) = self {
            model.client().forget();
        }
    }

    fn function(&self) -> &dyn RewardFn {
        match self {
            Self::Local(model) => model.as_ref(),
            Self::Known(known) => known,
            Self::Remote(model) => model.as_ref(),
        }
    }
}

impl RewardFn for AnyReward {
    fn rewards(&self, items: &[ScoreItem<'_>]) -> std::result::Result<Vec<f64>, EngineError> {
        self.function().rewards(items)
    }

    fn reads_text(&self) -> bool {
        self.function().reads_text()
    }

    fn rewards_by_head(&self, items: &[ScoreItem<'_>]) -> std::result::Result<Option<RewardsByHead>, EngineError> {
        self.function().rewards_by_head(items)
    }

    fn identity(&self) -> String {
        self.function().identity()
    }

    fn tokens(&self) -> u64 {
        self.function().tokens()
    }
}

/// [`any_reward`] as a trait object.
///
/// # Errors
/// As [`any_reward`].
pub fn reward_fn(spec: &str, options: &ModelOptions) -> Result<Box<dyn RewardFn>> {
    Ok(Box::new(any_reward(spec, options)?))
}

/// A model whose hidden rows are read as features; it needs no head.
///
/// # Errors
/// What loading reports.
pub fn features(spec: &str, options: &ModelOptions) -> Result<LocalReward> {
    let mut loaded = load(spec, options.dtype)?;
    let width = loaded.backbone.config.hidden_size;
    loaded.head.get_or_insert_with(|| vec![0.0; width]);
    Ok(LocalReward::new(RewardModel::from_loaded(&loaded)?, options.settings()))
}
