//! Inner loops of the symmetric eigenproblem, in float64: what `symmetric.rs` of the core spends its time in.
//!
//! Products and sums in a fixed order: the same bits on every level.

/// Rows of a strip are this wide: two cache lines.
pub const STRIP: usize = 16;

const LANES: usize = 8;

/// Two vectors of a rank-two update, and the values of both for one row.
#[derive(Clone, Copy, Debug)]
pub struct RankTwo<'a> {
    /// The first vector.
    pub u: &'a [f64],
    /// The second.
    pub w: &'a [f64],
    /// The first vector's value for the row.
    pub u_row: f64,
    /// The second's.
    pub w_row: f64,
}

/// `row −= u_row · w + w_row · u`, then `out += x_row · row`; gives `row · x`. All are as long as `row`.
#[inline(always)]
pub(crate) fn update_row(row: &mut [f64], by: RankTwo<'_>, x: &[f64], x_row: f64, out: &mut [f64]) -> f64 {
    let n = row.len();
    let (u, w, x, out) = (&by.u[..n], &by.w[..n], &x[..n], &mut out[..n]);
    let mut sums = [0.0; LANES];
    let whole = n / LANES * LANES;
    let blocks =
        row[..whole].as_chunks_mut::<LANES>().0.iter_mut().zip(out[..whole].as_chunks_mut::<LANES>().0);
    let others = u.as_chunks::<LANES>().0.iter().zip(w.as_chunks::<LANES>().0).zip(x.as_chunks::<LANES>().0);
    for ((row, out), ((u, w), x)) in blocks.zip(others) {
        // Copies, or every store could be to what the next load reads.
        let (mut values, mut totals, x) = (*row, *out, *x);
        for j in 0..LANES {
            values[j] -= by.u_row * w[j] + by.w_row * u[j];
            totals[j] += x_row * values[j];
            sums[j] += values[j] * x[j];
        }
        (*row, *out) = (values, totals);
    }
    for j in whole..n {
        let value = row[j] - (by.u_row * w[j] + by.w_row * u[j]);
        row[j] = value;
        out[j] += x_row * value;
        sums[j - whole] += value * x[j];
    }
    sums.iter().sum()
}

/// Replaces the rows of a strip, as many as `u` has values, by their reflections: `rows −= factor · u · (uᵀ rows)`.
#[inline(always)]
pub(crate) fn reflect(strip: &mut [f64], u: &[f64], factor: f64) {
    let mut sums = [0.0; STRIP];
    for (row, u) in strip.as_chunks::<STRIP>().0.iter().zip(u) {
        for j in 0..STRIP {
            sums[j] += u * row[j];
        }
    }
    // A length that the compiler does not see: it would take the same column of many rows at once, by gathers.
    let width = std::hint::black_box(STRIP);
    for (row, u) in strip.chunks_exact_mut(width).zip(u) {
        let u = factor * u;
        for (value, sum) in row.iter_mut().zip(&sums) {
            *value -= u * sum;
        }
    }
}

/// A plane rotation of two rows that lie side by side.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// The first of the rows.
    pub row: u32,
    /// Its cosine.
    pub cosine: f64,
    /// Its sine.
    pub sine: f64,
}

/// Turns rows of a strip, one after the other: `(a, b) = (c a − s b, s a + c b)`.
#[inline(always)]
pub(crate) fn turn(strip: &mut [f64], turns: &[Turn]) {
    let (rows, _) = strip.as_chunks_mut::<STRIP>();
    // Most turns take the row that the one before left first: it is kept, and need not be stored and loaded again.
    let mut held = None;
    for turn in turns {
        let at = turn.row as usize;
        let b = match held {
            Some((row, values)) if row == at + 1 => values,
            _ => {
                if let Some((row, values)) = held {
                    rows[row] = values;
                }
                rows[at + 1]
            }
        };
        let (mut first, mut second) = (rows[at], b);
        for j in 0..STRIP {
            let (a, b) = (first[j], second[j]);
            (first[j], second[j]) = (turn.cosine * a - turn.sine * b, turn.sine * a + turn.cosine * b);
        }
        rows[at + 1] = second;
        held = Some((at, first));
    }
    if let Some((row, values)) = held {
        rows[row] = values;
    }
}
