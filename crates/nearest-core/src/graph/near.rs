//! Rows near each row, found by inverted lists: the tiles that answer batches of queries, with the rows as queries.

use nearest_kernels::Kernels;

use crate::candidates::ByRow;
use crate::column::Row;
use crate::error::Result;
use crate::lists::{Estimate, Goal, Kept, ListSearch, Lists, Pair, PairBuffers};
use crate::live::RowSet;
use crate::work::Work;

/// Distances are good enough as the lists estimate them.
struct Estimates;

impl Kept for Estimates {
    fn distances(&self, _: &[u32], _: &[f32], pairs: &mut [Pair], _: &mut PairBuffers) {
        pairs.iter_mut().for_each(|pair| pair.distance = -pair.estimate.score);
    }

    fn rescore(&self, _: (&[i8], f32), _: &mut [Estimate], _: &mut PairBuffers) -> bool {
        false
    }
}

/// The `k` rows near each of `rows`, whose vectors are `values`, itself left out.
pub fn near(
    lists: &Lists,
    values: &[f32],
    rows: &[Row],
    live: &RowSet,
    k: usize,
    n_probe: usize,
    work: &Work<'_>,
) -> Result<Vec<Vec<Row>>> {
    let search = ListSearch {
        kernels: Kernels::best(),
        lists,
        selected: live,
        selected_words: live.all_words(),
        live,
        is_filtered: false,
        exclude: Some(rows),
        kept: &Estimates,
        order: &ByRow,
        n_probe,
    };
    let found = search.run(values, Goal::Nearest { k, pool: k }, work)?;
    Ok(found.into_iter().map(|found| found.into_iter().map(|candidate| candidate.row).collect()).collect())
}
