//! Every algorithm of `nearest`.
#![warn(missing_docs)]

pub mod error;
pub mod memory;
pub mod metric;
