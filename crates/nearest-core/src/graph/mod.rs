//! A graph of neighbours: a search walks from row to row, towards the query.
//!
//! | file | what it holds |
//! |---|---|
//! | `codes.rs` | rows as short codes that lie where their numbers say, and queries made ready for them |
//! | `walk.rs` | the search: the best rows seen so far, and what they are linked to |
//! | `pool.rs` | the best rows seen so far, in order |
//! | `visited.rs` | which rows were seen |
//! | `hubs.rs` | rows that a walk starts from |
//! | `pairs.rs` | distances between rows, for building |
//! | `near.rs` | rows near each row, found by inverted lists |
//! | `prune.rs` | which of the rows near a row it is linked to |
//! | `build.rs` | the links of many rows at once |
//! | `reach.rs` | which rows a walk can come to |
//!
//! Every row has `degree` links at most, in one array that is read a row at a time.

pub mod build;
pub mod codes;
pub mod hubs;
pub mod near;
pub mod pairs;
pub mod pool;
pub mod prune;
pub mod reach;
pub mod visited;
pub mod walk;

use crate::column::Row;

/// What stands in the place of a link that is not there; all after it are not there either.
pub const NONE: Row = Row::MAX;
