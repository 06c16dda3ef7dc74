//! Every error of the core becomes one Python exception, here and nowhere else.

use nearest_core::error::Error;
use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError, PyNotImplementedError, PyOSError};
use pyo3::prelude::*;

/// The exception for an error. Own classes come from `nearest.errors`, so that Python code can name them.
pub fn exception(py: Python<'_>, error: Error) -> PyErr {
    let own = |class: &str, text: String| -> PyErr {
        match py.import("nearest.errors").and_then(|module| module.getattr(class)) {
            Ok(class) => match class.call1((text,)) {
                Ok(value) => PyErr::from_value(value),
                Err(error) => error,
            },
            Err(error) => error,
        }
    };
    match error {
        Error::Argument(text) => own("ArgumentError", text),
        Error::UnknownId(text) => own("UnknownIdError", text),
        Error::Format(text) => own("FormatError", text),
        Error::ReadOnly(text) => own("ReadOnlyError", text),
        Error::Memory(text) => PyMemoryError::new_err(text),
        Error::NotImplemented(text) => PyNotImplementedError::new_err(text),
        Error::Cancelled => PyKeyboardInterrupt::new_err(Error::Cancelled.to_string()),
        Error::Io { path, source } => match source.raw_os_error() {
            // Python chooses FileNotFoundError, PermissionError and so on by the number.
            Some(number) => {
                let text = source.to_string();
                let text = text.split(" (os error").next().unwrap_or_default().to_owned();
                PyOSError::new_err((number, text, path))
            }
            None => PyErr::from(std::io::Error::new(source.kind(), format!("{}: {source}", path.display()))),
        },
        other => own("NearestError", other.to_string()),
    }
}
