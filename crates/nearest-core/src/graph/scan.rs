//! Many queries compared with all of some rows: where these are few enough that no walk is worth it, and each row is then
//! fetched and unpacked once for all of them.
//!
//! A tile of 8-bit multiply-adds gives the sums of 32 rows with all queries, and says which of them may be among the best found
//! so far. What these are is then what a row alone would give, to the bit.

use nearest_kernels::{
    CodeQuery, CodeSums, Hit, Kernels, PANEL_ROWS, PanelQueries, PanelRows, pack_panel_bytes, panel_depth,
};

use super::codes::{Codes, Query, Reader};
use super::pool;
use super::search::{Scratch, Searcher};
use crate::column::Row;
use crate::metric::Metric;

/// Rounding of a tile's estimates is less than this part of what they are made of.
const ROUNDING: f32 = 1e-5;

/// Queries that are compared together.
#[derive(Debug, Default)]
pub struct Together {
    queries: Vec<Compared>,
    codes: Vec<i8>,
    starts: Vec<i32>,
    weights: Vec<f32>,
    thresholds: Vec<f32>,
    hits: Vec<Hit<i32>>,
}

/// One of them.
#[derive(Debug, Default)]
struct Compared {
    query: Query,
    /// What its codes add up to.
    sum: i32,
    /// Entries of the best rows, and some more.
    best: Vec<u64>,
    /// What an entry must be below.
    limit: u64,
}

/// 32 rows, unpacked and packed again, with what the distances of each need.
#[derive(Debug, Default)]
struct Panel {
    rows: Vec<Row>,
    bytes: Vec<u8>,
    panel: Vec<u8>,
    sums: Vec<CodeSums>,
    scales: Vec<f32>,
    factors: [f32; PANEL_ROWS],
    biases: [f32; PANEL_ROWS],
    /// The largest squared norm.
    largest: f32,
}

impl Together {
    /// Entries of the rows found for a query, nearest first.
    pub fn found(&mut self, query: usize) -> &mut [u64] {
        &mut self.queries[query].best
    }
}

impl Searcher<'_> {
    /// The `ef` nearest of all these rows to each query: the same as [`Searcher::scan`] finds for it alone.
    pub fn scan_together<'q>(
        &self,
        ef: usize,
        queries: impl Iterator<Item = &'q [f32]>,
        rows: impl IntoIterator<Item = Row>,
        scratch: &mut Scratch,
        together: &mut Together,
    ) {
        let codes = &self.graph.codes;
        let (bits, dim) = (codes.bits, codes.coding.dim());
        let depth = panel_depth(dim);
        let Together { queries: compared, codes: of_queries, starts, weights, thresholds, hits } = together;
        compared.clear();
        of_queries.clear();
        starts.clear();
        weights.clear();
        for values in queries {
            self.prepare(values, scratch);
            let (coded, query) = scratch.take_query();
            let sum = coded[..dim].iter().map(|&code| i32::from(code)).sum();
            of_queries.extend_from_slice(&coded[..depth]);
            starts.push(CodeSums::default().products(bits, sum));
            // 0: a query of no length, to which all distances are to be computed.
            weights.push(Some(1.0 / query.unit()).filter(|weight| weight.is_finite()).unwrap_or(0.0));
            compared.push(Compared { query, sum, best: Vec::new(), limit: u64::MAX });
        }
        thresholds.clear();
        thresholds.resize(compared.len(), f32::NEG_INFINITY);
        let most = ef.saturating_add((ef / 2).max(PANEL_ROWS));
        let reader = self.walker.reader();
        let mut ones = CodeQuery::default();
        ones.set(bits, &vec![1; dim]);
        let mut panel = Panel { panel: vec![0; PANEL_ROWS * depth], ..Panel::default() };
        let mut rows = rows.into_iter();
        let mut next: Vec<Row> = rows.by_ref().take(PANEL_ROWS).collect();
        reader.ask(&compared[0].query, &next);
        while !next.is_empty() {
            std::mem::swap(&mut panel.rows, &mut next);
            next.clear();
            next.extend(rows.by_ref().take(PANEL_ROWS));
            // The next rows are asked for while these are compared.
            reader.ask(&compared[0].query, &next);
            panel.fill(self.kernels, reader, codes, &ones);
            let tile = PanelRows {
                panel: &panel.panel,
                scale: &panel.factors,
                bias: &panel.biases,
                mutual: None,
                ahead: &[],
            };
            let queries = PanelQueries {
                codes: of_queries,
                start: starts,
                weight: weights,
                threshold: thresholds,
                mutual_threshold: &[],
            };
            hits.clear();
            self.kernels.tile_i8(&tile, &queries, hits);
            for hit in &*hits {
                let (place, row) = (hit.query as usize, hit.row as usize);
                let one = &mut compared[place];
                // Places without a row are hits of NaN.
                let Some(&number) = panel.rows.get(row) else { continue };
                let sums =
                    CodeSums { products: CodeSums::of_products(bits, hit.sum, one.sum), ..panel.sums[row] };
                let entry = pool::entry(one.query.distance(sums, panel.scales[row]), number);
                if entry >= one.limit {
                    continue;
                }
                one.best.push(entry);
                if one.best.len() >= most && ef < most {
                    one.best.select_nth_unstable(ef);
                    one.limit = one.best[ef];
                    one.best.truncate(ef);
                }
            }
            for ((threshold, &weight), one) in thresholds.iter_mut().zip(&*weights).zip(&*compared) {
                if one.limit < u64::MAX && weight > 0.0 {
                    let limit = pool::distance(one.limit);
                    let rounding = ROUNDING * (panel.largest + one.query.squared_norm() + limit.abs());
                    *threshold = -(limit + rounding) * weight;
                }
            }
        }
        for one in compared {
            one.best.sort_unstable();
            one.best.truncate(ef);
        }
    }
}

