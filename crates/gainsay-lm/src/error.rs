//! What can go wrong with language models, worded for the person who has to put it right.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Errors of this crate. Every message names the file, tensor or field and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LmError {
    /// The model that was asked for is not there, or is not a model.
    #[error("no model at `{spec}`: {problem}")]
    NoModel {
        /// As the user wrote it.
        spec: String,
        /// What is missing, and the remedy.
        problem: String,
    },
    /// Layers that this build does not compute.
    #[error("{file}: unknown architecture `{found}`; supported: {supported}", file = .file.display())]
    UnknownArchitecture {
        /// Where the architecture stands.
        file: PathBuf,
        /// The name in the file.
        found: String,
        /// The names that would do.
        supported: String,
    },
    /// A configuration with a missing, contradictory or unsupported value.
    #[error("{file}: {problem}", file = .file.display())]
    Config {
        /// The configuration's file.
        file: PathBuf,
        /// The field, what is wrong with it, and the remedy.
        problem: String,
    },
    /// A tensor that is missing, misshapen, of an unknown type or not finite.
    #[error("{file}: tensor `{tensor}` {problem}", file = .file.display())]
    Tensor {
        /// The weights' file.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// Starts with a verb: "has shape ..., expected ...".
        problem: String,
    },
    /// A file that is cut off or not of the format that its name promises.
    #[error("{file}: {problem}", file = .file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Tokenizer or chat template.
    #[error("tokenizer {file}: {problem}", file = .file.display())]
    Tokenizer {
        /// Where the tokenizer came from.
        file: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// A prompt that the model's chat template cannot express.
    #[error("{0}")]
    Prompt(String),
    /// A LoRA adapter that this build cannot apply.
    #[error("{file}: {problem}", file = .file.display())]
    Adapter {
        /// `adapter_config.json` or `adapter_model.safetensors`.
        file: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// A model that could not be fetched.
    #[error("{0}")]
    Download(String),
    /// A file that could not be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that could not be written.
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Any other input that makes no sense; the text says what to do.
    #[error("{0}")]
    Input(String),
    /// The input was fine, the work on it failed.
    #[error("{0}")]
    Run(String),
}

impl LmError {
    /// True where the user can put it right by changing what was given (exit status 2): every
    /// error but a failed write for a reason other than place or permission, a read that broke
    /// off, and [`LmError::Run`] (exit status 1).
    pub fn is_user_error(&self) -> bool {
        use io::ErrorKind as Kind;
        match self {
            Self::Run(_) => false,
            Self::Read { source, .. } => !matches!(source.kind(), Kind::Other | Kind::Interrupted | Kind::OutOfMemory),
            Self::Write { source, .. } => matches!(
                source.kind(),
                Kind::PermissionDenied
                    | Kind::NotFound
                    | Kind::AlreadyExists
                    | Kind::NotADirectory
                    | Kind::IsADirectory
                    | Kind::ReadOnlyFilesystem
                    | Kind::StorageFull
                    | Kind::QuotaExceeded
            ),
            _ => true,
        }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Read { path, source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Write { path, source }
    }

    pub(crate) fn config(file: &Path, problem: impl Into<String>) -> Self {
        Self::Config { file: file.to_path_buf(), problem: problem.into() }
    }

    pub(crate) fn format(file: &Path, problem: impl fmt::Display) -> Self {
        Self::Format { file: file.to_path_buf(), problem: problem.to_string() }
    }

    pub(crate) fn tensor(file: &Path, tensor: &str, problem: impl Into<String>) -> Self {
        Self::Tensor { file: file.to_path_buf(), tensor: tensor.to_owned(), problem: problem.into() }
    }

    pub(crate) fn tokenizer(file: &Path, problem: impl fmt::Display) -> Self {
        Self::Tokenizer { file: file.to_path_buf(), problem: problem.to_string() }
    }

    pub(crate) fn adapter(file: &Path, problem: impl Into<String>) -> Self {
        Self::Adapter { file: file.to_path_buf(), problem: problem.into() }
    }
}

/// Reads a JSON file; errors name the file, line and column.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value, LmError> {
    let bytes = std::fs::read(path).map_err(LmError::read(path))?;
    serde_json::from_slice(&bytes).map_err(|e| LmError::format(path, format!("not valid JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_can_mend_is_told_apart_from_what_failed() {
        let file = Path::new("m/model.safetensors");
        let read = |kind: io::ErrorKind| LmError::read(file)(kind.into());
        let write = |kind: io::ErrorKind| LmError::write(file)(kind.into());
        assert!(read(io::ErrorKind::PermissionDenied).is_user_error());
        assert!(!read(io::ErrorKind::Interrupted).is_user_error());
        assert!(write(io::ErrorKind::StorageFull).is_user_error());
        assert!(!write(io::ErrorKind::BrokenPipe).is_user_error());
        assert!(!LmError::Run("the loss is not finite".into()).is_user_error());
        let error = LmError::tensor(file, "score.weight", "is missing");
        assert!(error.is_user_error());
        assert_eq!(error.to_string(), "m/model.safetensors: tensor `score.weight` is missing");
    }
}
