//! Every algorithm of `nearest`; knows nothing of Python.
//!
//! | where | what it holds |
//! |---|---|
//! | [`index`] | the index: versions that readers see whole, one writer, its file |
//! | [`exact`] | exact search: single queries, batches, all pairs |
//! | [`lists`] | inverted lists: what a query looks at is what lies near it |
//! | [`graph`] | a graph of neighbours to walk along |
//! | [`encoding`], [`stored`], [`metric`] | how vectors are stored, how distances are measured |
//! | [`kmeans`], [`random`] | clusters, and numbers from a seed |
//! | [`coder`], [`rotation`], [`pca`] | short codes of vectors, and what turns vectors before |
//! | [`column`], [`live`], [`ids`] | rows in append-only chunks, which of them count, what the caller calls them |
//! | [`candidates`] | the k nearest seen so far |
//! | [`work`] | executor, progress, cancel and memory of one call |
//! | [`memory`] | the allocator interface, huge pages, maps; the only `unsafe` of the crate |
//! | [`files`], [`file`] | all access to files, and the container format |
//! | [`error`] | the few kinds of errors |
#![warn(missing_docs)]

pub mod candidates;
pub mod coder;
pub mod column;
pub mod encoding;
pub mod error;
pub mod exact;
pub mod file;
pub mod files;
pub mod graph;
pub mod ids;
pub mod index;
pub mod kmeans;
pub mod lists;
pub mod live;
pub mod memory;
pub mod metric;
pub mod pca;
pub mod random;
pub mod rotation;
pub mod stored;
mod symmetric;
pub mod work;
