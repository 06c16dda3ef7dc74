//! The links of many rows at once: rows near each, pruned; then the same in the other direction, pruned again.

use std::sync::Arc;

use nearest_kernels::Kernels;

use super::chosen::{Chosen, Link, Part, ROWS};
use super::links::Links;
use super::near::{Around, Near};
use super::pairs::{self, Pairs};
use super::prune::{self, Rule, nearest_first, prune};
use super::reach::connect;
use super::vectors::Vectors;
use super::{Graph, Hubs, Read, hubs};
use crate::column::Row;
use crate::error::Result;
use crate::live::RowSet;
use crate::memory::Allocator;
use crate::work::Work;

/// Rows of a task that only moves links.
const MOVED_ROWS: usize = 1 << 12;
/// Rows that are asked how distances grow.
const GROWTH_ROWS: usize = 1 << 14;
/// Rows that chose a row among which it chooses again, at most.
const INCOMING: usize = 64;
/// If there are more hubs, there are links between them instead.
const MOST_HUBS: usize = 2 * hubs::HUBS;

impl Graph {
    /// The same with links between all live rows, from nothing.
    pub fn linked_anew(
        &self,
        read: Read<'_>,
        live: &RowSet,
        allocator: &Arc<dyn Allocator>,
        work: &Work<'_>,
    ) -> Result<Self> {
        let kernels = Kernels::best();
        let rows: Vec<Row> = live.iter().collect();
        let n = rows.len();
        if n == 0 {
            return Ok(Self::new(self.plan, self.codes.clone()));
        }
        let ef = self.plan.ef_build.min(n - 1);
        // Rows near each, or those that chose it; links that it chose, and that it keeps.
        let n_bytes = size_of::<Row>() * ef + 2 * size_of::<Link>() * self.plan.degree.min(ef);
        work.check_memory((n as u64).checked_mul(n_bytes as u64), "links of all vectors")?;
        let vectors = Vectors { codes: &self.codes, read };
        let around = Around::new(vectors, &rows, self.plan.seed, work)?;
        let near = around.each(ef, work)?;
        drop(around);
        let pairs = Pairs::new(&self.codes, &rows, work)?;
        let numbers: Vec<Row> = (0..n as Row).collect();
        let of_near = |row: usize, out: &mut Vec<Row>| out.extend(near.of(row));
        let chosen = choose(kernels, &pairs, &self.rule(false), &numbers, of_near, work)?;
        let growth = growth(kernels, &pairs, &near);
        drop(near);
        let incoming = chosen.reversed(n, work)?;
        let both = |row: usize, out: &mut Vec<Row>| {
            out.extend(chosen.of(row).iter().chain(incoming.of(row, INCOMING)).map(|link| link.1));
        };
        let linked = choose(kernels, &pairs, &self.rule(true), &numbers, both, work)?;
        drop((chosen, incoming, pairs));
        // So far rows were numbered from 0.
        let mut links = Links::none(&self.codes, self.plan.degree, allocator)?;
        work.in_turn("linking", n.div_ceil(MOVED_ROWS), |i| {
            for place in i * MOVED_ROWS..n.min((i + 1) * MOVED_ROWS) {
                links.put(rows[place], linked.of(place).iter().map(|link| rows[link.1 as usize]));
            }
            Ok(())
        })?;
        drop(linked);
        let (waiting, n_repaired) = Default::default();
        let linked = Self { hubs_of: n, growth, waiting, n_linked: n, n_repaired, ..self.clone() };
        let hubs = hubs::choose(&vectors, &rows, self.plan.seed, work)?;
        linked.finished(links, hubs, live, Some(read), work)
    }

    /// The same with these links, and more where they do not lead to all rows.
    pub(super) fn finished(
        self,
        mut links: Links,
        mut hubs: Vec<Row>,
        rows: &RowSet,
        read: Option<Read<'_>>,
        work: &Work<'_>,
    ) -> Result<Self> {
        connect(&mut links, &mut hubs, rows);
        if let Some(read) = read.filter(|_| hubs.len() > MOST_HUBS) {
            let vectors = Vectors { codes: &self.codes, read };
            self.bridge(&hubs, &mut links, &vectors, work)?;
            let all: Vec<Row> = rows.iter().collect();
            hubs = hubs::choose(&vectors, &all, self.plan.seed, work)?;
            connect(&mut links, &mut hubs, rows);
        }
        let hubs = match hubs == self.hubs.rows {
            true => self.hubs.clone(),
            false => Arc::new(Hubs::new(Kernels::best(), &self.codes, hubs)),
        };
        let links = links.into_column(&self.codes.codes)?;
        Ok(Self { hubs, links, ..self })
    }

    /// Links between hubs: of groups of which none leads to another, each has one.
    fn bridge(&self, hubs: &[Row], links: &mut Links, vectors: &Vectors<'_>, work: &Work<'_>) -> Result<()> {
        let near = Around::new(*vectors, hubs, self.plan.seed, work)?
            .each(self.plan.ef_build.min(hubs.len() - 1), work)?;
        let near = hubs.iter().enumerate().map(|(place, &hub)| {
            let others = near.of(place).map(|other| hubs[other as usize]);
            others.chain(links.of_row(hub).iter().copied()).collect()
        });
        let near: Vec<Vec<Row>> = near.collect();
        self.join(hubs, &near, links, work)
    }
}

