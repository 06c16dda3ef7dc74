//! One panel against many queries: the heart of exact search.
//!
//! A block multiplies `V` vectors of a panel with `Q` queries. Its `V * Q` sums stay in registers over
//! the whole depth; a step costs `V` loads of the panel, `Q` broadcasts and `V * Q` multiply-adds.
//! Estimates are then made and compared in registers as well, and a block without a hit, which is
//! nearly every block, ends in one branch. A block with one stores its sums and goes through them
//! apart, in code kept out of the way.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use crate::panel::{Hit, PANEL_ROWS, PanelCode, PanelQueries, PanelRows, push_hits};

/// Bytes that a single query looks ahead: two panels of 128 dimensions. The hardware stops at page boundaries.
const AHEAD: usize = 8 << 10;

/// The vector operations of one kind of tile on one level.
///
/// # Safety
/// Methods may be called only inside functions that have the level's features.
pub(super) unsafe trait Multiply {
    type Row;
    type Code: PanelCode<Sum = Self::Sum>;
    type Sum: Copy + Default;
    /// Sums of `LANES` rows.
    type Total: Copy;
    /// `LANES * GROUP` elements of a panel.
    type Panel: Copy;
    /// `GROUP` codes of a query, in every lane.
    type Spread: Copy;
    /// Rows in a vector.
    const LANES: usize;
    /// Elements of each row taken in a step.
    const GROUP: usize;

    unsafe fn start(sum: Self::Sum) -> Self::Total;
    unsafe fn panel(at: *const Self::Row) -> Self::Panel;
    unsafe fn spread(at: *const Self::Code) -> Self::Spread;
    unsafe fn step(total: Self::Total, panel: Self::Panel, spread: Self::Spread) -> Self::Total;
    unsafe fn join(a: Self::Total, b: Self::Total) -> Self::Total;
    /// A bit per lane: whether `scale * total + bias * weight < threshold`.
    unsafe fn below(
        total: Self::Total,
        scale: *const f32,
        bias: *const f32,
        weight: f32,
        threshold: f32,
    ) -> u32;
    unsafe fn store(total: Self::Total, at: *mut Self::Sum);
    /// Writes `scale * total + bias * weight` of every lane.
    unsafe fn estimate(total: Self::Total, scale: *const f32, bias: *const f32, weight: f32, at: *mut f32);
}

/// Blocks of 12 queries and the whole panel, for 32 registers of 16 lanes.
///
/// # Safety
/// Lengths are as [`PanelRows::check`] checks them, and `depth` is a multiple of the group.
#[inline(always)]
pub(super) unsafe fn wide<M: Multiply>(
    rows: &PanelRows<'_, M::Row>,
    queries: &PanelQueries<'_, M::Code>,
    depth: usize,
    hits: &mut Vec<Hit<M::Sum>>,
) {
    // SAFETY: as the caller's.
    unsafe {
        if rows.mutual.is_some() {
            let query = blocks::<M, 12, 2, 1, true>(0, 0, rows, queries, depth, hits);
            let query = blocks::<M, 4, 2, 1, true>(query, 0, rows, queries, depth, hits);
            blocks::<M, 1, 2, 4, true>(query, 0, rows, queries, depth, hits);
        } else {
            let query = blocks::<M, 12, 2, 1, false>(0, 0, rows, queries, depth, hits);
            let query = blocks::<M, 4, 2, 1, false>(query, 0, rows, queries, depth, hits);
            let query = blocks::<M, 2, 2, 2, false>(query, 0, rows, queries, depth, hits);
            blocks::<M, 1, 2, 4, false>(query, 0, rows, queries, depth, hits);
        }
    }
}

/// Blocks of a few queries and half a panel, for 16 registers of 8 lanes.
///
/// # Safety
/// As [`wide`].
#[inline(always)]
pub(super) unsafe fn narrow<M: Multiply>(
    rows: &PanelRows<'_, M::Row>,
    queries: &PanelQueries<'_, M::Code>,
    depth: usize,
    hits: &mut Vec<Hit<M::Sum>>,
) {
    for first_row in [0, PANEL_ROWS / 2] {
        // SAFETY: as the caller's.
        unsafe {
            if rows.mutual.is_some() {
                let query = blocks::<M, 4, 2, 1, true>(0, first_row, rows, queries, depth, hits);
                blocks::<M, 1, 2, 2, true>(query, first_row, rows, queries, depth, hits);
            } else if M::GROUP == 1 {
                let query = blocks::<M, 6, 2, 1, false>(0, first_row, rows, queries, depth, hits);
                blocks::<M, 1, 2, 4, false>(query, first_row, rows, queries, depth, hits);
            } else {
                let query = blocks::<M, 4, 2, 1, false>(0, first_row, rows, queries, depth, hits);
                blocks::<M, 1, 2, 2, false>(query, first_row, rows, queries, depth, hits);
            }
        }
    }
}

