//! LoRA adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::store::Store;
use super::{digest, linear_shape};
use crate::error::{LmError, read_json};
use crate::model::{Adapter, AdapterConfig, Backbone, LoraPair, ParamId, Proj};
use crate::names;

/// A parsed `adapter_config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftConfig {
    /// The file.
    pub path: PathBuf,
    /// `base_model_name_or_path`.
    pub base: String,
    /// Rank.
    pub rank: usize,
    /// Scale numerator.
    pub alpha: f64,
    /// Dropout of the training.
    pub dropout: f64,
}

/// An adapter's weights.
#[derive(Clone, Debug)]
pub struct PeftModel {
    /// The factors.
    pub adapter: Adapter,
    /// The reward head, `[hidden]`, of a sequence-classification adapter.
    pub head: Option<Vec<f32>>,
    /// SHA-256 of both files.
    pub digest: String,
}

impl PeftConfig {
    /// Reads `dir/adapter_config.json`, and refuses what would compute something other than
    /// W + (alpha / rank) B A.
    pub fn read(dir: &Path) -> Result<Self, LmError> {
        let path = dir.join("adapter_config.json");
        let json = read_json(&path)?;
        let fail = |problem: String| LmError::adapter(&path, problem);
        let kind = json.get("peft_type").and_then(Value::as_str).unwrap_or("unnamed");
        if kind != "LORA" {
            return Err(fail(format!("`peft_type: {kind}` is not supported; LORA is")));
        }
        refuse_variants(&path, &json)?;
        let rank = json.get("r").and_then(Value::as_u64).filter(|&r| r > 0);
        let rank = rank.ok_or_else(|| fail("`r`, the rank, is missing or not a positive integer".to_owned()))?;
        let alpha = json.get("lora_alpha").and_then(Value::as_f64).filter(|a| a.is_finite());
        let alpha = alpha.ok_or_else(|| fail("`lora_alpha` is missing or not a number".to_owned()))?;
        let base = json.get("base_model_name_or_path").and_then(Value::as_str).filter(|b| !b.is_empty());
        let base = base.ok_or_else(|| {
            fail("`base_model_name_or_path` is missing: write the base model's folder or name there".to_owned())
        })?;
        let dropout = json.get("lora_dropout").and_then(Value::as_f64).unwrap_or(0.0);
        Ok(Self { base: base.to_owned(), rank: rank as usize, alpha, dropout, path })
    }
}

fn refuse_variants(path: &Path, json: &Value) -> Result<(), LmError> {
    let set = |key: &str| match json.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(_) => true,
    };
    const VARIANTS: [&str; 13] = [
        "use_rslora",
        "use_dora",
        "use_qalora",
        "use_bdlora",
        "fan_in_fan_out",
        "lora_bias",
        "rank_pattern",
        "alpha_pattern",
        "layer_replication",
        "trainable_token_indices",
        "target_parameters",
        "alora_invocation_tokens",
        "kasa_config",
    ];
    if let Some(key) = VARIANTS.into_iter().find(|key| set(key)) {
        let problem = format!("`{key}` is set; only plain LoRA is supported: merge it into the base model with PEFT");
        return Err(LmError::adapter(path, problem));
    }
    match json.get("bias").and_then(Value::as_str) {
        None | Some("none") => Ok(()),
        Some(other) => Err(LmError::adapter(path, format!("`bias: {other}` is not supported; `none` is"))),
    }
}

/// Reads the factors in `dir` for `backbone`. Which projections and layers they adapt follows
/// from the file's tensors, whatever way `target_modules` spells it.
pub fn read(dir: &Path, config: &PeftConfig, backbone: &Backbone) -> Result<PeftModel, LmError> {
    let mut store = Store::open(dir, "adapter_model")?;
    let family = backbone.config.family;
    let (mut factors, mut head) = (BTreeMap::new(), None);
    let stored: Vec<String> = store.names().map(str::to_owned).collect();
    for name in stored {
        match names::parse(family, &name) {
            Some(ParamId::Head) => head = Some(store.read(&name, &[1, backbone.config.hidden_size])?.data),
            Some(id @ (ParamId::LoraA(l, _) | ParamId::LoraB(l, _))) if l < backbone.layers.len() => {
                drop(factors.insert(id, name));
            }
            _ => {
                let problem =
                    format!("has no place in a LoRA adapter on this {family} base of {} layers", backbone.layers.len());
                return Err(LmError::tensor(store.path_of(&name), &name, problem));
            }
        }
    }
    let pairs = read_pairs(&mut store, config, backbone, &factors)?;
    if pairs.is_empty() && head.is_none() {
        return Err(LmError::adapter(&dir.join("adapter_model.safetensors"), "holds neither LoRA factors nor a head"));
    }
    let mut digests = vec![digest::file(&config.path)?];
    digests.extend(store.digests()?);
    let adapter = Adapter { config: describe(config, backbone, &pairs), pairs };
    Ok(PeftModel { adapter, head, digest: digest::combine(digests.iter().map(String::as_str)) })
}

fn read_pairs(
    store: &mut Store,
    config: &PeftConfig,
    backbone: &Backbone,
    factors: &BTreeMap<ParamId, String>,
) -> Result<BTreeMap<(usize, Proj), LoraPair>, LmError> {
    let family = backbone.config.family;
    let mut pairs = BTreeMap::new();
    for id in factors.keys() {
        let (ParamId::LoraA(l, proj) | ParamId::LoraB(l, proj)) = *id else {
            continue;
        };
        if pairs.contains_key(&(l, proj)) {
            continue;
        }
        let [out, input] = linear_shape(&backbone.config, proj);
        let mut factor = |id: ParamId, shape: [usize; 2]| match factors.get(&id) {
            Some(name) => store.read(name, &shape),
            None => Err(LmError::tensor(store.path_of(""), &names::peft_name(family, id), "is missing")),
        };
        let a = factor(ParamId::LoraA(l, proj), [config.rank, input])?;
        let b = factor(ParamId::LoraB(l, proj), [out, config.rank])?;
        pairs.insert((l, proj), LoraPair { a, b });
    }
    Ok(pairs)
}

fn describe(config: &PeftConfig, backbone: &Backbone, pairs: &BTreeMap<(usize, Proj), LoraPair>) -> AdapterConfig {
    let targets: BTreeSet<Proj> = pairs.keys().map(|&(_, proj)| proj).collect();
    let layers: BTreeSet<usize> = pairs.keys().map(|&(l, _)| l).collect();
    let all = layers.len() == backbone.layers.len();
    AdapterConfig {
        rank: config.rank,
        alpha: config.alpha,
        dropout: config.dropout,
        targets: targets.into_iter().collect(),
        layers: (!all).then(|| layers.into_iter().collect()),
    }
}
