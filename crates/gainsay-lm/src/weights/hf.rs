//! Hugging Face folders: `config.json` beside safetensors files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::store::Store;
use super::{Known, TensorSource, assemble, digest};
use crate::config::{Family, HfConfig, Task};
use crate::error::LmError;
use crate::model::{Backbone, ParamId, Part, Tensor};
use crate::names;

/// The weights of a folder.
#[derive(Clone, Debug)]
pub struct HfModel {
    /// The transformer. Of a sequence-classification checkpoint it has no output matrix, even
    /// where the embedding is not tied.
    pub backbone: Backbone,
    /// The reward head, `[hidden]`, of a sequence-classification checkpoint.
    pub head: Option<Vec<f32>>,
    /// The parsed `config.json`.
    pub config: HfConfig,
}

/// Reads the weights and configuration in `dir` (not its tokenizer).
pub fn read(dir: &Path) -> Result<HfModel, LmError> {
    let Shared { backbone, head, config } = read_knowing(dir, &|_| None)?;
    Ok(HfModel { backbone: Arc::unwrap_or_clone(backbone), head, config })
}

/// As [`HfModel`], with a transformer that others may hold too.
pub(crate) struct Shared {
    pub(crate) backbone: Arc<Backbone>,
    pub(crate) head: Option<Vec<f32>>,
    config: HfConfig,
}

/// [`read`], the transformer from `known` where that has its digest.
pub(crate) fn read_knowing(dir: &Path, known: Known<'_>) -> Result<Shared, LmError> {
    let config_path = dir.join("config.json");
    if !config_path.is_file() {
        let problem =
            "the folder has no config.json; give a Hugging Face model folder, an adapter folder or a .gguf file";
        return Err(LmError::NoModel { spec: dir.display().to_string(), problem: problem.to_owned() });
    }
    let config = HfConfig::read(&config_path)?;
    let store = Store::open(dir, "model")?;
    let mut digests = vec![digest::file(&config_path)?];
    digests.extend(store.digests()?);
    let digest = digest::combine(digests.iter().map(String::as_str));
    let mut source = HfSource::new(config.model.family, store, &config)?;
    let head = match config.task {
        Task::Causal => None,
        Task::Reward => Some(source.read(ParamId::Head, &[1, config.model.hidden_size])?.data),
    };
    let backbone = match known(&digest) {
        Some(backbone) => backbone,
        None => Arc::new(assemble(config.model.clone(), digest, config.task == Task::Causal, &mut source)?),
    };
    Ok(Shared { backbone, head, config })
}

struct HfSource {
    family: Family,
    store: Store,
    /// The stored name of each parameter.
    names: BTreeMap<ParamId, String>,
}

impl HfSource {
    /// Maps the stored names; a tensor that no layer here would use is refused, since leaving it
    /// out would compute something else than the model.
    fn new(family: Family, store: Store, config: &HfConfig) -> Result<Self, LmError> {
        let mut names = BTreeMap::new();
        for name in store.names() {
            match names::parse(family, name) {
                Some(id) if belongs(id, config) => drop(names.insert(id, name.to_owned())),
                _ if is_buffer(name) => {}
                _ => {
                    let problem = format!("has no place in a {family} model of this configuration");
                    return Err(LmError::tensor(store.path_of(name), name, problem));
                }
            }
        }
        Ok(Self { family, store, names })
    }
}

/// Whether a model of this configuration has the parameter at all.
fn belongs(id: ParamId, config: &HfConfig) -> bool {
    let family = config.model.family;
    let in_range = |l: usize| l < config.model.num_layers;
    match id {
        ParamId::QNorm(l) | ParamId::KNorm(l) => family == Family::Qwen3 && in_range(l),
        ParamId::Linear(l, proj, part) => in_range(l) && (part == Part::Weight || super::has_bias(family, proj)),
        ParamId::AttnNorm(l, part) | ParamId::MlpNorm(l, part) => {
            in_range(l) && (part == Part::Weight || family == Family::GptNeoX)
        }
        ParamId::LoraA(..) | ParamId::LoraB(..) => false,
        // Some savers keep a copy of a tied output matrix, or the pre-training's head.
        ParamId::Embed | ParamId::FinalNorm(_) | ParamId::LmHead => true,
        ParamId::Head => config.task == Task::Reward,
    }
}

/// Constants that older versions of transformers stored with the weights.
fn is_buffer(name: &str) -> bool {
    [".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"].iter().any(|end| name.ends_with(end))
}

impl TensorSource for HfSource {
    fn read(&mut self, id: ParamId, shape: &[usize]) -> Result<Tensor, LmError> {
        let name = match self.names.get(&id) {
            Some(name) => name.clone(),
            None => {
                let name = names::hf_name(self.family, id);
                let hint = match id {
                    ParamId::LmHead => "is missing, and `tie_word_embeddings` is not set in config.json",
                    _ => "is missing",
                };
                return Err(LmError::tensor(self.store.path_of(&name), &name, hint));
            }
        };
        self.store.read(&name, shape)
    }
}
