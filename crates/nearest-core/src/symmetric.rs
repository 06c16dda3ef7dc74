//! Eigenvalues and eigenvectors of symmetric matrices, for any number of threads with the same bits.
//!
//! Reflections make the matrix tridiagonal (Householder 1958), turns of neighbouring rows make that diagonal (the QL
//! method with implicit shifts, Dubrulle 1970). The matrix is passed over once a reflection: the last one's rank-two update
//! and the next one's product are one loop. Eigenvectors are held as strips of 16 components, which fit the
//! second-level cache: each task takes one strip through many reflections or turns.
//!
//! Crates that do this (`nalgebra`, `faer`) bring far more than this one problem, and compile longer than this workspace.
//! All eigenvectors of a random matrix take 0.03 s at 384 dimensions, 1 s at 1 536 and 27 s at 4 096 (AVX-512, two threads,
//! `cargo test --release -p nearest-core --lib symmetric -- --ignored --nocapture`).

use std::sync::{Mutex, PoisonError};

use nearest_kernels::{Kernels, RankTwo, STRIP, Turn};

use crate::error::{Error, Result};
use crate::work::Work;

/// Turns that are gathered before they are applied: some MiB.
const TURNS: usize = 1 << 18;
/// Values of a matrix that one task takes.
const TASK_VALUES: usize = 1 << 16;
/// Turns or reflections of one strip in one task: some 10 ms at 4 096 rows.
const TASK_REFLECTIONS: usize = 256;
/// Steps a value; three are usual.
const STEPS: usize = 60;

/// Eigenvalues, falling, and as many eigenvectors as were asked for, row by row, of length 1.
#[derive(Clone, Debug)]
pub(crate) struct Eigen {
    pub(crate) values: Vec<f64>,
    pub(crate) vectors: Vec<f64>,
}

/// Eigenvalues of the `n × n` matrix whose lower triangle is given, and the first `n_vectors` eigenvectors.
pub(crate) fn eigen(
    mut matrix: Vec<f64>,
    n: usize,
    n_vectors: usize,
    kernels: &Kernels,
    work: &Work<'_>,
) -> Result<Eigen> {
    assert!(matrix.len() == n * n && n_vectors <= n, "{} values are no {n} × {n} matrix", matrix.len());
    let largest = matrix.iter().fold(0.0f64, |a, b| if b.abs() <= a { a } else { b.abs() });
    if !largest.is_finite() {
        return Err(Error::argument("the matrix has values that are not finite"));
    }
    // Of one magnitude, so that squares neither overflow nor vanish.
    let scale = if largest > 0.0 { largest } else { 1.0 };
    matrix.iter_mut().for_each(|value| *value /= scale);
    let Tridiagonal { mut diagonal, mut beside, factors } = tridiagonal(&mut matrix, n, kernels, work)?;
    let mut strips = Strips::identity(n);
    // Row `i` of the matrix now holds what was reflected by, from the last row on.
    let mut last = n;
    while last > 2 {
        let first = last.saturating_sub(TASK_REFLECTIONS).max(2);
        strips.for_each(work, |strip| {
            for i in (first..last).rev() {
                kernels.reflect(strip, &matrix[i * n..][..i], factors[i]);
            }
        })?;
        last = first;
    }
    let mut turns = Vec::with_capacity(TURNS + n);
    for first in 0..n {
        for step in 0.. {
            let small =
                |i: &usize| beside[*i].abs() <= f64::EPSILON * (diagonal[*i].abs() + diagonal[*i + 1].abs());
            let end = (first..n - 1).find(small).unwrap_or(n - 1);
            if end == first {
                break;
            }
            if step == STEPS {
                return Err(Error::argument("the eigenvalues of the matrix cannot be found"));
            }
            shift(&mut diagonal, &mut beside, first, end, &mut turns);
            if turns.len() >= TURNS {
                strips.for_each(work, |strip| kernels.turn(strip, &turns))?;
                turns.clear();
            }
        }
    }
    strips.for_each(work, |strip| kernels.turn(strip, &turns))?;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
    let values = order.iter().map(|&i| diagonal[i] * scale).collect();
    let vectors = order[..n_vectors].iter().flat_map(|&i| (0..n).map(move |j| (i, j)));
    Ok(Eigen { values, vectors: vectors.map(|(i, j)| strips.get(i, j)).collect() })
}

struct Tridiagonal {
    diagonal: Vec<f64>,
    /// Between values `i` and `i + 1` of the diagonal.
    beside: Vec<f64>,
    /// Of the reflections by the rows: `1 − factor · u uᵀ`.
    factors: Vec<f64>,
}

