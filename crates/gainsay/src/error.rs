//! What can go wrong, split by whose turn it is: the user's (exit 2) or ours (exit 1).

use gainsay_core::engine::EngineError;
use gainsay_core::files::FileError;
use gainsay_lm::LmError;
use gainsay_remote::RemoteError;

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user's input is wrong; the message names it and says what to do.
    #[error("{0}")]
    Input(String),
    /// A file cannot be read, is not what it should be, or cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A model cannot be loaded, run or trained.
    #[error(transparent)]
    Model(#[from] LmError),
    /// The run failed for a reason outside the user's input.
    #[error("{0}")]
    Run(String),
    /// Ctrl-C; the message says how to go on.
    #[error("{0}")]
    Interrupted(String),
}

/// Shorthand of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// 2 where the user's input is wrong, files that cannot be read or written included, 130 after Ctrl-C, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::File(error) if error.is_full() => 1,
            Self::Input(_) | Self::File(_) => 2,
            Self::Model(error) if error.is_user_error() => 2,
            Self::Interrupted(_) => 130,
            Self::Model(_) | Self::Run(_) => 1,
        }
    }
}

impl From<EngineError> for Error {
    /// Engines box their errors; a local model's error keeps its kind.
    fn from(error: EngineError) -> Self {
        let error = match error.downcast::<LmError>() {
            Ok(error) => return Self::Model(*error),
            Err(error) => error,
        };
        match error.downcast::<RemoteError>() {
            Ok(error) => Self::from(*error),
            Err(error) => Self::Run(error.to_string()),
        }
    }
}

impl From<RemoteError> for Error {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Stopped => Self::Interrupted(error.to_string()),
            error if error.is_user_error() => Self::Input(error.to_string()),
            error => Self::Run(error.to_string()),
        }
    }
}