/// All estimates of a panel, by blocks that suit [`wide`].
///
/// # Safety
/// As [`wide`]; `out` takes 32 floats from each multiple of `stride` on, one a query.
#[inline(always)]
pub(super) unsafe fn estimates_wide<M: Multiply>(
    rows: &PanelRows<'_, M::Row>,
    queries: &PanelQueries<'_, M::Code>,
    depth: usize,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: as the caller's.
    unsafe {
        let query = estimates::<M, 12, 2, 1>(0, 0, rows, queries, depth, out, stride);
        let query = estimates::<M, 4, 2, 1>(query, 0, rows, queries, depth, out, stride);
        estimates::<M, 1, 2, 4>(query, 0, rows, queries, depth, out, stride);
    }
}

/// All estimates of a panel, by blocks that suit [`narrow`].
///
/// # Safety
/// As [`estimates_wide`].
#[inline(always)]
pub(super) unsafe fn estimates_narrow<M: Multiply>(
    rows: &PanelRows<'_, M::Row>,
    queries: &PanelQueries<'_, M::Code>,
    depth: usize,
    out: *mut f32,
    stride: usize,
) {
    for first_row in [0, PANEL_ROWS / 2] {
        // SAFETY: as the caller's.
        unsafe {
            let query = estimates::<M, 4, 2, 1>(0, first_row, rows, queries, depth, out, stride);
            estimates::<M, 1, 2, 2>(query, first_row, rows, queries, depth, out, stride);
        }
    }
}

/// # Safety
/// As [`blocks`] and [`estimates_wide`].
#[inline(always)]
unsafe fn estimates<M: Multiply, const Q: usize, const V: usize, const U: usize>(
    mut query: usize,
    first_row: usize,
    rows: &PanelRows<'_, M::Row>,
    queries: &PanelQueries<'_, M::Code>,
    depth: usize,
    out: *mut f32,
    stride: usize,
) -> usize {
    let n = queries.start.len();
    while n - query >= Q {
        // SAFETY: queries `query..query + Q` exist, and `out` has their places.
        unsafe {
            let panel = rows.panel.as_ptr().add(first_row * M::GROUP);
            let codes = queries.codes.as_ptr().add(query * depth);
            let start = queries.start.as_ptr().add(query);
            let totals = multiply::<M, Q, V, U, false>(panel, codes, start, depth, &[]);
            for q in 0..Q {
                let weight = *queries.weight.get_unchecked(query + q);
                for v in 0..V {
                    let row = first_row + v * M::LANES;
                    let (scale, bias) = (rows.scale.as_ptr().add(row), rows.bias.as_ptr().add(row));
                    M::estimate(totals[q][v], scale, bias, weight, out.add((query + q) * stride + row));
                }
            }
        }
        query += Q;
    }
    query
}

/// Takes `Q` queries at a time from `query` on; gives the first that is left.
///
/// # Safety
/// As [`wide`]; `first_row + V * LANES` is at most 32.
#[inline(always)]
unsafe fn blocks<M: Multiply, const Q: usize, const V: usize, const U: usize, const MUTUAL: bool>(
    mut query: usize,
    first_row: usize,
    rows: &PanelRows<'_, M::Row>,
    queries: &PanelQueries<'_, M::Code>,
    depth: usize,
    hits: &mut Vec<Hit<M::Sum>>,
) -> usize {
    let n = queries.threshold.len();
    while n - query >= Q {
        // SAFETY: queries `query..query + Q` exist.
        unsafe {
            let panel = rows.panel.as_ptr().add(first_row * M::GROUP);
            let codes = queries.codes.as_ptr().add(query * depth);
            let start = queries.start.as_ptr().add(query);
            let totals = if query == 0 && !rows.ahead.is_empty() {
                let part = (first_row * depth * size_of::<M::Row>()).min(rows.ahead.len());
                multiply::<M, Q, V, U, true>(panel, codes, start, depth, &rows.ahead[part..])
            } else {
                multiply::<M, Q, V, U, false>(panel, codes, start, depth, &[])
            };
            let mut all = u32::MAX;
            for q in 0..Q {
                for v in 0..V {
                    all &=
                        below::<M, MUTUAL>(totals[q][v], query + q, first_row + v * M::LANES, rows, queries);
                }
            }
            if all & lanes::<M>() != lanes::<M>() {
                let mut sums = [[M::Sum::default(); PANEL_ROWS]; Q];
                let mut masks = [0; Q];
                for q in 0..Q {
                    for v in 0..V {
                        let row = first_row + v * M::LANES;
                        M::store(totals[q][v], sums[q].as_mut_ptr().add(row));
                        let below = below::<M, MUTUAL>(totals[q][v], query + q, row, rows, queries);
                        masks[q] |= (!below & lanes::<M>()) << row;
                    }
                }
                for q in 0..Q {
                    if masks[q] != 0 {
                        push_hits(query + q, masks[q], &sums[q], hits);
                    }
                }
            }
        }
        query += Q;
    }
    query
}

