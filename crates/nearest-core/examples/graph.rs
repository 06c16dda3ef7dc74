//! A graph of real vectors, built and walked: recall, time and steps a query.
//!
//! `cargo run --release -p nearest-core --example graph -- FOLDER [NAME=VALUE…]`, with a folder as `data` reads it;
//! [`Settings`] has the names.

mod data;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use data::{Data, K};
use nearest_core::coder::ShortEncoding;
use nearest_core::column::{Column, Row};
use nearest_core::graph::search::{Scratch, Searcher};
use nearest_core::graph::walk::Steps;
use nearest_core::graph::{Codes, Graph, Plan, pool};
use nearest_core::kmeans::Side;
use nearest_core::lists;
use nearest_core::live::RowSet;
use nearest_core::memory::{Allocator, SystemAllocator};
use nearest_core::work::{Silent, Work};
use nearest_kernels::Kernels;

/// What can be set, and the usual.
struct Settings(Vec<(String, String)>);

impl Settings {
    const USUAL: [(&'static str, &'static str); 9] = [
        ("threads", "2"),
        // Rows near a row that links are chosen from.
        ("ef_build", "48"),
        ("degree", "32"),
        // Of the codes that are walked along; vectors of uint8 are taken as they are if there are 8 and `native` is 1.
        ("bits", "4"),
        ("native", "1"),
        // Rows that come one thousand at a time, after the others.
        ("later", "0"),
        ("rerank", "20"),
        ("ef", "16,24,32,48,64,96,128"),
        ("rounds", "5"),
    ];

    fn text(&self, name: &str) -> &str {
        let given = self.0.iter().map(|(name, value)| (&name[..], &value[..]));
        let found = given.chain(Self::USUAL).find(|(other, _)| *other == name);
        found.unwrap_or_else(|| panic!("no setting {name}")).1
    }

    fn count(&self, name: &str) -> usize {
        self.text(name).parse().unwrap_or_else(|_| panic!("{name} is no number"))
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = args.next().expect("a folder");
    let given = args.map(|arg| arg.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())));
    let settings = Settings(given.map(|pair| pair.expect("NAME=VALUE")).collect());
    let data = Data::read(Path::new(&folder));
    let (n, dim) = (data.n(), data.dim);
    let work = Work::new(Some(settings.count("threads")), &Silent);
    let allocator: Arc<dyn Allocator> = Arc::new(SystemAllocator);
    let native = data.is_uint8 && settings.count("native") == 1;
    let begin = Instant::now();
    let mut last = begin;
    let mut lap = |what: &str| {
        println!("{:8.2} s  {what}", last.elapsed().as_secs_f64());
        last = Instant::now();
    };

    let plan = lists::Plan {
        metric: data.metric,
        codes: match (native, settings.count("bits")) {
            (true, _) => lists::Codes::UInt8,
            (_, 8) => lists::Codes::Short(ShortEncoding::Scalar8),
            _ => lists::Codes::Short(ShortEncoding::Scalar4),
        },
        second: (!native).then_some(ShortEncoding::Scalar8),
        n_lists: 1,
        flat_up_to: lists::FLAT_UP_TO,
        spill: 0.0,
        seed: 0,
    };
    let sample: Vec<f32> =
        data.base.chunks_exact(dim).step_by((n / 16_384).max(1)).flatten().copied().collect();
    let empty = Codes::train(&Side::new(&sample, dim), &plan, &work).expect("codes");
    let coded = empty.code(&Side::new(&data.base, dim), &work).expect("codes");
    let bytes = empty.codes.width();
    let up_to = |n: usize| Codes {
        codes: Column::of(bytes, &coded.codes[..n * bytes], &allocator).expect("memory"),
        scales: Column::of(1, &coded.scales[..n], &allocator).expect("memory"),
        ..empty.clone()
    };
    lap("codes");
    let read = |rows: &[Row], out: &mut [f32]| {
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(dim)) {
            out.copy_from_slice(&data.base[row as usize * dim..][..dim]);
        }
        Ok(())
    };
    let plan = Plan { degree: settings.count("degree"), ef_build: settings.count("ef_build"), seed: 0 };
    let n_first = n - settings.count("later");
    let graph = Graph::new(plan, up_to(n_first));
    let mut graph = graph.linked_anew(&read, &RowSet::first(n_first), &allocator, &work).expect("links");
    lap("links");
    for first in (n_first..n).step_by(1024) {
        let end = n.min(first + 1024);
        graph.codes = up_to(end);
        let live = RowSet::first(end);
        let waiting = graph.awaiting(first as Row..end as Row, &live);
        graph = waiting.linked(&read, &live, &RowSet::default(), &allocator, &work).expect("links");
    }
    lap("links of those that came later");
    let (seconds, n_hubs) = (begin.elapsed().as_secs_f64(), graph.hubs.rows.len());
    println!("{seconds:8.2} s  in all; {n_hubs} hubs, growth {:.4}", graph.growth);
    println!("{} rows cannot be reached", graph.n_unreachable(&RowSet::first(n)));

    for ef in settings.text("ef").split(',').map(|ef| ef.parse().expect("a number")) {
        measure(&data, &graph, &coded.kept, ef, &settings);
    }
}

