//! The rows that one query is compared with.

/// Rows to compare one query with.
#[derive(Debug)]
pub enum Rows<'a, T> {
    /// Rows side by side: row `i` is `[i * dim..(i + 1) * dim]`.
    Contiguous(&'a [T]),
    /// Rows wherever they lie.
    Scattered(&'a [&'a [T]]),
}

// Not derived: a derive would ask for `T: Copy`.
impl<T> Clone for Rows<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Rows<'_, T> {}

impl<'a, T> Rows<'a, T> {
    /// The rows one by one, each of `dim` elements.
    pub(crate) fn each(self, dim: usize) -> impl Iterator<Item = &'a [T]> {
        let (contiguous, scattered): (&'a [T], &'a [&'a [T]]) = match self {
            Rows::Contiguous(values) => (values, &[]),
            Rows::Scattered(rows) => (&[], rows),
        };
        contiguous.chunks_exact(dim).chain(scattered.iter().copied())
    }

    /// Panics unless these are `n` rows of `dim` elements.
    #[track_caller]
    pub(crate) fn check(self, dim: usize, n: usize) {
        match self {
            Rows::Contiguous(values) => assert!(
                n.checked_mul(dim) == Some(values.len()),
                "rows must hold {n} · {dim} elements, got {}",
                values.len()
            ),
            Rows::Scattered(rows) => {
                assert!(rows.len() == n, "out must have one place a row: {} rows, {n} places", rows.len());
                for row in rows {
                    assert!(row.len() == dim, "rows must have {dim} elements, got {}", row.len());
                }
            }
        }
    }
}