impl Panel {
    fn fill(&mut self, kernels: &Kernels, reader: &Reader<'_>, codes: &Codes, ones: &CodeQuery) {
        let (bits, dim) = (codes.bits, codes.coding.dim());
        let mut of_rows = [&[][..]; PANEL_ROWS];
        let n = self.rows.len();
        self.bytes.resize(n * dim, 0);
        self.scales.clear();
        for ((&row, bytes), code) in self.rows.iter().zip(self.bytes.chunks_exact_mut(dim)).zip(&mut of_rows)
        {
            *code = reader.code(row);
            unpack(bits, code, bytes);
            self.scales.push(reader.scale(row));
        }
        pack_panel_bytes(&self.bytes, dim, &mut self.panel);
        self.sums.resize(n, CodeSums::default());
        kernels.code_sums(ones, &of_rows[..n], &mut self.sums);
        // Places without a row are never hit.
        (self.factors, self.biases, self.largest) = ([0.0; PANEL_ROWS], [f32::NEG_INFINITY; PANEL_ROWS], 0.0);
        let half = if codes.coding.frame().metric() == Metric::InnerProduct { 0.0 } else { 0.5 };
        let terms = self.factors.iter_mut().zip(&mut self.biases);
        for ((factor, bias), (&scale, sums)) in terms.zip(self.scales.iter().zip(&self.sums)) {
            let unit = scale * codes.unit();
            let squared = unit * unit * sums.squares(bits, dim) as f32;
            (*factor, *bias) = (scale, -half * squared);
            self.largest = self.largest.max(squared);
        }
    }
}

/// A byte a component: twice the level of 4 bits, or the level of 8.
fn unpack(bits: u32, code: &[u8], bytes: &mut [u8]) {
    if bits == 8 {
        return bytes.copy_from_slice(code);
    }
    let (first, last) = bytes.split_at_mut(code.len());
    first.iter_mut().zip(code).for_each(|(byte, u)| *byte = (u & 15) << 1);
    last.iter_mut().zip(code).for_each(|(byte, u)| *byte = u >> 4 << 1);
}
