//! The native module of the Python package `nearest`: nothing but the way between Python and the core.
//!
//! | file | what it holds |
//! |---|---|
//! | `calls.rs` | the one way into native work |
//! | `arrays.rs` | numpy arrays in and out |
//! | `errors.rs` | errors become exceptions |
//! | `functions.rs`, `clusters.rs`, `index.rs`, `files.rs` | what `_native.pyi` lists |

mod arrays;
mod calls;
mod clusters;
mod errors;
mod files;
mod functions;
mod index;

use pyo3::prelude::*;

/// The native module of `nearest`; see `nearest` for what to use.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::clusters::{assign, kmeans, kmeans_rows};
    #[pymodule_export]
    use super::files::{describe, read_file, verify, write_file};
    #[pymodule_export]
    use super::functions::{available_bytes, default_n_threads, kernels, knn, knn_graph, pairwise};
    #[pymodule_export]
    use super::index::{Index, Snapshot, Stage};
}