/// How squared distances grow with the number of rows within them, of a sample: [`Graph::growth`].
fn growth(kernels: &Kernels, pairs: &Pairs<'_>, near: &Near) -> f32 {
    if pairs.is_product() {
        return 0.0;
    }
    let (mut scratch, mut distances) = (pairs::Scratch::default(), Vec::new());
    let (mut sum, mut n) = (0.0, 0);
    for row in (0..pairs.len()).step_by(pairs.len().div_ceil(GROWTH_ROWS).max(1)) {
        let around: Vec<Row> = near.of(row).collect();
        // The very nearest may be copies, and say little.
        let (first, last) = (around.len() / 4, around.len());
        if first == 0 {
            continue;
        }
        let ends = [around[first - 1], around[last - 1]];
        pairs.distances(kernels, row as Row, &ends, &mut scratch, &mut distances);
        if distances[0] > 0.0 && distances[1] >= distances[0] && distances[1].is_finite() {
            sum += (f64::from(distances[1]).ln() - f64::from(distances[0]).ln())
                / (last as f64 / first as f64).ln();
            n += 1;
        }
    }
    (sum / f64::from(n.max(1))) as f32
}

/// Buffers of one worker.
#[derive(Debug, Default)]
struct Scratch<'a> {
    pairs: pairs::Scratch<'a>,
    prune: prune::Scratch<'a>,
    distances: Vec<f32>,
    candidates: Vec<Link>,
}

/// Chooses among rows near each of some rows: `near` gives them for the one at a place.
pub fn choose(
    kernels: &Kernels,
    pairs: &Pairs<'_>,
    rule: &Rule,
    rows: &[Row],
    near: impl Fn(usize, &mut Vec<Row>) + Sync,
    work: &Work<'_>,
) -> Result<Chosen> {
    let around = |place: usize, out: &mut Vec<Row>| {
        out.clear();
        near(place, out);
        out.sort_unstable();
        out.dedup();
        out.retain(|&other| other != rows[place]);
        pairs.ask(out);
    };
    let parts = work.map(
        "linking",
        rows.len().div_ceil(ROWS),
        || (Scratch::default(), Vec::new(), Vec::new()),
        |(scratch, now, next), i| {
            let places = i * ROWS..rows.len().min((i + 1) * ROWS);
            let mut chosen = Part::default();
            around(places.start, next);
            for place in places.clone() {
                std::mem::swap(now, next);
                // What is near the next row is asked for meanwhile.
                if place + 1 < places.end {
                    around(place + 1, next);
                }
                let Scratch { pairs: buffers, prune: scratch, distances, candidates } = &mut *scratch;
                pairs.distances(kernels, rows[place], now, buffers, distances);
                candidates.clear();
                candidates.extend(distances.iter().copied().zip(now.iter().copied()));
                candidates.sort_unstable_by(nearest_first);
                prune(kernels, pairs, rule, candidates, scratch);
                chosen.push(candidates);
            }
            Ok(chosen.finished())
        },
    )?;
    Ok(Chosen::new(parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::work::Silent;

    const RULE: Rule = Rule { degree: 8, factor: 1.1, fills: false };

    fn codes(n: usize) -> Vec<u8> {
        let mut random = Random::new(5, 0);
        (0..4 * n).map(|_| random.bits() as u8).collect()
    }

    fn pairs(codes: &[u8]) -> Pairs<'_> {
        Pairs::of_bytes(4, codes, 1.0)
    }

    fn chosen(pairs: &Pairs<'_>, n_threads: usize) -> Chosen {
        // Some rows twice, and the row itself.
        let rows: Vec<Row> = (0..pairs.len() as Row).collect();
        let near = |place: usize, out: &mut Vec<Row>| {
            let (row, n) = (rows[place], rows.len() as Row);
            out.extend((0..40).map(|i| (row + i * i) % n));
            out.push((row + 1) % n);
        };
        choose(Kernels::best(), pairs, &RULE, &rows, near, &Work::new(Some(n_threads), &Silent)).unwrap()
    }

    #[test]
    fn links_are_sorted_and_differ() {
        let codes = codes(1000);
        let pairs = pairs(&codes);
        let chosen = chosen(&pairs, 2);
        assert_eq!(chosen.len(), 1000);
        for (links, row) in chosen.iter().zip(0..) {
            assert!(!links.is_empty() && links.len() <= RULE.degree);
            assert!(links.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)));
            assert!(links.iter().all(|link| link.1 != row));
        }
    }

    #[test]
    fn threads_change_nothing() {
        let codes = codes(700);
        let pairs = pairs(&codes);
        assert_eq!(chosen(&pairs, 1), chosen(&pairs, 3));
    }
}
