//! Links without dead rows, and with other numbers.
//!
//! A row that is linked to dead ones chooses again, among its other links and those of the dead ones, as in FreshDiskANN (Singh
//! and others 2021).

use std::sync::Arc;

use nearest_kernels::Kernels;

use super::Graph;
use super::build::choose;
use super::codes::Codes;
use super::links::Links;
use super::pairs::Pairs;
use crate::column::{CHUNK_ROWS, Row};
use crate::error::Result;
use crate::live::RowSet;
use crate::memory::Allocator;
use crate::work::Work;

/// Rows that choose again at once.
const ROWS: usize = 1 << 16;
/// If of so many rows more than one is dead, nearly all are linked to dead ones (photos, a fifth at random: linking around them takes
/// 4 s, anew 6). And what is linked around finds less from time to time (0.01 of the neighbours after two fifths), so that those count
/// too that died before.
const ROWS_PER_DEAD_ANEW: usize = 8;

impl Graph {
    /// Whether so many rows died since all links were chosen that they are to be chosen anew.
    pub(super) fn is_worn(&self, live: &RowSet) -> bool {
        self.n_repaired + self.n_dead(live) > self.n_linked / ROWS_PER_DEAD_ANEW
    }

    /// The same without dead rows, which others are linked around.
    pub fn repaired(&self, live: &RowSet, allocator: &Arc<dyn Allocator>, work: &Work<'_>) -> Result<Self> {
        let mut links = Links::of(self, allocator)?;
        let rows = self.linked_rows(live);
        let of = |row: Row| self.links_of(row);
        let torn: Vec<Row> = rows.iter().filter(|&row| of(row).any(|link| !live.contains(link))).collect();
        let (all, ranks): (Vec<Row>, _) = (live.iter().collect(), live.ranks());
        let pairs = Pairs::new(&self.codes, &all, work)?;
        // Over dead rows to those that they are linked to, and no further.
        let around = |row: Row, out: &mut Vec<Row>| {
            for link in of(row) {
                match live.contains(link) {
                    true => out.push(link),
                    false => out.extend(of(link).filter(|&next| live.contains(next))),
                }
            }
        };
        for torn in torn.chunks(ROWS) {
            let near = |place: usize, out: &mut Vec<Row>| {
                around(torn[place], out);
                out.iter_mut().for_each(|row| *row = ranks[*row as usize]);
            };
            let numbers: Vec<Row> = torn.iter().map(|&row| ranks[row as usize]).collect();
            let linked = choose(Kernels::best(), &pairs, &self.rule(true), &numbers, near, work)?;
            for (&row, chosen) in torn.iter().zip(linked.iter()) {
                links.put(row, chosen.iter().map(|link| all[link.1 as usize]));
            }
        }
        drop(pairs);
        // What is dead is not linked from anywhere, and leads nowhere.
        let mut hubs: Vec<Row> = Vec::with_capacity(self.hubs.rows.len());
        for &hub in &self.hubs.rows {
            let next = if live.contains(hub) { Some(hub) } else { of(hub).find(|&next| live.contains(next)) };
            hubs.extend(next);
        }
        hubs.sort_unstable();
        hubs.dedup();
        for chunk in 0..self.codes.codes.n_chunks() {
            let first = (chunk * CHUNK_ROWS) as Row;
            let all = first..first + self.codes.codes.rows_in(chunk) as Row;
            all.filter(|&row| !rows.contains(row)).for_each(|row| links.put(row, []));
        }
        Self { n_linked: rows.len(), n_repaired: self.n_repaired + self.n_dead(live), ..self.clone() }
            .finished(links, hubs, &rows, None, work)
    }

    /// The same with other numbers for its rows, which all live: `codes` has them where they are now.
    pub fn renumbered(
        &self,
        codes: Codes,
        number: impl Fn(Row) -> Option<Row>,
        live: &RowSet,
        allocator: &Arc<dyn Allocator>,
        work: &Work<'_>,
    ) -> Result<Self> {
        let mut links = Links::none(&codes, self.plan.degree, allocator)?;
        let n = self.codes.rows_end();
        work.in_turn("moving vectors", n.div_ceil(CHUNK_ROWS), |chunk| {
            for row in (chunk * CHUNK_ROWS..n.min((chunk + 1) * CHUNK_ROWS)).map(|row| row as Row) {
                let Some(place) = number(row) else { continue };
                let mut linked = self.links_of(row).peekable();
                if linked.peek().is_some() {
                    links.put(place, linked.filter_map(&number));
                }
            }
            Ok(())
        })?;
        let mut waiting: Vec<Row> = self.waiting.iter().copied().filter_map(&number).collect();
        waiting.sort_unstable();
        let hubs = self.hubs.rows.iter().copied().filter_map(&number).collect();
        let renumbered = Self { codes, waiting: Arc::new(waiting), ..self.clone() };
        let rows = renumbered.linked_rows(live);
        renumbered.finished(links, hubs, &rows, None, work)
    }
}