#[inline(always)]
const fn lanes<M: Multiply>() -> u32 {
    (1 << M::LANES) - 1
}

/// # Safety
/// As [`blocks`], for one query and one vector of rows.
#[inline(always)]
unsafe fn below<M: Multiply, const MUTUAL: bool>(
    total: M::Total,
    query: usize,
    row: usize,
    rows: &PanelRows<'_, M::Row>,
    queries: &PanelQueries<'_, M::Code>,
) -> u32 {
    // SAFETY: the caller vouches for `query` and `row`; `check` for the lengths.
    unsafe {
        let weight = *queries.weight.get_unchecked(query);
        let scale = rows.scale.as_ptr().add(row);
        let bias = rows.bias.as_ptr().add(row);
        let mut below = M::below(total, scale, bias, weight, *queries.threshold.get_unchecked(query));
        if MUTUAL && let Some(mutual) = rows.mutual {
            let bias = mutual.as_ptr().add(row);
            below &= M::below(total, scale, bias, weight, *queries.mutual_threshold.get_unchecked(query));
        }
        below
    }
}

/// The sums of `Q` queries with `V * LANES` rows, with `U` chains each.
///
/// # Safety
/// From `panel` on there are `V * LANES` rows of `depth / GROUP` groups of 32, from `codes` on `Q` queries of `depth`
/// codes, from `start` on what their sums start from.
///
/// With `ASKS`, `ahead` is asked for meanwhile.
#[inline(always)]
pub(super) unsafe fn multiply<
    M: Multiply,
    const Q: usize,
    const V: usize,
    const U: usize,
    const ASKS: bool,
>(
    mut panel: *const M::Row,
    mut codes: *const M::Code,
    start: *const M::Sum,
    depth: usize,
    ahead: &[u8],
) -> [[M::Total; V]; Q] {
    // SAFETY: as the caller's.
    unsafe {
        let mut totals = [[[M::start(M::Sum::default()); V]; U]; Q];
        for q in 0..Q {
            totals[q][0] = [M::start(*start.add(q)); V];
        }
        let mut groups = depth / M::GROUP;
        let mut next = ahead.as_ptr().cast::<i8>();
        let end = next.wrapping_add(ahead.len());
        while groups >= U {
            for u in 0..U {
                if ASKS {
                    // A few lines at a time: many at once would wait for each other, and multiplying for them.
                    if next < end {
                        let step = V * M::LANES * M::GROUP * size_of::<M::Row>();
                        for line in (0..step).step_by(64) {
                            _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(line));
                        }
                        next = next.wrapping_add(step);
                    }
                } else if Q == 1 {
                    // A single query reads panels from memory as fast as they come; a tile of many has them in cache.
                    let ahead = panel.cast::<i8>().wrapping_add(AHEAD);
                    for line in (0..PANEL_ROWS * M::GROUP * size_of::<M::Row>()).step_by(64) {
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line));
                    }
                }
                let mut parts = [M::panel(panel); V];
                for v in 1..V {
                    parts[v] = M::panel(panel.add(v * M::LANES * M::GROUP));
                }
                for q in 0..Q {
                    let spread = M::spread(codes.add(q * depth));
                    for v in 0..V {
                        totals[q][u][v] = M::step(totals[q][u][v], parts[v], spread);
                    }
                }
                panel = panel.add(PANEL_ROWS * M::GROUP);
                codes = codes.add(M::GROUP);
            }
            groups -= U;
        }
        while U > 1 && groups > 0 {
            for q in 0..Q {
                let spread = M::spread(codes.add(q * depth));
                for v in 0..V {
                    let part = M::panel(panel.add(v * M::LANES * M::GROUP));
                    totals[q][0][v] = M::step(totals[q][0][v], part, spread);
                }
            }
            panel = panel.add(PANEL_ROWS * M::GROUP);
            codes = codes.add(M::GROUP);
            groups -= 1;
        }
        let mut joined = [[M::start(M::Sum::default()); V]; Q];
        for q in 0..Q {
            for v in 0..V {
                joined[q][v] = totals[q][0][v];
                for u in 1..U {
                    joined[q][v] = M::join(joined[q][v], totals[q][u][v]);
                }
            }
        }
        joined
    }
}
