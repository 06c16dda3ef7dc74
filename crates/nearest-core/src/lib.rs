//! Every algorithm of `nearest`.
#![warn(missing_docs)]

pub mod candidates;
pub mod column;
pub mod error;
pub mod exact;
pub mod file;
pub mod files;
pub mod ids;
pub mod live;
pub mod memory;
pub mod metric;
pub mod stored;
pub mod work;