/// Makes a symmetric matrix tridiagonal; row `i` then begins with the `i` values of its reflection.
fn tridiagonal(matrix: &mut [f64], n: usize, kernels: &Kernels, work: &Work<'_>) -> Result<Tridiagonal> {
    let mut diagonal = vec![0.0; n];
    let mut beside = vec![0.0; n];
    let mut factors = vec![0.0; n];
    // The update that rows still lack.
    let (mut last_u, mut last_w) = (vec![0.0; n], vec![0.0; n]);
    let mut nothing = vec![0.0; n];
    for i in (0..n).rev() {
        let (above, row) = matrix.split_at_mut(i * n);
        let row = &mut row[..=i];
        let by = RankTwo { u: &last_u, w: &last_w, u_row: last_u[i], w_row: last_w[i] };
        nothing.fill(0.0);
        kernels.update_row(row, by, &vec![0.0; i + 1], 0.0, &mut nothing);
        diagonal[i] = row[i];
        let u = &mut row[..i];
        let length = u.iter().map(|value| value * value).sum::<f64>().sqrt();
        if i < 2 || length == 0.0 {
            if let Some(value) = u.last() {
                beside[i - 1] = *value;
            }
            if i >= 2 {
                u.fill(0.0);
                // Rows above still lack the last update.
                multiply(above, n, i, &last_u, &last_w, u, kernels, work)?;
                last_u.fill(0.0);
                last_w.fill(0.0);
            }
            continue;
        }
        let pivot = u[i - 1];
        let to = if pivot > 0.0 { -length } else { length };
        beside[i - 1] = to;
        u[i - 1] = pivot - to;
        // ‖u‖² = 2 · length · (length + |pivot|).
        let factor = 1.0 / (length * (length + pivot.abs()));
        factors[i] = factor;
        let mut product = multiply(above, n, i, &last_u, &last_w, u, kernels, work)?;
        product.iter_mut().for_each(|value| *value *= factor);
        let half = 0.5 * factor * product.iter().zip(u.iter()).map(|(p, u)| p * u).sum::<f64>();
        for ((w, p), u) in last_w.iter_mut().zip(&product).zip(u.iter()) {
            *w = p - half * u;
        }
        last_u[..i].copy_from_slice(u);
    }
    Ok(Tridiagonal { diagonal, beside, factors })
}

/// Updates the first `i` rows of a matrix, of which the lower triangle counts, and gives their product with `x`.
#[allow(clippy::too_many_arguments, reason = "one loop, taken out for its length")]
fn multiply(
    matrix: &mut [f64],
    n: usize,
    i: usize,
    u: &[f64],
    w: &[f64],
    x: &[f64],
    kernels: &Kernels,
    work: &Work<'_>,
) -> Result<Vec<f64>> {
    // Groups of rows that depend on `i` alone; each sums for itself, so that the order of sums does too.
    let mut groups = Vec::new();
    let mut rest = &mut matrix[..i * n];
    let mut first = 0;
    while first < i {
        let mut end = first;
        let mut values = 0;
        while end < i && values < TASK_VALUES {
            end += 1;
            values += end;
        }
        let rows;
        (rows, rest) = rest.split_at_mut((end - first) * n);
        groups.push(Mutex::new((first, rows, Vec::new())));
        first = end;
    }
    let task = |(): &mut (), group: usize| {
        let (first, rows, sums) = &mut *groups[group].lock().unwrap_or_else(PoisonError::into_inner);
        let n_rows = rows.len() / n;
        sums.resize(*first + n_rows, 0.0);
        for (r, row) in (*first..).zip(rows.chunks_exact_mut(n)) {
            let by = RankTwo { u, w, u_row: u[r], w_row: w[r] };
            let dot = kernels.update_row(&mut row[..=r], by, x, x[r], sums);
            // The diagonal is in both.
            sums[r] += dot - row[r] * x[r];
        }
        Ok(())
    };
    work.for_each("eigenvectors", groups.len(), || (), task)?;
    let mut product = vec![0.0; i];
    for group in groups {
        let (_, _, sums) = group.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (product, sum) in product.iter_mut().zip(sums) {
            *product += sum;
        }
    }
    Ok(product)
}

/// One step of the QL method on values `first..=end`, with the shift of Wilkinson.
fn shift(diagonal: &mut [f64], beside: &mut [f64], first: usize, end: usize, turns: &mut Vec<Turn>) {
    let half = (diagonal[first + 1] - diagonal[first]) / (2.0 * beside[first]);
    let root = half.abs() + (half * half + 1.0).sqrt();
    let mut bulge = diagonal[end] - diagonal[first] + beside[first] / root.copysign(half);
    let (mut sine, mut cosine, mut taken) = (1.0, 1.0, 0.0);
    for i in (first..end).rev() {
        let (off, kept) = (sine * beside[i], cosine * beside[i]);
        let length = (off * off + bulge * bulge).sqrt();
        beside[i + 1] = length;
        if length == 0.0 {
            // The matrix falls apart here.
            diagonal[i + 1] -= taken;
            beside[end] = 0.0;
            return;
        }
        (sine, cosine) = (off / length, bulge / length);
        let here = diagonal[i + 1] - taken;
        let change = (diagonal[i] - here) * sine + 2.0 * cosine * kept;
        taken = sine * change;
        diagonal[i + 1] = here + taken;
        bulge = cosine * change - kept;
        turns.push(Turn { row: i as u32, cosine, sine });
    }
    diagonal[first] -= taken;
    beside[first] = bulge;
    beside[end] = 0.0;
}

