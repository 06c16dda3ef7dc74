//! Profile of batch searches: `lists_prof PATH.nearest QUERIES.f32 effort k seconds`.
use nearest_core::files::RealFiles;
use nearest_core::index::*;
use nearest_core::work::*;
use std::path::Path;
use std::time::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let index = Index::open(&RealFiles, Path::new(&a[1]), false).unwrap();
    let s = index.snapshot();
    let q: Vec<f32> = std::fs::read(&a[2])
        .unwrap()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let knobs = Knobs { effort: Some(a[3].parse().unwrap()), rerank_k: None };
    let k = a[4].parse().unwrap();
    let n = q.len() / s.spec().dim;
    let single = a.len() > 6;
    let end = Instant::now();
    let mut best = f64::INFINITY;
    while end.elapsed().as_secs_f64() < a[5].parse().unwrap() {
        let t = Instant::now();
        if single {
            for one in q.chunks_exact(s.spec().dim) {
                s.search(Queries::Numbers(one), k, None, knobs, &Work::inline()).unwrap();
            }
        } else {
            s.search(Queries::Numbers(&q), k, None, knobs, &Work::inline()).unwrap();
        }
        best = best.min(t.elapsed().as_secs_f64());
    }
    println!("{:.2} us a query, {:.0}/s", best * 1e6 / n as f64, n as f64 / best);
}
