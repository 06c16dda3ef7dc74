//! What a filter leaves of the lists, and how far its queries go.
//!
//! Without a filter, what is near a query lies in the lists nearest to it. With one, the nearest that pass may lie anywhere:
//! somewhat farther if it keeps some at random, far away if it keeps what is unlike the query. So a query goes on, twice as
//! far each time, as long as that pays: until of the best that it knows at most one in [`LATE`] was found since it went on.

use std::sync::{Arc, OnceLock};

use nearest_kernels::PANEL_ROWS;

use super::List;
use super::pool::Estimate;
use crate::column::Row;
use crate::live::{RowSet, is_in};

/// Best estimates that tell whether to go on: fewer are chance.
pub const TELLING: usize = 32;
/// One of so many of them may be new where a query stops.
const LATE: usize = 20;
/// Of so many live rows one may be kept from a query that is to go no farther than without a filter.
const DENSE: u64 = 10;

/// Which rows of lists may be found: seen when a query first comes near a list.
#[derive(Debug)]
pub struct Matches<'a> {
    lists: &'a [Arc<List>],
    /// Rows that may be found, by chunk.
    selected: &'a [&'a [u64]],
    /// Those that could be without the filter, unless these are all.
    live: Option<&'a RowSet>,
    of: Vec<OnceLock<Matching>>,
}

/// Which rows of one list may be found.
#[derive(Debug)]
pub struct Matching {
    n: u32,
    /// How many could be without the filter.
    n_live: u32,
    panels: Box<[u32]>,
}

impl Matching {
    /// How many.
    pub fn n(&self) -> u32 {
        self.n
    }

    /// Which rows of a panel, as bits; panels are counted through the blocks.
    pub fn panel(&self, panel: usize) -> u32 {
        self.panels[panel]
    }
}

impl<'a> Matches<'a> {
    /// Of these lists; `selected` are the rows that may be found, by chunk, and `live` those that could be without a
    /// filter, unless these are all.
    pub fn new(lists: &'a [Arc<List>], selected: &'a [&'a [u64]], live: Option<&'a RowSet>) -> Self {
        let of = lists.iter().map(|_| OnceLock::new()).collect();
        Self { lists, selected, live, of }
    }

    /// Those of one list.
    pub fn of(&self, list: u32) -> &Matching {
        self.of[list as usize].get_or_init(|| {
            const { assert!(PANEL_ROWS == u32::BITS as usize) };
            let list = &self.lists[list as usize];
            // Dead rows are in memory, not in files: they must not matter to how far a search goes.
            let n_live = match self.live {
                None => list.n_rows(),
                Some(live) => list.rows().filter(|&row| live.contains(row)).count(),
            };
            let bits = |rows: &[Row]| {
                let bit = |(at, &row)| u32::from(is_in(self.selected, row)) << at;
                rows.iter().enumerate().map(bit).sum::<u32>()
            };
            let panels = list.blocks.iter().flat_map(|block| block.panels().map(|panel| bits(panel.rows)));
            let panels: Box<[u32]> = panels.collect();
            Matching { n: panels.iter().map(|bits| bits.count_ones()).sum(), n_live: n_live as u32, panels }
        })
    }

    /// How many there are in one list.
    pub fn n(&self, list: u32) -> u64 {
        self.of(list).n.into()
    }

    /// How many there are in some lists.
    pub fn n_in(&self, lists: &[(f32, u32)]) -> u64 {
        lists.iter().map(|&(_, list)| self.n(list)).sum()
    }
}

/// Where a query of a filtered search was, and how far it is to go.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// Lists with rows that may be found, nearest first.
    lists: Vec<u32>,
    /// Such rows in them.
    met: u64,
    /// Such rows that it is to meet, unless that is all of them.
    pub wanted: u64,
    /// Whether there are no more lists.
    is_over: bool,
    /// The best that it found so far.
    known: Vec<Row>,
}

impl Trail {
    /// The beginning of a trail.
    pub fn begin(&mut self, wanted: u64) {
        self.lists.clear();
        self.known.clear();
        (self.met, self.wanted, self.is_over) = (0, wanted, false);
    }

    /// Leaves of the nearest lists those that it is to go to now: with rows that may be found, up to as many as are wanted
    /// or the first `n_within` lists, and where it was not yet.
    pub fn cut(&self, nearest: &mut Vec<(f32, u32)>, n_within: usize, matches: &Matches<'_>) {
        let (mut met, mut at) = (0, 0);
        nearest.retain(|&(_, list)| {
            let goes = at < n_within || met < self.wanted;
            at += 1;
            let n = if goes { matches.n(list) } else { 0 };
            met += n;
            n > 0
        });
        let been = nearest.iter().zip(&self.lists).take_while(|(near, list)| near.1 == **list).count();
        nearest.drain(..been);
        if been < self.lists.len() {
            nearest.retain(|near| !self.lists.contains(&near.1));
        }
    }

    /// Goes on to some lists.
    pub fn follow(&mut self, lists: &[u32], matches: &Matches<'_>) {
        self.is_over = lists.is_empty();
        self.lists.extend_from_slice(lists);
        self.met += lists.iter().map(|&list| matches.n(list)).sum::<u64>();
        self.wanted = 2 * self.met;
    }

