//! Packed panels: 32 rows side by side, compared with many queries at once.
//!
//! A panel is laid out so that one load brings the same dimensions of many rows and one broadcast the
//! matching part of a query; the sums of 32 rows then lie in 32 lanes and are compared with a
//! threshold without leaving the registers.
//!
//! | panel | place of element `j` of row `r` |
//! |---|---|
//! | bytes | `(j / 4) * 128 + r * 4 + j % 4` |
//! | `f32` | `j * 32 + r` |

/// Rows of one packed panel.
pub const PANEL_ROWS: usize = 32;

/// Bytes that one row takes in a byte panel: `dim` rounded up to a multiple of 4.
#[inline]
pub const fn panel_depth(dim: usize) -> usize {
    dim.next_multiple_of(4)
}

/// One panel, with what turns the sums of its rows into estimates.
///
/// `estimate = scale[r] * sum + bias[r] * weight[q]`. A place without a row takes scale 0 and bias −∞.
#[derive(Debug)]
pub struct PanelRows<'a, T> {
    /// The packed rows: 32 · depth bytes, or 32 · dim floats.
    pub panel: &'a [T],
    /// Factor of each row's sum.
    pub scale: &'a [f32; PANEL_ROWS],
    /// What each row adds per unit of the query's weight.
    pub bias: &'a [f32; PANEL_ROWS],
    /// A second bias for a second threshold, for searches among the rows themselves.
    pub mutual: Option<&'a [f32; PANEL_ROWS]>,
    /// What is looked at next, asked for line by line while the first queries are multiplied; nothing: it is near already.
    pub ahead: &'a [u8],
}

/// Queries to compare with a panel.
#[derive(Debug)]
pub struct PanelQueries<'a, T: PanelCode> {
    /// The queries, row by row: `n * depth` codes, or `n * dim` floats.
    pub codes: &'a [T],
    /// What each query's sums start from.
    pub start: &'a [T::Sum],
    /// Factor of the rows' bias.
    pub weight: &'a [f32],
    /// Estimates that are not less than this are hits.
    pub threshold: &'a [f32],
    /// The threshold of the second bias; not read where [`PanelRows::mutual`] is `None`.
    pub mutual_threshold: &'a [f32],
}

macro_rules! copies {
    ($name:ident $(: $bound:ident)?) => {
        // Not derived: a derive would ask for `T: Copy`.
        impl<T $(: $bound)?> Clone for $name<'_, T> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<T $(: $bound)?> Copy for $name<'_, T> {}
    };
}
copies!(PanelRows);
copies!(PanelQueries: PanelCode);

/// What queries of a panel are made of: `i8` with `i32` sums, `f32` with `f32` sums.
pub trait PanelCode: Copy + std::fmt::Debug + private::Sealed {
    /// The type of the sums.
    type Sum: Copy + std::fmt::Debug;
}

impl PanelCode for i8 {
    type Sum = i32;
}

impl PanelCode for f32 {
    type Sum = f32;
}

mod private {
    pub trait Sealed {}
    impl Sealed for i8 {}
    impl Sealed for f32 {}
}

/// A pair of query and row whose estimate is not below the threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit<S> {
    /// Place of the query in its [`PanelQueries`].
    pub query: u32,
    /// Place of the row in its panel, below 32.
    pub row: u32,
    /// The sum, start included.
    pub sum: S,
}

/// Adds the hits of one query, whose rows are the set bits of `mask`.
///
/// Kept out of the kernels' loops: hits are rare there.
#[cold]
#[inline(never)]
pub(crate) fn push_hits<S: Copy>(
    query: usize,
    mut mask: u32,
    sums: &[S; PANEL_ROWS],
    hits: &mut Vec<Hit<S>>,
) {
    hits.reserve(PANEL_ROWS);
    while mask != 0 {
        let row = mask.trailing_zeros();
        hits.push(Hit { query: query as u32, row, sum: sums[row as usize] });
        mask &= mask - 1;
    }
}

