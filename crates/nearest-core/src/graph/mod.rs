//! A graph of neighbours: a search walks from row to row, towards the query.
//!
//! | file | what it holds |
//! |---|---|
//! | `codes.rs` | rows as short codes that lie where their numbers say, and queries made ready for them |
//! | `search.rs` | a query from its numbers to the best rows |
//! | `scan.rs` | many queries, compared with all of some rows |
//! | `walk.rs` | the way there: the best rows seen so far, and what they are linked to |
//! | `pool.rs` | the best rows seen so far, in order |
//! | `visited.rs` | which rows were seen |
//! | `hubs.rs` | rows that a walk starts from |
//! | `vectors.rs` | what building reads of rows |
//! | `pairs.rs` | distances between rows, for building |
//! | `near.rs` | rows near each row, found by inverted lists |
//! | `prune.rs` | which of the rows near a row it is linked to |
//! | `chosen.rs` | links that were chosen, and the same in the other direction |
//! | `build.rs` | the links of many rows at once |
//! | `insert.rs` | the links of few new rows among many |
//! | `links.rs` | links while they are chosen |
//! | `repair.rs` | links without dead rows, and with other numbers |
//! | `reach.rs` | which rows a walk can come to |
//!
//! Every row has `degree` links at most, in one array that is read a row at a time. Links of a version never change: what
//! adds or removes some makes other ones. Rows that came last have none yet; they wait, few, and are compared with every
//! query. Removed rows are ways through until they are many.

pub mod build;
pub mod chosen;
pub mod codes;
pub mod hubs;
pub mod insert;
pub mod links;
pub mod near;
pub mod pairs;
pub mod pool;
pub mod prune;
pub mod reach;
pub mod repair;
pub mod scan;
pub mod search;
pub mod vectors;
pub mod visited;
pub mod walk;

use std::sync::Arc;

pub use codes::Codes;
pub use hubs::Hubs;
pub use vectors::Read;

use crate::column::{CHUNK_ROWS, Column, Row};
use crate::live::RowSet;
use crate::metric::Metric;
use codes::Chunks;
use prune::Rule;
use visited::Visited;

/// What stands in the place of a link that is not there; all after it are not there either.
pub const NONE: Row = Row::MAX;
/// Rows that there may be: the pool has 31 bits for their numbers.
pub const MOST_ROWS: usize = 1 << 31;
/// Rows that may wait for links.
pub const MOST_WAITING: usize = 1024;
/// Of so many rows that have links one may be dead.
const ROWS_PER_DEAD: usize = 64;
/// Of squared distances: a link is left out if another leads nearer to where it goes by this factor.
const FACTOR: f32 = 1.1;

/// What a graph is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Links a row, at most.
    pub degree: usize,
    /// Rows near a row that its links are chosen from.
    pub ef_build: usize,
    /// What random choices start from.
    pub seed: u64,
}

/// A graph as it was when it was published.
#[derive(Clone, Debug)]
pub struct Graph {
    /// What it is to be.
    pub plan: Plan,
    /// What walks compare.
    pub codes: Codes,
    /// Links of the rows that have any, [`NONE`] where there are fewer.
    pub links: Column<Row>,
    /// Rows that walks start from.
    pub hubs: Arc<Hubs>,
    /// Among how many rows these were chosen.
    pub hubs_of: usize,
    /// How distances grow: the n-th nearest row is at about n to this power times the squared distance of the first.
    pub growth: f32,
    /// Live rows without links, ascending.
    pub waiting: Arc<Vec<Row>>,
    /// Rows with links, dead ones included.
    pub n_linked: usize,
    /// Dead rows that others were linked around since all links were chosen at once.
    pub n_repaired: usize,
}

impl Graph {
    /// A graph of no rows.
    pub fn new(plan: Plan, codes: Codes) -> Self {
        let links = Column::new(plan.degree, CHUNK_ROWS);
        let (hubs, waiting) = Default::default();
        Self { plan, codes, links, hubs, hubs_of: 0, growth: 0.0, waiting, n_linked: 0, n_repaired: 0 }
    }

    /// How links are chosen; of differences of inner products none is a small part.
    fn rule(&self, fills: bool) -> Rule {
        let is_product = self.codes.coding.frame().metric() == Metric::InnerProduct;
        Rule { degree: self.plan.degree, factor: if is_product { 1.0 } else { FACTOR }, fills }
    }

    /// Dead rows that are ways through.
    pub fn n_dead(&self, live: &RowSet) -> usize {
        (self.n_linked + self.waiting.len()).saturating_sub(live.len())
    }

    /// Whether dead rows are to be linked around.
    fn wants_repair(&self, live: &RowSet) -> bool {
        self.n_dead(live) > self.n_linked / ROWS_PER_DEAD
    }

    /// The same with rows that live and wait, and without those that died waiting.
    #[must_use]
    pub fn awaiting(&self, new: impl IntoIterator<Item = Row>, live: &RowSet) -> Self {
        let mut waiting: Vec<Row> = self.waiting.iter().copied().filter(|&row| live.contains(row)).collect();
        waiting.extend(new);
        waiting.sort_unstable();
        Self { waiting: Arc::new(waiting), ..self.clone() }
    }

    /// The rows that wait.
    pub fn waiting_rows(&self) -> RowSet {
        self.waiting.iter().copied().collect()
    }

    /// Live rows that do not wait.
    fn linked_rows(&self, live: &RowSet) -> RowSet {
        let mut rows = live.clone();
        rows.remove(self.waiting.iter().copied());
        rows
    }

    /// Links of a row; none where it waits.
    pub fn links_of(&self, row: Row) -> impl Iterator<Item = Row> + '_ {
        let links = self.links.get(row).unwrap_or_default();
        // Only a damaged file has others than rows before the end.
        let n = self.codes.rows_end();
        links.iter().copied().take_while(move |&link| (link as usize) < n)
    }

    /// Live rows that no walk can come to, and that do not wait.
    pub fn n_unreachable(&self, live: &RowSet) -> usize {
        let mut reached = Visited::default();
        reach::reach(&Chunks::new(&self.links), self.codes.rows_end(), &self.hubs.rows, &mut reached);
        reach::missed(&self.linked_rows(live), &reached).count()
    }

    /// Bytes of codes, scales, links and hubs, without those of a map.
    pub fn memory_bytes(&self) -> usize {
        self.codes.codes.memory_bytes()
            + self.codes.scales.memory_bytes()
            + self.links.memory_bytes()
            + self.hubs.memory_bytes()
    }
}