/// A square matrix as strips of columns.
struct Strips {
    n: usize,
    strips: Vec<Mutex<Vec<f64>>>,
}

impl Strips {
    fn identity(n: usize) -> Self {
        let strip = |first: usize| {
            let mut strip = vec![0.0; n * STRIP];
            for column in first..n.min(first + STRIP) {
                strip[column * STRIP + column - first] = 1.0;
            }
            Mutex::new(strip)
        };
        Self { n, strips: (0..n).step_by(STRIP).map(strip).collect() }
    }

    fn for_each(&self, work: &Work<'_>, task: impl Fn(&mut [f64]) + Sync) -> Result<()> {
        let run = |(): &mut (), i: usize| {
            task(&mut self.strips[i].lock().unwrap_or_else(PoisonError::into_inner));
            Ok(())
        };
        work.for_each("eigenvectors", self.strips.len(), || (), run)
    }

    fn get(&mut self, row: usize, column: usize) -> f64 {
        debug_assert!(row < self.n && column < self.n);
        let strip = self.strips[column / STRIP].get_mut().unwrap_or_else(PoisonError::into_inner);
        strip[row * STRIP + column % STRIP]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::work::Silent;

    fn random_matrix(n: usize, seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed, 0);
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let value = random.bits() as i64 as f64 / (1u64 << 63) as f64;
                matrix[i * n + j] = value;
                matrix[j * n + i] = value;
            }
        }
        matrix
    }

    fn solve(matrix: &[f64], n: usize, n_threads: usize) -> Eigen {
        eigen(matrix.to_vec(), n, n, Kernels::best(), &Work::new(Some(n_threads), &Silent)).unwrap()
    }

    /// `A v = λ v`, and the vectors are orthonormal.
    fn check(matrix: &[f64], n: usize) {
        let Eigen { values, vectors } = solve(matrix, n, 1);
        let largest = matrix.iter().fold(0.0f64, |a, b| a.max(b.abs()));
        let size = if largest > 0.0 { largest * n as f64 } else { 1.0 };
        assert!(values.is_sorted_by(|a, b| a >= b));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for (i, (value, vector)) in values.iter().zip(vectors.chunks_exact(n)).enumerate() {
            for (row, x) in matrix.chunks_exact(n).zip(vector) {
                let rest = (dot(row, vector) - value * x) / size;
                assert!(rest.abs() < 1e-13 * n as f64, "n {n}, value {i}: {rest:e}");
            }
            for (j, other) in vectors.chunks_exact(n).enumerate().take(i + 1) {
                let expected = f64::from(u8::from(i == j));
                assert!((dot(vector, other) - expected).abs() < 1e-13 * n as f64, "n {n}: {i} and {j}");
            }
        }
        let trace: f64 = (0..n).map(|i| matrix[i * n + i]).sum();
        assert!((trace - values.iter().sum::<f64>()).abs() <= 1e-12 * size * n as f64);
    }

    #[test]
    fn vectors_are_those_of_the_matrix() {
        for n in (1..=34).chain([100, 300]) {
            check(&random_matrix(n, n as u64), n);
        }
    }

    #[test]
    fn odd_matrices_are_solved_too() {
        for n in [1, 2, 3, 5, 17, 40] {
            let like = |f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
                (0..n * n).map(|at| f(at / n, at % n)).collect()
            };
            check(&like(&|_, _| 0.0), n);
            check(&like(&|_, _| 1.0), n);
            check(&like(&|i, j| if i == j { 2.0 } else { 0.0 }), n);
            check(&like(&|i, j| if i == j { 1e-8_f64.powi(i as i32) } else { 0.0 }), n);
            // Two blocks that know nothing of each other.
            check(&like(&|i, j| if (i < n / 2) == (j < n / 2) { 1.0 + (i * j) as f64 } else { 0.0 }), n);
            check(&like(&|i, j| 1e-200 / (i + j + 1) as f64), n);
            check(&like(&|i, j| 1e200 / (i + j + 1) as f64), n);
            check(&like(&|i, j| f64::from(u8::from(i.abs_diff(j) == 1))), n);
        }
        let bad = eigen(vec![f64::NAN], 1, 1, Kernels::best(), &Work::inline());
        assert!(bad.is_err());
    }

    #[test]
    fn it_has_the_same_bits_for_any_number_of_threads_and_level() {
        let n = 500;
        let matrix = random_matrix(n, 3);
        let one = solve(&matrix, n, 2);
        for kernels in Kernels::available() {
            for n_threads in [1, 3] {
                let work = Work::new(Some(n_threads), &Silent);
                let found = eigen(matrix.clone(), n, n, kernels, &work).unwrap();
                assert!(found.values == one.values && found.vectors == one.vectors, "{kernels:?}");
            }
        }
    }

    #[test]
    #[ignore = "measures"]
    fn times() {
        for n in [384, 960, 1536, 4096] {
            let matrix = random_matrix(n, 1);
            let begin = std::time::Instant::now();
            solve(&matrix, n, 2);
            println!("{n}: {:.2} s", begin.elapsed().as_secs_f64());
        }
    }
}
