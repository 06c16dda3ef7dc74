//! What this machine's memory reaches, as JSON: `cargo run --release -p nearest-core --example limits [-- stream]`.
//!
//! Rates of multiply-adds are those of `nearest-kernels`' example `peak`. Here: stream bandwidth with one and two
//! threads, the latency of a miss that the next one depends on, and how many misses a core keeps in flight. All of it
//! on huge pages where the system gives them, as the indexes are. `benchmarks/run.py` states results as a fraction of
//! these, so each is the best of several ways: a limit measured too low would flatter.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use nearest_core::memory::{Allocator, Buffer, SystemAllocator};

const GIB: usize = 1 << 30;
/// In numbers of 8 bytes.
const LINE: usize = 8;
const ROUNDS: usize = 7;
/// Loads of one measurement of latency or of random lines.
const STEPS: usize = 4 << 20;

fn numbers(n_bytes: usize) -> Buffer {
    let allocator: Arc<dyn Allocator> = Arc::new(SystemAllocator);
    let mut buffer = Buffer::zeroed(n_bytes, &allocator).expect("memory for the measurement");
    // Written, or every page would be the one page of zeros.
    for (i, number) in bytemuck::cast_slice_mut::<u8, u64>(&mut buffer).iter_mut().enumerate() {
        *number = i as u64;
    }
    buffer
}

fn seconds(call: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    call();
    begin.elapsed().as_secs_f64()
}

fn best(mut call: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| call()).fold(f64::INFINITY, f64::min)
}

fn median(mut call: impl FnMut() -> f64) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS).map(|_| call()).collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

/// Reads all of it as `STREAMS` streams side by side: more streams keep more misses in flight.
fn sum<const STREAMS: usize>(numbers: &[u64]) -> u64 {
    // Sixteen lines at a time of each stream; the sums of a line stay in registers.
    const STEP: usize = 16 * LINE;
    let part = numbers.len() / STREAMS / STEP * STEP;
    let streams: [&[u64]; STREAMS] = std::array::from_fn(|stream| &numbers[stream * part..][..part]);
    let mut sums = [0_u64; LINE];
    for start in (0..part).step_by(STEP) {
        for stream in streams {
            for line in stream[start..start + STEP].chunks_exact(LINE) {
                for (sum, number) in sums.iter_mut().zip(line) {
                    *sum = sum.wrapping_add(*number);
                }
            }
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}

/// GB/s that `n_threads` read together, each its own part, the best number of streams.
fn stream(memory: &[u64], n_threads: usize) -> f64 {
    let ways: [fn(&[u64]) -> u64; 4] = [sum::<1>, sum::<2>, sum::<4>, sum::<8>];
    let rate = |way: fn(&[u64]) -> u64| {
        let parts: Vec<&[u64]> = memory.chunks_exact(memory.len() / n_threads).collect();
        let barrier = Barrier::new(n_threads);
        let time = best(|| {
            std::thread::scope(|scope| {
                let run = |part| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        seconds(|| {
                            black_box(way(black_box(part)));
                        })
                    })
                };
                let threads: Vec<_> = parts.iter().map(|part| run(part)).collect();
                threads.into_iter().map(|thread| thread.join().expect("a sum")).fold(0.0, f64::max)
            })
        });
        size_of_val(memory) as f64 / time / 1e9
    };
    ways.into_iter().map(rate).fold(0.0, f64::max)
}

/// A small generator (Steele, Lea, Flood 2014: SplitMix), so that runs are alike.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((u128::from(z) * end as u128) >> 64) as usize
    }
}

/// Makes the first number of every line name another line, all of them one cycle (Sattolo 1986).
fn link(numbers: &mut [u64]) {
    let n = numbers.len() / LINE;
    for line in 0..n {
        numbers[line * LINE] = line as u64;
    }
    let mut random = Random(1);
    for line in (1..n).rev() {
        numbers.swap(line * LINE, random.below(line) * LINE);
    }
}

