//! What this machine's kernels reach, a core: `cargo run --release --example peak -p nearest-kernels`.
//!
//! Peaks are loops of multiply-adds on registers; tiles are compared with them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use half::{bf16, f16};
use nearest_kernels::{
    Element, Kernels, Nearest, PANEL_ROWS, PanelCentroids, PanelPoints, PanelQueries, PanelRows, Rows,
    WordTables, panel_depth, planes_bytes,
};

const QUERIES: usize = 1000;

/// Seconds a call, the best of a few rounds.
fn seconds(mut call: impl FnMut()) -> f64 {
    call();
    let once = Instant::now();
    call();
    let calls = (0.02 / once.elapsed().as_secs_f64().max(1e-8)).ceil() as u32;
    let round = |_| {
        let begin = Instant::now();
        (0..calls).for_each(|_| call());
        begin.elapsed() / calls
    };
    (0..7).map(round).min().unwrap_or(Duration::MAX).as_secs_f64()
}

#[cfg(target_arch = "x86_64")]
mod registers {
    //! Multiply-adds on registers alone, a million rounds.
    use std::arch::asm;

    const ROUNDS: u64 = 1_000_000;

    macro_rules! peak {
        ($name:ident, $instruction:literal, $register:literal, $lanes:literal) => {
            /// Gives the number of multiply-adds.
            #[allow(unsafe_code, reason = "registers only")]
            pub fn $name() -> f64 {
                // SAFETY: registers only; the caller has seen that the CPU has the instruction.
                unsafe {
                    asm!(
                        "2:",
                        concat!($instruction, " ", $register, "0, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "1, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "2, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "3, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "4, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "5, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "6, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "7, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "8, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "9, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "10, ", $register, "14, ", $register, "15"),
                        concat!($instruction, " ", $register, "11, ", $register, "14, ", $register, "15"),
                        "dec {rounds}",
                        "jnz 2b",
                        rounds = inout(reg) ROUNDS => _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                        out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                        out("xmm10") _, out("xmm11") _,
                        options(nomem, nostack),
                    );
                }
                ROUNDS as f64 * 12.0 * $lanes
            }
        };
    }
    peak!(f32_avx2, "vfmadd231ps", "ymm", 8.0);
    peak!(f32_avx512, "vfmadd231ps", "zmm", 16.0);
    peak!(i8_avx2, "vpmaddwd", "ymm", 16.0);
    peak!(i8_avx512, "vpdpbusd", "zmm", 64.0);
}

