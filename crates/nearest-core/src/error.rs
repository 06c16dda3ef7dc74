//! The few kinds of errors, named by what the caller can do about them.

use std::io;
use std::path::PathBuf;

/// What can go wrong. The Python binding maps each kind to one exception, in one place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is wrong; the text says what was expected and what was got. Nothing was changed.
    #[error("{0}")]
    Argument(String),
    /// An id that was asked for is not in the index.
    #[error("{0}")]
    UnknownId(String),
    /// The bytes are not a file that this version can open.
    #[error("{0}")]
    Format(String),
    /// The file system refused; nothing half-made was left.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file or folder concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// More memory than there is, or than was allowed.
    #[error("{0}")]
    Memory(String),
    /// This combination does not exist; the text names what works.
    #[error("{0}")]
    NotImplemented(String),
    /// The caller asked to stop.
    #[error("stopped before it was done; nothing was changed")]
    Cancelled,
    /// The index cannot be changed as it was opened.
    #[error("{0}")]
    ReadOnly(String),
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An argument error from anything that can be shown.
    pub fn argument(text: impl Into<String>) -> Self {
        Error::Argument(text.into())
    }

    /// A format error from anything that can be shown.
    pub fn format(text: impl Into<String>) -> Self {
        Error::Format(text.into())
    }

    /// An input or output error at `path`.
    pub fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Error::Io { path: path.into(), source }
    }
}