/// Searches for all queries, one by one; `kept` holds second codes.
fn measure(data: &Data, graph: &Graph, kept: &[u8], ef: usize, settings: &Settings) {
    let searcher = Searcher::new(graph);
    let mut scratch = Scratch::default();
    let (mut found, mut steps, mut seconds) = (Vec::new(), Vec::new(), f64::INFINITY);
    for _ in 0..settings.count("rounds") {
        found.clear();
        steps.clear();
        let begin = Instant::now();
        for values in data.queries.chunks_exact(data.dim) {
            searcher.prepare(values, &mut scratch);
            steps.push(searcher.nearest(ef, Some(K), &[], &mut scratch));
            let best = scratch.found().iter().map(|&entry| pool::row(entry));
            let best: Vec<Row> = best.take(settings.count("rerank")).collect();
            found.push(match &graph.codes.second {
                None => as_they_are(graph, values, best),
                Some(second) => {
                    let distances = scratch.found().iter().map(|&entry| pool::distance(entry));
                    again(second, scratch.codes(), kept, best.into_iter().zip(distances).collect())
                }
            });
        }
        seconds = seconds.min(begin.elapsed().as_secs_f64());
    }
    let n = data.n_queries() as f64;
    let mean = |of: fn(&Steps) -> usize| steps.iter().map(of).sum::<usize>() as f64 / n;
    println!(
        "ef {ef:4}: recall {:.4}, {:6.0}/s, {:5.1} µs, {:5.1} rounds, {:5.1} followed, {:5.0} distances",
        data.recall(&found),
        n / seconds,
        seconds / n * 1e6,
        mean(|steps| steps.n_rounds),
        mean(|steps| steps.n_followed),
        mean(|steps| steps.n_distances),
    );
}

/// The nearest of some rows of uint8.
fn as_they_are(graph: &Graph, query: &[f32], rows: Vec<Row>) -> Vec<Row> {
    let codes = &graph.codes.codes;
    rows.iter().for_each(|&row| nearest_kernels::prefetch(codes.row(row)));
    let mut bytes = vec![0u8; query.len()];
    let mut distance = |row: Row| {
        graph.codes.bytes_of(codes.row(row), &mut bytes);
        Kernels::best().canonical_sqeuclidean(query, &bytes[..])
    };
    let mut compared: Vec<(f64, Row)> = rows.into_iter().map(|row| (distance(row), row)).collect();
    compared.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    compared.into_iter().take(K).map(|compared| compared.1).collect()
}

/// The nearest of some rows, at these distances as walks see them, by what is kept of them in 8 bits more.
fn again(second: &lists::Second, query: (&[i8], f32), kept: &[u8], rows: Vec<(Row, f32)>) -> Vec<Row> {
    let bytes = second.kept_bytes();
    let codes: Vec<&[u8]> = rows.iter().map(|&(row, _)| &kept[row as usize * bytes..][..bytes]).collect();
    codes.iter().for_each(|code| nearest_kernels::prefetch(code));
    let mut scores = Vec::new();
    second.scores(Kernels::best(), query, &codes, &mut Vec::new(), &mut scores).expect("codes of 8 bits");
    let whole = scores.into_iter().zip(rows).map(|(score, (row, distance))| (distance - score, row));
    let mut scored: Vec<(f32, Row)> = whole.collect();
    scored.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    scored.into_iter().take(K).map(|scored| scored.1).collect()
}
