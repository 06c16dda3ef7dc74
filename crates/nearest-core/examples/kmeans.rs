//! Seconds and objective of k-means over a raw file of float32: `cargo run --release --example kmeans -p nearest-core
//! -- vectors.f32 dim k [n_threads] [n_iterations] [balanced: 0 or 1] [hierarchical: 1 no, 2 yes]`.

use std::time::Instant;

use nearest_core::kmeans::{Settings, Side, assign, kmeans};
use nearest_core::work::{Silent, Work};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default| arguments.get(i).map_or(default, |text| text.parse().expect("a number"));
    let bytes = std::fs::read(&arguments[0]).expect("a file of float32");
    let vectors: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let (dim, k) = (number(1, 0), number(2, 0));
    let work = Work::new(Some(number(3, 1)), &Silent);
    let points = Side::new(&vectors, dim);
    let settings = Settings {
        n_iterations: number(4, 10),
        balanced: number(5, 0) == 1,
        hierarchical: [None, Some(false), Some(true)][number(6, 0)],
        ..Settings::new(k)
    };
    for _ in 0..number(7, 1) {
        let begin = Instant::now();
        let found = kmeans(&points, &settings, &work).expect("clusters");
        let trained = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        let assigned = assign(&points, &found.centroids, &work).expect("nearest");
        let seconds = begin.elapsed().as_secs_f64();
        let sum: f64 = assigned.distances.iter().map(|&d| f64::from(d)).sum();
        let mut sizes = vec![0u64; k];
        assigned.places.iter().for_each(|&place| sizes[place as usize] += 1);
        let n = assigned.places.len() as f64;
        let largest = *sizes.iter().max().expect("a cluster") as f64 / (n / k as f64);
        println!(
            "kmeans {trained:.3} s, objective {:.5?}, largest / mean {:.1}; assign {seconds:.3} s, mean {}",
            found.objective,
            largest,
            sum / assigned.places.len() as f64
        );
    }
}
