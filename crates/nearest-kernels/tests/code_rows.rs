//! A query against rows of codes: every table against naive loops.

mod common;

use common::{Random, levels};
use nearest_kernels::{CodeQuery, CodeSums, Kernels};

/// The components of a row of codes.
fn components(bits: u32, row: &[u8], dim: usize) -> Vec<i64> {
    let w = row.len();
    (0..dim)
        .map(|j| match bits {
            8 => row[j].into(),
            _ if j < w => (row[j] & 15).into(),
            _ => (row[j - w] >> 4).into(),
        })
        .collect()
}

/// A row laid out as a query is what its levels, laid out, are.
fn check_row(bits: u32, row: &[u8], dim: usize) {
    let level = |u: i64| (if bits == 4 { 2 * u - 15 } else { u - 128 }) as i8;
    let levels: Vec<i8> = components(bits, row, dim).into_iter().map(level).collect();
    let [mut expected, mut query] = [CodeQuery::default(), CodeQuery::default()];
    expected.set(bits, &levels);
    query.set(12 - bits, &[7; 300]);
    query.set_row(bits, dim, row);
    assert_eq!(query, expected, "{bits} bits, {dim} components");
}

fn check(kernels: &Kernels, bits: u32, codes: &[i8], rows: &[&[u8]]) {
    let mut query = CodeQuery::default();
    // What was there before must not matter.
    query.set(12 - bits, &[7; 300]);
    query.set(bits, codes);
    assert_eq!(query.sum(), codes.iter().map(|&code| i32::from(code)).sum());
    let mut out = vec![CodeSums { products: i32::MIN, squares: i32::MIN }; rows.len()];
    kernels.code_sums(&query, rows, &mut out);
    let level = |u: i64| if bits == 4 { 2 * u - 15 } else { u - 128 };
    for (row, sums) in rows.iter().zip(out) {
        let row = components(bits, row, codes.len());
        let about = format!("{kernels:?}, {bits} bits, {} components", codes.len());
        let expected: i64 = codes.iter().zip(&row).map(|(&q, x)| i64::from(q) * x).sum();
        assert_eq!(i64::from(sums.products), expected, "{about}");
        let expected: i64 = codes.iter().zip(&row).map(|(&q, &x)| i64::from(q) * level(x)).sum();
        assert_eq!(i64::from(sums.products(bits, query.sum())), expected, "{about}");
        let expected: i64 = row.iter().map(|&x| level(x).pow(2)).sum();
        // Half a byte that is no component must be 0.
        assert_eq!(i64::from(sums.squares(bits, codes.len())), expected, "{about}");
    }
}

#[test]
fn sums_are_exact() {
    let mut random = Random::new(11);
    for kernels in levels() {
        for bits in [4, 8] {
            for dim in (1..=130usize).chain([255, 256, 257, 384, 960, 4096, 32_768]) {
                let row_bytes = dim.div_ceil(8 / bits as usize);
                let codes: Vec<i8> = (0..dim).map(|_| random.bits() as i8).collect();
                // Rows are not aligned, and end where memory may end.
                let rows: Vec<Vec<u8>> =
                    (0..13).map(|_| (0..=row_bytes).map(|_| random.bits() as u8).collect()).collect();
                let is_half = bits == 4 && dim % 2 == 1;
                let rows: Vec<Vec<u8>> = rows
                    .into_iter()
                    .map(|mut row| {
                        row[row_bytes] &= if is_half { 15 } else { 255 };
                        row
                    })
                    .collect();
                let rows: Vec<&[u8]> = rows.iter().map(|row| &row[1..]).collect();
                for n in if dim > 300 { vec![0, 1, 13] } else { (0..=13).collect() } {
                    check(kernels, bits, &codes, &rows[..n]);
                }
                rows.iter().for_each(|row| check_row(bits, row, dim));
            }
        }
    }
}

#[test]
fn extremes_do_not_overflow() {
    for kernels in levels() {
        for bits in [4, 8] {
            for value in [i8::MIN, i8::MAX] {
                let codes = vec![value; 32_768];
                let row = vec![0xff; codes.len().div_ceil(8 / bits as usize)];
                check(kernels, bits, &codes, &[&row[..]; 9]);
            }
        }
    }
}

#[test]
#[should_panic(expected = "rows of codes have 4 or 8 bits, got 2")]
fn other_bits_are_refused() {
    CodeQuery::default().set(2, &[1, 2, 3]);
}

#[test]
#[should_panic(expected = "bytes of a row of 3 components of 4 bits")]
fn a_row_of_another_length_is_no_query() {
    CodeQuery::default().set_row(4, 3, &[1]);
}

#[test]
#[should_panic(expected = "rows must have 4 elements, got 3")]
fn rows_of_another_length_are_refused() {
    let mut query = CodeQuery::default();
    query.set(8, &[1, 2, 3, 4]);
    Kernels::best().code_sums(&query, &[&[1, 2, 3]], &mut [CodeSums::default()]);
}