/// Follows `CHAINS` chains at once, each load waiting for the one before it in its chain. Lines that it starts from.
fn chase<const CHAINS: usize>(numbers: &[u64], steps: usize) -> [u64; CHAINS] {
    let n = numbers.len() / LINE;
    let mut lines: [u64; CHAINS] = std::array::from_fn(|chain| (chain * (n / CHAINS)) as u64);
    for _ in 0..steps {
        for line in &mut lines {
            *line = numbers[*line as usize * LINE];
        }
    }
    lines
}

/// Nanoseconds a load.
fn chased<const CHAINS: usize>(numbers: &[u64]) -> f64 {
    let steps = STEPS / 4 / CHAINS;
    let time = median(|| {
        seconds(|| {
            black_box(chase::<CHAINS>(black_box(numbers), steps));
        })
    });
    time / (steps * CHAINS) as f64 * 1e9
}

/// Nanoseconds a place, for places of `N_LINES` lines side by side whose numbers are known beforehand.
fn gathered<const N_LINES: usize>(numbers: &[u64], places: &[u32]) -> f64 {
    let end = numbers.len() / LINE - N_LINES;
    let places = &places[..places.len() / N_LINES];
    let time = median(|| {
        seconds(|| {
            let mut sum = 0_u64;
            for place in black_box(places) {
                let start = (*place as usize).min(end) * LINE;
                for line in numbers[start..start + N_LINES * LINE].chunks_exact(LINE) {
                    sum = sum.wrapping_add(line[0]);
                }
            }
            black_box(sum);
        })
    });
    time / places.len() as f64 * 1e9
}

/// Kilobytes of this process on huge pages.
fn huge_kilobytes() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("AnonHugePages:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn main() {
    let only_stream = std::env::args().nth(1).is_some_and(|what| what == "stream");
    let mut memory = numbers(GIB);
    let huge = huge_kilobytes();
    let memory: &mut [u64] = bytemuck::cast_slice_mut(&mut memory);
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let one = stream(memory, 1);
    let mut fields = vec![
        format!("\"memory_bytes\": {GIB}"),
        format!("\"huge_page_share\": {:.3}", (huge << 10) as f64 / GIB as f64),
        format!("\"stream_1_gb_per_second\": {one:.2}"),
    ];
    // One core says nothing of two: left out rather than guessed.
    if n_threads > 1 {
        fields.push(format!("\"stream_2_gb_per_second\": {:.2}", stream(memory, 2)));
    }
    if !only_stream {
        let mut random = Random(2);
        let lines = memory.len() / LINE;
        let places: Vec<u32> = (0..STEPS).map(|_| random.below(lines) as u32).collect();
        link(memory);
        let miss = chased::<1>(memory);
        // Both ways to have many misses at once; the code that has most in flight says what the core can do.
        let chains = [
            (2, chased::<2>(memory)),
            (4, chased::<4>(memory)),
            (8, chased::<8>(memory)),
            (12, chased::<12>(memory)),
            (16, chased::<16>(memory)),
            (24, chased::<24>(memory)),
            (32, chased::<32>(memory)),
            (48, chased::<48>(memory)),
        ];
        let gathers = [
            (1, gathered::<1>(memory, &places)),
            (2, gathered::<2>(memory, &places)),
            (4, gathered::<4>(memory, &places)),
            (8, gathered::<8>(memory, &places)),
            (48, gathered::<48>(memory, &places)),
        ];
        let small = &mut memory[..(16 << 20) / 8];
        link(small);
        let cached = chased::<1>(small);
        let most = chains.iter().map(|(_, time)| *time).fold(gathers[0].1, f64::min);
        let list = |pairs: &[(usize, f64)]| {
            let parts: Vec<String> = pairs.iter().map(|(n, time)| format!("\"{n}\": {time:.2}")).collect();
            format!("{{{}}}", parts.join(", "))
        };
        fields.extend([
            format!("\"miss_nanoseconds\": {miss:.1}"),
            format!("\"miss_16_mib_nanoseconds\": {cached:.1}"),
            format!("\"misses_in_flight\": {:.1}", miss / most),
            format!("\"chain_nanoseconds_a_line\": {}", list(&chains)),
            format!("\"gather_nanoseconds_a_place\": {}", list(&gathers)),
        ]);
    }
    println!("{{{}}}", fields.join(", "));
}
