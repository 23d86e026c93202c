//! From what the user writes for a model to a loaded one.

mod default_model;
mod hub;
mod hub_data;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::LmError;
use crate::model::{Adapter, Backbone};
use crate::tiny;
use crate::tokenizer::Tokenizer;
use crate::weights::gguf::GgufFile;
use crate::weights::peft::PeftConfig;
use crate::weights::{Known, digest, hf, peft};

pub use default_model::{DEFAULT_MODEL, default_model_path};
pub use hub_data::dataset;

/// A model with everything that came with it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The transformer; of an adapter folder, the base model's.
    pub backbone: Arc<Backbone>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// LoRA factors, of an adapter folder.
    pub adapter: Option<Adapter>,
    /// The scalar reward head, `[hidden]`, where the files hold one.
    pub head: Option<Vec<f32>>,
    /// `<name>@sha256:<12 hexadecimal digits>`, over everything that computes: the name is the
    /// folder's or file's own, so that moving it changes nothing.
    pub identity: String,
    /// What the user wrote.
    pub spec: String,
}

/// Loads a model: a folder (Hugging Face layout, or a PEFT adapter, whose base is loaded too), a
/// `.gguf` file, `hf:org/name[@rev]`, `smollm2-135m` (the default model) or `tiny-random[:seed]`.
pub fn load(spec: &str) -> Result<Loaded, LmError> {
    load_knowing(spec, &|_| None)
}

/// [`load`], taking the transformer from `known` where that has its digest: then no weight is read.
///
/// # Errors
/// As [`load`].
pub fn load_knowing(spec: &str, known: Known<'_>) -> Result<Loaded, LmError> {
    load_within(spec, Path::new(""), 0, known)
}

/// The tokenizer of a model, without its weights where they lie apart.
///
/// # Errors
/// As [`load`].
pub fn tokenizer(spec: &str) -> Result<Tokenizer, LmError> {
    let path = if spec == DEFAULT_MODEL { default_model_path()? } else { PathBuf::from(spec) };
    if path.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
        return Tokenizer::from_gguf(&GgufFile::open(&path)?);
    }
    if path.join("tokenizer.json").is_file() { Tokenizer::from_folder(&path) } else { Ok(load(spec)?.tokenizer) }
}

/// `relative_to` is tried first for relative paths; `depth` counts adapters on the way.
fn load_within(spec: &str, relative_to: &Path, depth: usize, known: Known<'_>) -> Result<Loaded, LmError> {
    let no_model = |problem: &str| LmError::NoModel { spec: spec.to_owned(), problem: problem.to_owned() };
    if spec.is_empty() {
        return Err(no_model("give a folder, a .gguf file, hf:org/name, or smollm2-135m"));
    }
    if spec.starts_with("http://") || spec.starts_with("https://") {
        return Err(no_model(
            "this needs the model itself, not a server: give a folder, a .gguf file, hf:org/name, or smollm2-135m",
        ));
    }
    if spec == DEFAULT_MODEL {
        return load_gguf(&default_model_path()?, spec, spec, known);
    }
    if let Some(seed) = tiny::parse_spec(spec) {
        return tiny::loaded(seed?, spec);
    }
    if let Some(id) = spec.strip_prefix("hf:") {
        return load_path(&hub::fetch(id)?, spec, spec.trim_start_matches("hf:"), depth, known);
    }
    let path = match resolve(spec, relative_to) {
        Some(path) => path,
        None if depth > 0 && hub::looks_like_id(spec) => {
            return load_path(&hub::fetch(spec)?, spec, spec, depth, known);
        }
        None => {
            return Err(no_model(
                "there is no such folder or file; give a folder, a .gguf file, hf:org/name, or smollm2-135m",
            ));
        }
    };
    let name = path.canonicalize().unwrap_or_else(|_| path.clone());
    let name = name.file_name().unwrap_or(name.as_os_str()).to_string_lossy().into_owned();
    load_path(&path, spec, &name, depth, known)
}

fn resolve(spec: &str, relative_to: &Path) -> Option<PathBuf> {
    [relative_to.join(spec), PathBuf::from(spec)].into_iter().find(|path| path.exists())
}

fn load_path(path: &Path, spec: &str, name: &str, depth: usize, known: Known<'_>) -> Result<Loaded, LmError> {
    if path.is_file() {
        return match path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
            true => load_gguf(path, spec, name, known),
            false => Err(LmError::NoModel {
                spec: spec.to_owned(),
                problem: "a file must be a .gguf; for other formats give the model's folder".to_owned(),
            }),
        };
    }
    if path.join("adapter_config.json").is_file() {
        return load_adapter(path, spec, name, depth, known);
    }
    let model = hf::read_knowing(path, known)?;
    let tokenizer = Tokenizer::from_folder(path)?;
    finish(model.backbone, tokenizer, model.head, spec, name)
}

fn load_gguf(path: &Path, spec: &str, name: &str, known: Known<'_>) -> Result<Loaded, LmError> {
    let mut file = GgufFile::open(path)?;
    let tokenizer = Tokenizer::from_gguf(&file)?;
    let digest = file.digest()?;
    let backbone = match known(&digest) {
        Some(backbone) => backbone,
        None => Arc::new(file.backbone(digest)?),
    };
    finish(backbone, tokenizer, None, spec, name)
}

fn finish(
    backbone: Arc<Backbone>,
    tokenizer: Tokenizer,
    head: Option<Vec<f32>>,
    spec: &str,
    name: &str,
) -> Result<Loaded, LmError> {
    check_vocabulary(&backbone, &tokenizer, spec)?;
    let identity = identity(name, &backbone.digest);
    Ok(Loaded { backbone, tokenizer, adapter: None, head, identity, spec: spec.to_owned() })
}

fn load_adapter(dir: &Path, spec: &str, name: &str, depth: usize, known: Known<'_>) -> Result<Loaded, LmError> {
    let config = PeftConfig::read(dir)?;
    let fail = |problem: String| LmError::adapter(&config.path, problem);
    if depth > 0 {
        return Err(fail("its base is an adapter again; merge that one into its own base first".to_owned()));
    }
    let base = load_within(&config.base, dir, depth + 1, known).map_err(|e| match e {
        LmError::NoModel { spec, problem } => fail(format!("the base model `{spec}` cannot be loaded: {problem}")),
        other => other,
    })?;
    let model = peft::read(dir, &config, &base.backbone)?;
    let tokenizer = match dir.join("tokenizer.json").is_file() {
        true => Tokenizer::from_folder(dir)?,
        false => base.tokenizer,
    };
    check_vocabulary(&base.backbone, &tokenizer, spec)?;
    let digest = digest::combine([base.backbone.digest.as_str(), &model.digest]);
    Ok(Loaded {
        tokenizer,
        adapter: Some(model.adapter).filter(Adapter::is_active),
        head: model.head.or(base.head),
        identity: identity(name, &digest),
        spec: spec.to_owned(),
        backbone: base.backbone,
    })
}

fn identity(name: &str, digest: &str) -> String {
    format!("{name}@sha256:{}", digest::short(digest))
}

/// Every id that the tokenizer can produce needs a row in the embedding.
fn check_vocabulary(backbone: &Backbone, tokenizer: &Tokenizer, spec: &str) -> Result<(), LmError> {
    let (rows, ids) = (backbone.config.vocab_size, tokenizer.vocab_size());
    if ids <= rows {
        return Ok(());
    }
    let problem =
        format!("its tokenizer has ids up to {}, its embedding only {rows} rows: they do not belong together", ids - 1);
    Err(LmError::NoModel { spec: spec.to_owned(), problem })
}