fn print_peaks(level: &str) {
    #[cfg(target_arch = "x86_64")]
    {
        type Peak = (&'static str, fn() -> f64);
        let peaks: [Peak; 2] = match level {
            "avx2" => [("f32", registers::f32_avx2), ("int8", registers::i8_avx2)],
            "avx512" => [("f32", registers::f32_avx512), ("int8", registers::i8_avx512)],
            _ => return,
        };
        for (name, run) in peaks {
            let time = seconds(|| {
                black_box(run());
            });
            println!("  {name} peak on registers: {:.0} G multiply-adds/s", run() / time / 1e9);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = level;
}

/// Panels in L1 or L2 against queries, none of them a hit.
fn print_tiles(kernels: &Kernels, dim: usize, n: usize) {
    let (bias, scale) = ([0.0; PANEL_ROWS], [1.0; PANEL_ROWS]);
    let (weight, threshold) = (vec![1.0; n], vec![f32::INFINITY; n]);
    let depth = panel_depth(dim);
    let panel: Vec<u8> = (0..depth * PANEL_ROWS).map(|i| (i * 31) as u8).collect();
    let codes: Vec<i8> = (0..depth * n).map(|i| (i * 17) as i8).collect();
    let mut hits = Vec::new();
    let start = vec![0; n];
    let time = seconds(|| {
        let rows =
            PanelRows { panel: black_box(&panel), scale: &scale, bias: &bias, mutual: None, ahead: &[] };
        let queries = PanelQueries {
            codes: &codes,
            start: &start,
            weight: &weight,
            threshold: &threshold,
            mutual_threshold: &[],
        };
        kernels.tile_i8(&rows, &queries, &mut hits);
    });
    let i8_rate = (n * PANEL_ROWS * dim) as f64 / time / 1e9;

    let panel: Vec<f32> = (0..dim * PANEL_ROWS).map(|i| (i % 7) as f32).collect();
    let codes: Vec<f32> = (0..dim * n).map(|i| (i % 5) as f32).collect();
    let mut hits = Vec::new();
    let start = vec![0.0; n];
    let time = seconds(|| {
        let rows =
            PanelRows { panel: black_box(&panel), scale: &scale, bias: &bias, mutual: None, ahead: &[] };
        let queries = PanelQueries {
            codes: &codes,
            start: &start,
            weight: &weight,
            threshold: &threshold,
            mutual_threshold: &[],
        };
        kernels.tile_f32(&rows, &queries, &mut hits);
    });
    let f32_rate = (n * PANEL_ROWS * dim) as f64 / time / 1e9;
    println!("  tiles, dim {dim}, {n} queries: int8 {i8_rate:.0}, f32 {f32_rate:.0} G multiply-adds/s");
}

/// A panel of points against centroids: the best of them, the two best, all scores.
fn print_centroids(kernels: &Kernels, dim: usize, n: usize) {
    let depth = panel_depth(dim);
    let panel: Vec<u8> = (0..depth * PANEL_ROWS).map(|i| (i * 31) as u8).collect();
    let codes: Vec<i8> = (0..depth * n).map(|i| (i * 17) as i8).collect();
    let (start, scale, bias) = (vec![0; n], vec![1.0; n], vec![-1.0; n]);
    let centroids = PanelCentroids { codes: &codes, start: &start, scale: &scale, bias: &bias };
    let points = PanelPoints { panel: &panel, weight: &[1.0; PANEL_ROWS] };
    let (mut best, mut two, mut out) = (Nearest::NONE, [Nearest::NONE; 2], vec![0.0; n * PANEL_ROWS]);
    let rate = |time: f64| (n * PANEL_ROWS * dim) as f64 / time / 1e9;
    let one = seconds(|| kernels.nearest_i8(black_box(&points), &centroids, 0, &mut best));
    let both = seconds(|| kernels.two_nearest_i8(black_box(&points), &centroids, 0, &mut two));
    let all = seconds(|| kernels.scores_i8(black_box(&points), &centroids, &mut out));

    let panel: Vec<f32> = (0..dim * PANEL_ROWS).map(|i| (i % 7) as f32).collect();
    let codes: Vec<f32> = (0..dim * n).map(|i| (i % 5) as f32).collect();
    let start = vec![0.0; n];
    let centroids = PanelCentroids { codes: &codes, start: &start, scale: &scale, bias: &bias };
    let points = PanelPoints { panel: &panel, weight: &[1.0; PANEL_ROWS] };
    let float = seconds(|| kernels.nearest_f32(black_box(&points), &centroids, 0, &mut best));
    println!(
        "  centroids, dim {dim}, {n} of them: int8 nearest {:.0}, two nearest {:.0}, scores {:.0}, f32 nearest {:.0} \
         G multiply-adds/s",
        rate(one),
        rate(both),
        rate(all),
        rate(float)
    );
}

fn print_canonical(kernels: &Kernels, dim: usize) {
    let n = 64;
    let query: Vec<f32> = (0..dim).map(|i| i as f32).collect();
    let rows: Vec<f32> = (0..dim * n).map(|i| (i % 101) as f32).collect();
    let halves: Vec<f16> = rows.iter().map(|value| f16::from_f32(*value)).collect();
    let mut sum = 0.0;
    let mut pair =
        |run: &mut dyn FnMut(usize) -> f64| seconds(|| (0..n).for_each(|i| sum += run(i))) / n as f64 * 1e9;
    let dot = pair(&mut |i| kernels.canonical_dot(&query, &rows[i * dim..][..dim]));
    let squared = pair(&mut |i| kernels.canonical_sqeuclidean(&query, &rows[i * dim..][..dim]));
    let manhattan = pair(&mut |i| kernels.canonical_manhattan(&query, &rows[i * dim..][..dim]));
    let half = pair(&mut |i| kernels.canonical_dot(&query, &halves[i * dim..][..dim]));
    println!(
        "  canonical, dim {dim}: dot {dot:.1}, sqeuclidean {squared:.1}, manhattan {manhattan:.1}, \
         dot of f16 {half:.1} ns a pair"
    );
    black_box(sum);
}

fn print_quantise(kernels: &Kernels) {
    let dim = 768;
    let row: Vec<f32> = (0..dim).map(|i| (i as f32).sin()).collect();
    let centre = vec![0.1; dim];
    let (mut bytes, mut codes) = (vec![0; dim], vec![0; dim]);
    let of_row = seconds(|| {
        black_box(kernels.quantise_row(black_box(&row), &centre, &mut bytes));
    });
    let of_query = seconds(|| {
        black_box(kernels.quantise_query(black_box(&row), &centre, &mut codes));
    });
    let scale = 1e9 / dim as f64;
    println!("  quantise, dim {dim}: row {:.2}, query {:.2} ns an element", of_row * scale, of_query * scale);
}

/// Rotating and coding a row, unpacking a panel.
fn print_codes(kernels: &Kernels, dim: usize) {
    let row: Vec<f32> = (0..dim).map(|i| (i as f32).sin()).collect();
    let factors = vec![0.05; 5 * dim];
    let mut rotated = row.clone();
    let rotate = seconds(|| {
        rotated.copy_from_slice(&row);
        kernels.rotate(&factors, black_box(&mut rotated));
    });
    let mut levels = vec![0; dim];
    let mut line = format!("  codes, dim {dim}: rotate {:.0} ns a row", rotate * 1e9);
    for bits in [1, 4, 8] {
        let code = seconds(|| {
            black_box(kernels.quantise_grid(black_box(&row), bits, &mut levels));
        });
        line += &format!(", {bits} bits {:.0}", code * 1e9);
    }
    let depth = panel_depth(dim);
    let mut panel = vec![0; PANEL_ROWS * depth];
    line += "; unpack";
    for bits in 1..=7 {
        let packed = vec![0x5a; planes_bytes(bits, depth)];
        let time = seconds(|| kernels.unpack_planes(bits, black_box(&packed), &mut panel));
        line += &format!(" {:.0}", time * 1e9);
    }
    line += "; multiply with one query";
    let (codes, of_32) = (vec![3; depth], [1.0; PANEL_ROWS]);
    let query =
        PanelQueries { codes: &codes, start: &[0], weight: &[1.0], threshold: &[1e9], mutual_threshold: &[] };
    for bits in 1..=7 {
        let packed = vec![0x5a; planes_bytes(bits, depth)];
        let rows = PanelRows { panel: &packed, scale: &of_32, bias: &of_32, mutual: None, ahead: &[] };
        let time = seconds(|| kernels.tile_planes(bits, black_box(&rows), &query, &mut Vec::new()));
        line += &format!(" {:.0}", time * 1e9);
    }
    line += " ns a panel of 1 to 7 bits";
    for (width, bits) in [(4, 4), (2, 4), (4, 8)] {
        let ends: Vec<usize> = (width..=dim).step_by(width).collect();
        let tables = WordTables::new(bits, &ends, &vec![7; dim << bits]);
        let packed = vec![0x5a; tables.packed_bytes()];
        let time = seconds(|| kernels.unpack_words(&tables, black_box(&packed), &mut panel));
        let (values, mut codes) = (vec![0.5; dim], vec![0; dim / width]);
        let words = vec![0.25; (1 << bits) * (dim + dim / width)];
        let choose = seconds(|| kernels.nearest_words(&words, 1 << bits, black_box(&values), &mut codes));
        line += &format!(
            "; product({}, {bits}) choose {:.0} ns a row, unpack {:.0} a panel",
            dim / width,
            choose * 1e9,
            time * 1e9
        );
    }
    println!("{line}");
}

fn print_streams<T: Element>(kernels: &Kernels, name: &str, dim: usize, query: &[T::Query], memory: &[u8]) {
    let memory: &[T] = bytemuck::cast_slice(memory);
    let row_bytes = dim * size_of::<T>();
    let mut line = format!("  {name:4} dim {dim:4}:");
    for (place, bytes) in [("L1", 16_384), ("L2", 1 << 19), ("memory", size_of_val(memory))] {
        let n = bytes / row_bytes;
        let rows = &memory[..n * dim];
        let mut out = vec![T::Sum::default(); n];
        let rate = |time: f64| (n * row_bytes) as f64 / time / 1e9;
        let (dot, squared, manhattan) = if place == "memory" {
            let once = |run: &mut dyn FnMut()| {
                (0..2)
                    .map(|_| {
                        let begin = Instant::now();
                        run();
                        begin.elapsed()
                    })
                    .min()
                    .map_or(0.0, |time| time.as_secs_f64())
            };
            let dot = once(&mut || kernels.dot(query, Rows::Contiguous(rows), &mut out));
            (dot, once(&mut || kernels.sqeuclidean(query, Rows::Contiguous(rows), &mut out)), dot)
        } else {
            (
                seconds(|| kernels.dot(black_box(query), Rows::Contiguous(rows), &mut out)),
                seconds(|| kernels.sqeuclidean(black_box(query), Rows::Contiguous(rows), &mut out)),
                seconds(|| kernels.manhattan(black_box(query), Rows::Contiguous(rows), &mut out)),
            )
        };
        line += &format!("  {place} dot {:.0} sqeuclidean {:.0}", rate(dot), rate(squared));
        if place != "memory" {
            line += &format!(" manhattan {:.0}", rate(manhattan));
        }
    }
    println!("{line} GB/s");
}

fn print_bits(kernels: &Kernels, memory: &[u8]) {
    let (bytes, n) = (128, memory.len() / 128);
    let query = vec![0x5a; bytes];
    let mut out = vec![0; n];
    let near = seconds(|| {
        kernels.hamming(black_box(&query), Rows::Contiguous(&memory[..16_384]), &mut out[..128]);
    });
    let begin = Instant::now();
    kernels.hamming(&query, Rows::Contiguous(&memory[..n * bytes]), &mut out);
    let far = begin.elapsed().as_secs_f64();
    println!(
        "  bits, 128 bytes: L1 {:.0} GB/s, memory {:.0} GB/s",
        16.384e-6 / near,
        (n * bytes) as f64 / far / 1e9
    );
}

/// One query against panels that lie in memory side by side.
fn print_scan(kernels: &Kernels, memory: &[u8]) {
    let codes = [3; 128];
    let begin = Instant::now();
    let mut hits = Vec::new();
    for panel in memory.chunks_exact(128 * PANEL_ROWS) {
        let rows = PanelRows::unscaled(panel);
        let queries = PanelQueries {
            codes: &codes,
            start: &[0],
            weight: &[1.0],
            threshold: &[f32::INFINITY],
            mutual_threshold: &[],
        };
        kernels.tile_i8(&rows, &queries, &mut hits);
    }
    let rate = memory.len() as f64 / begin.elapsed().as_secs_f64() / 1e9;
    println!("  one query against int8 panels in memory, dim 128: {rate:.0} GB/s");
}

fn main() {
    println!("kernels: {}", Kernels::best().name());
    let only = std::env::args().nth(1);
    let memory = vec![1_u8; 512 << 20];
    for kernels in Kernels::available() {
        if only.as_ref().is_some_and(|name| name != kernels.name()) {
            continue;
        }
        println!("{}", kernels.name());
        print_peaks(kernels.name());
        for dim in [128, 384, 960] {
            print_tiles(kernels, dim, QUERIES);
            print_centroids(kernels, dim, QUERIES);
        }
        print_tiles(kernels, 128, 1);
        print_scan(kernels, &memory);
        print_canonical(kernels, 128);
        print_canonical(kernels, 384);
        print_quantise(kernels);
        for dim in [128, 384, 960] {
            print_codes(kernels, dim);
        }
        for dim in [128, 384] {
            let query = vec![0.5; dim];
            print_streams::<f32>(kernels, "f32", dim, &query, &memory);
            print_streams::<f16>(kernels, "f16", dim, &query, &memory);
            print_streams::<bf16>(kernels, "bf16", dim, &query, &memory);
            print_streams::<i8>(kernels, "i8", dim, &vec![3; dim], &memory);
            print_streams::<u8>(kernels, "u8", dim, &vec![3; dim], &memory);
        }
        print_bits(kernels, &memory);
    }
}