impl<'a, T> PanelRows<'a, T> {
    /// A panel whose estimates are its sums.
    pub fn unscaled(panel: &'a [T]) -> Self {
        Self { panel, scale: &[1.0; PANEL_ROWS], bias: &[0.0; PANEL_ROWS], mutual: None, ahead: &[] }
    }
    /// Panics unless panel and queries fit together; gives (queries, depth).
    #[track_caller]
    pub(crate) fn check<C: PanelCode>(&self, queries: &PanelQueries<'_, C>) -> (usize, usize) {
        let n = queries.threshold.len();
        let depth = self.panel.len() / PANEL_ROWS;
        assert!(
            self.panel.len() == depth * PANEL_ROWS && depth > 0,
            "a panel must hold 32 rows of at least one element, got {} elements",
            self.panel.len()
        );
        assert!(u32::try_from(n).is_ok(), "a tile takes at most 2³² − 1 queries, got {n}");
        assert!(
            n.checked_mul(depth) == Some(queries.codes.len()),
            "queries must hold {n} · {depth} codes, got {}",
            queries.codes.len()
        );
        assert!(queries.start.len() == n, "start must have length {n}, got {}", queries.start.len());
        assert!(queries.weight.len() == n, "weight must have length {n}, got {}", queries.weight.len());
        let mutual = queries.mutual_threshold.len();
        assert!(self.mutual.is_none() || mutual == n, "mutual_threshold must have length {n}, got {mutual}");
        (n, depth)
    }
}

/// Packs up to 32 byte rows (`n * dim`, row-major) into a panel of `32 * panel_depth(dim)` bytes.
///
/// Places without a row and the padding of `dim` become 0.
pub fn pack_panel_bytes(rows: &[u8], dim: usize, panel: &mut [u8]) {
    let depth = panel_depth(dim);
    check_packing(rows.len(), dim, depth, panel.len());
    if rows.len() != dim * PANEL_ROWS || depth != dim {
        panel.fill(0);
    }
    for (r, row) in rows.chunks_exact(dim).enumerate() {
        let (groups, rest) = row.as_chunks::<4>();
        for (group, place) in groups.iter().zip(panel[r * 4..].chunks_mut(128)) {
            place[..4].copy_from_slice(group);
        }
        if !rest.is_empty() {
            let at = groups.len() * 128 + r * 4;
            panel[at..at + rest.len()].copy_from_slice(rest);
        }
    }
}

/// Packs up to 32 `f32` rows (`n * dim`, row-major) into a panel of `32 * dim` floats.
///
/// Places without a row become 0.
pub fn pack_panel_f32(rows: &[f32], dim: usize, panel: &mut [f32]) {
    check_packing(rows.len(), dim, dim, panel.len());
    if rows.len() != dim * PANEL_ROWS {
        panel.fill(0.0);
    }
    for (r, row) in rows.chunks_exact(dim).enumerate() {
        for (value, place) in row.iter().zip(panel[r..].iter_mut().step_by(PANEL_ROWS)) {
            *place = *value;
        }
    }
}

#[track_caller]
fn check_packing(len: usize, dim: usize, depth: usize, panel: usize) {
    assert!(dim > 0, "dim must be at least 1");
    assert!(
        len.is_multiple_of(dim) && len / dim <= PANEL_ROWS,
        "at most 32 rows of {dim} elements make a panel, got {len} elements"
    );
    assert!(panel == depth * PANEL_ROWS, "the panel must hold {} elements, got {panel}", depth * PANEL_ROWS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_follows_the_layout() {
        for dim in 1..=13 {
            for n in 0..=PANEL_ROWS {
                let bytes: Vec<u8> = (0..n * dim).map(|i| (i * 7 + 1) as u8).collect();
                let depth = panel_depth(dim);
                let mut panel = vec![99; depth * PANEL_ROWS];
                pack_panel_bytes(&bytes, dim, &mut panel);
                for r in 0..PANEL_ROWS {
                    for j in 0..depth {
                        let expected = if r < n && j < dim { bytes[r * dim + j] } else { 0 };
                        assert_eq!(panel[(j / 4) * 128 + r * 4 + j % 4], expected);
                    }
                }
                let floats: Vec<f32> = bytes.iter().map(|b| f32::from(*b)).collect();
                let mut panel = vec![99.0; dim * PANEL_ROWS];
                pack_panel_f32(&floats, dim, &mut panel);
                for r in 0..PANEL_ROWS {
                    for j in 0..dim {
                        let expected = if r < n { floats[r * dim + j] } else { 0.0 };
                        assert_eq!(panel[j * PANEL_ROWS + r], expected);
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "at most 32 rows")]
    fn a_panel_takes_no_33rd_row() {
        pack_panel_f32(&[0.0; 66], 2, &mut [0.0; 64]);
    }
}