    /// Whether it pays to go on, now that these are the best that it found.
    pub fn pays(&mut self, best: &[Estimate], matches: &Matches<'_>) -> bool {
        let n_new = best.iter().filter(|estimate| self.known.binary_search(&estimate.row).is_err()).count();
        let pays =
            !self.is_over && LATE * n_new > best.len() && !(self.known.is_empty() && self.is_dense(matches));
        self.known.clear();
        self.known.extend(best.iter().map(|estimate| estimate.row));
        self.known.sort_unstable();
        pays
    }

    /// Whether the filter hardly matters where it was.
    fn is_dense(&self, matches: &Matches<'_>) -> bool {
        let n_live = self.lists.iter().map(|&list| u64::from(matches.of(list).n_live)).sum::<u64>();
        DENSE * (n_live - self.met) <= n_live
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::block::{Block, Term};
    use crate::memory::{Slots, SystemAllocator};

    fn list(rows: &[Row]) -> Arc<List> {
        let allocator: Arc<dyn crate::memory::Allocator> = Arc::new(SystemAllocator);
        let size = Block::size(rows.len(), 0);
        let (slots, mut writer) = Slots::<u8>::with_capacity(size, &allocator).unwrap();
        writer.stage(size, |bytes| {
            for (unit, rows) in bytes.chunks_exact_mut(Block::size(1, 0)).zip(rows.chunks(PANEL_ROWS)) {
                let terms: Vec<Term> = rows.iter().map(|&row| Term { scale: 1.0, bias: 0.0, row }).collect();
                Block::write_terms(unit, &terms);
            }
        });
        writer.publish();
        Arc::new(List { blocks: vec![Block::at(&slots, 0, rows.len(), 0).unwrap()] })
    }

    fn estimates(rows: &[Row]) -> Vec<Estimate> {
        rows.iter().map(|&row| Estimate { score: 0.0, row, list: 0, place: 0 }).collect()
    }

    #[test]
    fn panels_tell_which_rows_match() {
        let rows: Vec<Row> = (0..100).map(|i| i * 7 % 250).collect();
        let lists = [list(&rows), list(&rows[..40]), Arc::default()];
        let selected: RowSet = (0..250).filter(|row| row % 3 == 0 && *row != 63).collect();
        let words = selected.all_words();
        let matches = Matches::new(&lists, &words, None);
        for (list, rows) in [(0, &rows[..]), (1, &rows[..40]), (2, &[])] {
            for (at, &row) in rows.iter().enumerate() {
                let bit = matches.of(list).panel(at / PANEL_ROWS) >> (at % PANEL_ROWS) & 1;
                assert_eq!(bit == 1, selected.contains(row));
            }
            let n = rows.iter().filter(|&&row| selected.contains(row)).count();
            assert_eq!((matches.n(list), matches.of(list).n() as usize), (n as u64, n));
        }
    }

    #[test]
    fn a_query_goes_on_while_that_pays() {
        let lists: Vec<Arc<List>> =
            (0..6).map(|i| list(&(40 * i..40 * i + 40).collect::<Vec<_>>())).collect();
        let selected: RowSet = (0..240).filter(|row| row % 2 == 0).collect();
        let words = selected.all_words();
        let matches = Matches::new(&lists, &words, None);
        let nearest: Vec<(f32, u32)> = (0..6).map(|list| (-(list as f32), list)).collect();
        let mut trail = Trail::default();
        trail.begin(25);
        let lists_of = |trail: &Trail, n_within| {
            let mut some = nearest.clone();
            trail.cut(&mut some, n_within, &matches);
            some.iter().map(|near| near.1).collect::<Vec<_>>()
        };
        assert_eq!(lists_of(&trail, 0), [0, 1]);
        assert_eq!(lists_of(&trail, 3), [0, 1, 2]);
        trail.follow(&[0, 1], &matches);
        let best = estimates(&(0..64).step_by(2).collect::<Vec<_>>());
        // All are new.
        assert!(trail.pays(&best, &matches));
        assert_eq!(lists_of(&trail, 0), [2, 3]);
        trail.follow(&[2, 3], &matches);
        // Two of 32 are new, then one.
        let two: Vec<Row> = (4..68).step_by(2).collect();
        assert!(trail.pays(&estimates(&two), &matches));
        assert_eq!(lists_of(&trail, 0), [4, 5]);
        trail.follow(&[4, 5], &matches);
        let one: Vec<Row> = (6..70).step_by(2).collect();
        assert!(!trail.pays(&estimates(&one), &matches));
        // Where there are no more lists it is over.
        assert_eq!(lists_of(&trail, 0), [0u32; 0]);
        trail.follow(&[], &matches);
        assert!(!trail.pays(&best, &matches));
    }

    #[test]
    fn a_filter_that_hardly_matters_changes_nothing() {
        let lists = [list(&(0..100).collect::<Vec<_>>()), list(&(100..200).collect::<Vec<_>>())];
        for (n_kept_from, n_dead, pays) in [(10, 0, false), (11, 0, true), (10, 20, true), (8, 20, false)] {
            let live: RowSet = (n_dead..200).collect();
            let selected: RowSet = (n_dead + n_kept_from..200).collect();
            let words = selected.all_words();
            let matches = Matches::new(&lists, &words, (n_dead > 0).then_some(&live));
            let mut trail = Trail::default();
            trail.begin(10);
            trail.follow(&[0], &matches);
            assert_eq!(trail.pays(&estimates(&[50, 51]), &matches), pays, "{n_kept_from} of {n_dead}");
        }
    }
}
