//! The one way into native work: without the interpreter lock, listening for signals, with errors turned into exceptions.

use std::sync::{Mutex, PoisonError};

use nearest_core::error::Result;
use nearest_core::work::{Caller, Work};
use pyo3::prelude::*;

use crate::errors::exception;

/// Looks for signals and reports progress, from the thread that called.
struct PythonCaller {
    progress: Option<Py<PyAny>>,
    raised: Mutex<Option<PyErr>>,
}

impl Caller for PythonCaller {
    fn poll(&self, done: u64, total: u64, stage: &str) -> bool {
        let polled = Python::attach(|py| {
            py.check_signals()?;
            if let Some(progress) = &self.progress {
                progress.call1(py, (done, total, stage))?;
            }
            Ok(())
        });
        match polled {
            Ok(()) => true,
            Err(error) => {
                *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                false
            }
        }
    }
}

/// Runs native work. What a signal handler or the progress callback raises stops it and is raised here.
pub fn enter<T: Send>(
    py: Python<'_>,
    n_threads: Option<usize>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(&Work<'_>) -> Result<T> + Send,
) -> PyResult<T> {
    enter_as(py, progress, |caller| work(&Work::new(n_threads, caller)))
}

/// Like [`enter`] for work that is given the caller itself.
pub fn enter_with_caller<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&dyn Caller) -> Result<T> + Send,
) -> PyResult<T> {
    enter_as(py, None, work)
}

fn enter_as<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(&dyn Caller) -> Result<T> + Send,
) -> PyResult<T> {
    let caller = PythonCaller { progress, raised: Mutex::new(None) };
    let result = py.detach(|| work(&caller));
    match caller.raised.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(raised) => Err(raised),
        None => result.map_err(|error| exception(py, error)),
    }
}
