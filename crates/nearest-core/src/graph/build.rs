//! The links of many rows at once: rows near each, pruned; then the same in the other direction, pruned again.

use nearest_kernels::Kernels;

use super::NONE;
use super::pairs::{self, Pairs};
use super::prune::{self, Rule, nearest_first, prune};
use crate::column::Row;
use crate::error::Result;
use crate::work::Work;

/// Rows a task.
const ROWS: usize = 256;

/// Buffers of one worker.
#[derive(Debug, Default)]
struct Scratch {
    pairs: pairs::Scratch,
    prune: prune::Scratch,
    distances: Vec<f32>,
    candidates: Vec<(f32, Row)>,
}

/// Chosen links of each row, with their squared distances.
type Chosen = Vec<Vec<(f32, Row)>>;

/// Chooses among rows near each row.
pub fn choose(
    kernels: &Kernels,
    pairs: &Pairs,
    rule: &Rule,
    near: impl Fn(Row, &mut Vec<Row>) + Sync,
    work: &Work<'_>,
) -> Result<Chosen> {
    let n = pairs.len();
    let parts = work.map(
        "linking",
        n.div_ceil(ROWS),
        || (Scratch::default(), Vec::new()),
        |(scratch, rows), i| {
            let mut chosen = Vec::new();
            for row in i * ROWS..n.min((i + 1) * ROWS) {
                let row = row as Row;
                rows.clear();
                near(row, rows);
                rows.sort_unstable();
                rows.dedup();
                rows.retain(|&other| other != row);
                let Scratch { pairs: buffers, prune: scratch, distances, candidates } = &mut *scratch;
                pairs.distances(kernels, row, rows, buffers, distances);
                candidates.clear();
                candidates.extend(distances.iter().copied().zip(rows.iter().copied()));
                candidates.sort_unstable_by(nearest_first);
                prune(kernels, pairs, rule, candidates, scratch);
                chosen.push(candidates.clone());
            }
            Ok(chosen)
        },
    )?;
    Ok(parts.concat())
}

/// For each row those that chose it, nearest first, `most` at most.
pub fn reversed(chosen: &Chosen, most: usize) -> Chosen {
    let mut incoming: Chosen = vec![Vec::new(); chosen.len()];
    for (links, row) in chosen.iter().zip(0..) {
        for &(distance, link) in links {
            incoming[link as usize].push((distance, row));
        }
    }
    for rows in &mut incoming {
        rows.sort_unstable_by(nearest_first);
        rows.truncate(most);
    }
    incoming
}

/// Links as they are walked along: `degree` a row.
pub fn packed(chosen: &Chosen, degree: usize) -> Vec<Row> {
    let mut links = vec![NONE; chosen.len() * degree];
    for (chosen, links) in chosen.iter().zip(links.chunks_exact_mut(degree)) {
        links.iter_mut().zip(chosen).for_each(|(link, chosen)| *link = chosen.1);
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::work::Silent;

    const RULE: Rule = Rule { degree: 8, factor: 1.1, fills: false };

    fn pairs(n: usize) -> Pairs {
        let mut random = Random::new(5, 0);
        Pairs::new(4, (0..4 * n).map(|_| random.bits() as u8).collect(), vec![1.0; n])
    }

    fn chosen(pairs: &Pairs, n_threads: usize) -> Chosen {
        // Some rows twice, and the row itself.
        let near = |row: Row, out: &mut Vec<Row>| {
            let n = pairs.len() as Row;
            out.extend((0..40).map(|i| (row + i * i) % n));
            out.push((row + 1) % n);
        };
        choose(Kernels::best(), pairs, &RULE, near, &Work::new(Some(n_threads), &Silent)).unwrap()
    }

    #[test]
    fn links_are_sorted_and_differ() {
        let pairs = pairs(1000);
        let chosen = chosen(&pairs, 2);
        assert_eq!(chosen.len(), 1000);
        for (links, row) in chosen.iter().zip(0..) {
            assert!(!links.is_empty() && links.len() <= RULE.degree);
            assert!(links.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)));
            assert!(links.iter().all(|link| link.1 != row));
        }
        let links = packed(&chosen, RULE.degree);
        for (links, chosen) in links.chunks_exact(RULE.degree).zip(&chosen) {
            let there: Vec<Row> = links.iter().copied().take_while(|&link| link != NONE).collect();
            assert_eq!(there, chosen.iter().map(|link| link.1).collect::<Vec<_>>());
            assert!(links[there.len()..].iter().all(|&link| link == NONE));
        }
    }

    #[test]
    fn threads_change_nothing() {
        let pairs = pairs(700);
        assert_eq!(chosen(&pairs, 1), chosen(&pairs, 3));
    }

    #[test]
    fn whoever_chose_a_row_is_found_from_there() {
        let chosen = chosen(&pairs(300), 1);
        let all = reversed(&chosen, usize::MAX);
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), chosen.iter().map(Vec::len).sum());
        for (incoming, row) in all.iter().zip(0..) {
            assert!(
                incoming.iter().all(|&(distance, other)| chosen[other as usize].contains(&(distance, row)))
            );
        }
        let few = reversed(&chosen, 3);
        assert!(few.iter().zip(&all).all(|(few, all)| few[..] == all[..all.len().min(3)]));
    }
}
