//! The links of few new rows among many: walks find rows near each, and what they choose chooses again.

use std::sync::Arc;

use nearest_kernels::Kernels;

use super::build::choose;
use super::links::Links;
use super::pairs::Pairs;
use super::search::{Scratch, Searcher};
use super::vectors::{Read, Vectors};
use super::{Graph, MOST_WAITING, NONE, hubs, pool};
use crate::column::Row;
use crate::error::Result;
use crate::live::RowSet;
use crate::memory::Allocator;
use crate::work::Work;

/// Rows that one task looks for.
const ROWS: usize = 16;
/// Rows that a walk keeps beyond those that links are chosen from.
const MORE: usize = 16;
/// If of so many rows one is new, all links are chosen anew (photos, a fifth: linking the new ones takes 7 s, anew 12; and finds
/// 0.004 of the neighbours less).
const ROWS_PER_NEW_ANEW: usize = 5;
/// So many times more rows than hubs were chosen among, others are chosen.
const GROWTH: usize = 4;

impl Graph {
    /// The same with links of the rows that wait, but for some that go on waiting, and without too many dead ones.
    pub fn linked(
        &self,
        read: Read<'_>,
        live: &RowSet,
        to_wait: &RowSet,
        allocator: &Arc<dyn Allocator>,
        work: &Work<'_>,
    ) -> Result<Self> {
        let (held, new): (Vec<Row>, Vec<Row>) = self.waiting.iter().partition(|row| to_wait.contains(**row));
        let mut to_link = live.clone();
        to_link.remove(held.iter().copied());
        let waiting = Arc::new(held);
        let many = !new.is_empty() && ROWS_PER_NEW_ANEW * new.len() >= self.n_linked;
        if many || self.is_worn(live) {
            let anew = self.linked_anew(read, &to_link, allocator, work)?;
            return Ok(Self { waiting, ..anew });
        }
        let graph = match self.wants_repair(live) {
            true => self.repaired(live, allocator, work)?,
            false => self.clone(),
        };
        if new.is_empty() {
            return Ok(graph);
        }
        let mut links = Links::of(&graph, allocator)?;
        for part in new.chunks(MOST_WAITING) {
            graph.insert(part, &mut links, read, live, work)?;
        }
        let n_linked = graph.n_linked + new.len();
        let mut linked = Self { waiting, n_linked, ..graph.clone() };
        let mut hubs = graph.hubs.rows.clone();
        if n_linked >= GROWTH * self.hubs_of {
            let rows: Vec<Row> = to_link.iter().collect();
            hubs = hubs::choose(&Vectors { codes: &self.codes, read }, &rows, self.plan.seed, work)?;
            linked.hubs_of = n_linked;
        }
        linked.finished(links, hubs, &to_link, Some(read), work)
    }

    /// Links new rows.
    fn insert(
        &self,
        new: &[Row],
        links: &mut Links,
        read: Read<'_>,
        live: &RowSet,
        work: &Work<'_>,
    ) -> Result<()> {
        let near = self.near(new, links, read, live, work)?;
        self.join(new, &near, links, work)
    }

    /// Has rows choose among those near each, and what they chose choose again.
    pub(super) fn join(
        &self,
        new: &[Row],
        near: &[Vec<Row>],
        links: &mut Links,
        work: &Work<'_>,
    ) -> Result<()> {
        let kernels = Kernels::best();
        let mut numbers = Numbers::new(self.codes.rows_end());
        let of_new: Vec<Row> = new.iter().map(|&row| numbers.of(row)).collect();
        let of_near: Vec<Vec<Row>> =
            near.iter().map(|near| near.iter().map(|&row| numbers.of(row)).collect()).collect();
        let pairs = Pairs::new(&self.codes, &numbers.rows, work)?;
        let of = |place: usize, out: &mut Vec<Row>| out.extend_from_slice(&of_near[place]);
        let chosen = choose(kernels, &pairs, &self.rule(false), &of_new, of, work)?;
        drop(pairs);
        // What a row chose chooses again, among its own links, or those that it chose, and those that chose it.
        let n_near = numbers.rows.len();
        let incoming = chosen.reversed(n_near, work)?;
        let mut again: Vec<(Row, Vec<Row>)> = Vec::new();
        for number in 0..n_near {
            let mut around: Vec<Row> = incoming.of(number, usize::MAX).iter().map(|link| link.1).collect();
            // New rows have the first numbers.
            if number < new.len() {
                around.extend(chosen.of(number).iter().map(|link| link.1));
            } else if around.is_empty() {
                continue;
            } else {
                let own = links.of_row(numbers.rows[number]);
                around.extend(own.iter().map(|&link| numbers.of(link)));
            }
            again.push((number as Row, around));
        }
        let pairs = Pairs::new(&self.codes, &numbers.rows, work)?;
        let rows: Vec<Row> = again.iter().map(|(number, _)| *number).collect();
        let of = |place: usize, out: &mut Vec<Row>| out.extend_from_slice(&again[place].1);
        let linked = choose(kernels, &pairs, &self.rule(true), &rows, of, work)?;
        for (&number, chosen) in rows.iter().zip(linked.iter()) {
            links.put(numbers.rows[number as usize], chosen.iter().map(|link| numbers.rows[link.1 as usize]));
        }
        Ok(())
    }

    /// Live rows near each of the new ones, mostly themselves among them.
    fn near(
        &self,
        new: &[Row],
        links: &Links,
        read: Read<'_>,
        live: &RowSet,
        work: &Work<'_>,
    ) -> Result<Vec<Vec<Row>>> {
        let dim = self.codes.coding.dim();
        let searcher = Searcher::along(self, links.chunks());
        let parts = work.map(
            "linking",
            new.len().div_ceil(ROWS),
            || (Scratch::default(), Vec::new()),
            |(scratch, values), i| {
                let rows = &new[i * ROWS..new.len().min((i + 1) * ROWS)];
                values.resize(rows.len() * dim, 0.0);
                read(rows, values)?;
                let mut near = Vec::with_capacity(rows.len());
                for values in values.chunks_exact(dim) {
                    searcher.prepare(values, scratch);
                    searcher.nearest(self.plan.ef_build + MORE, None, new, scratch);
                    let found = scratch.found().iter().map(|&entry| pool::row(entry));
                    near.push(found.filter(|&row| live.contains(row)).take(self.plan.ef_build + 1).collect());
                }
                Ok(near)
            },
        )?;
        Ok(parts.concat())
    }
}

/// Numbers of rows, counted from 0 in the order in which they come.
struct Numbers {
    /// By row; [`NONE`]: it did not come yet.
    of_rows: Vec<Row>,
    rows: Vec<Row>,
}

impl Numbers {
    fn new(rows_end: usize) -> Self {
        Self { of_rows: vec![NONE; rows_end], rows: Vec::new() }
    }

    fn of(&mut self, row: Row) -> Row {
        let number = &mut self.of_rows[row as usize];
        if *number == NONE {
            *number = self.rows.len() as Row;
            self.rows.push(row);
        }
        *number
    }
}
