//! A graph of real vectors, built and walked: recall, time and steps a query.
//!
//! `cargo run --release -p nearest-core --example graph -- FOLDER [NAME=VALUE…]`, with a folder as `data` reads it;
//! [`Settings`] has the names.

mod data;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use data::{Data, K};
use nearest_core::coder::{Coder, ShortEncoding};
use nearest_core::column::{CHUNK_ROWS, Column, ColumnWriter, Row};
use nearest_core::graph::build::{choose, packed, reversed};
use nearest_core::graph::codes::{Codes, Query};
use nearest_core::graph::hubs::Hubs;
use nearest_core::graph::near::near;
use nearest_core::graph::pairs::Pairs;
use nearest_core::graph::prune::Rule;
use nearest_core::graph::reach::connect;
use nearest_core::graph::walk::{Scratch, Steps, Walker};
use nearest_core::graph::{NONE, pool};
use nearest_core::kmeans::{self, Side};
use nearest_core::lists::{self, Codec, Coding, CodingScratch, Lists, QueryCodes};
use nearest_core::live::RowSet;
use nearest_core::memory::{Allocator, SystemAllocator};
use nearest_core::work::{Silent, Work};
use nearest_kernels::{CodeQuery, Kernels};

/// What can be set, and the usual.
struct Settings(Vec<(String, String)>);

impl Settings {
    const USUAL: [(&'static str, &'static str); 15] = [
        ("threads", "2"),
        // Lists that rows near a row are looked for in: so many times √n, of which each row goes to a part.
        ("per_root", "2.5"),
        ("part", "0.025"),
        // Rows near a row that links are chosen from, and of those that chose it.
        ("near", "48"),
        ("incoming", "64"),
        ("degree", "32"),
        ("factor", "1.1"),
        ("fills", "1"),
        ("hubs", "256"),
        ("starts", "4"),
        // Of the codes that are walked along; vectors of uint8 are taken as they are if there are 8 and `native` is 1.
        ("bits", "4"),
        ("native", "1"),
        ("rerank", "20"),
        ("ef", "16,24,32,48,64,96,128"),
        ("rounds", "5"),
    ];

    fn text(&self, name: &str) -> &str {
        let given = self.0.iter().map(|(name, value)| (&name[..], &value[..]));
        let found = given.chain(Self::USUAL).find(|(other, _)| *other == name);
        found.unwrap_or_else(|| panic!("no setting {name}")).1
    }

    fn number(&self, name: &str) -> f64 {
        self.text(name).parse().unwrap_or_else(|_| panic!("{name} is no number"))
    }

    fn count(&self, name: &str) -> usize {
        self.number(name) as usize
    }
}

fn column<T: bytemuck::Pod>(width: usize, values: &[T]) -> Column<T> {
    let allocator: Arc<dyn Allocator> = Arc::new(SystemAllocator);
    let mut writer = ColumnWriter::new(Column::new(width, CHUNK_ROWS), allocator);
    let copy = |range: std::ops::Range<usize>, out: &mut [T]| {
        out.copy_from_slice(&values[range.start * width..range.end * width]);
    };
    writer.stage(values.len() / width, copy).expect("memory for a column");
    writer.publish(&[])
}

/// Lists that rows near a row are looked for in.
fn lists(data: &Data, native: bool, settings: &Settings, work: &Work<'_>) -> Lists {
    let (n, dim) = (data.n(), data.dim);
    let n_lists = ((n as f64).sqrt() * settings.number("per_root")) as usize;
    let plan = lists::Plan {
        metric: data.metric,
        codes: if native { lists::Codes::UInt8 } else { lists::Codes::Short(ShortEncoding::Scalar8) },
        second: None,
        n_lists: n_lists.next_multiple_of(32),
        flat_up_to: lists::FLAT_UP_TO,
        spill: 0.0,
        seed: 0,
    };
    let trained = lists::train(&Side::new(&sample(data, 64 * n_lists), dim), &plan, work).expect("lists");
    let coded = trained.code(&Side::new(&data.base, dim), false, work).expect("codes");
    let allocator: Arc<dyn Allocator> = Arc::new(SystemAllocator);
    trained.with(&coded, n, &RowSet::first(n), &allocator, work).expect("lists")
}

fn sample(data: &Data, size: usize) -> Vec<f32> {
    data.base.chunks_exact(data.dim).step_by((data.n() / size).max(1)).flatten().copied().collect()
}

/// All rows as codes, side by side, and their terms.
fn coded(data: &Data, coding: &Coding, native: bool, work: &Work<'_>) -> (Vec<u8>, Vec<f32>) {
    const ROWS: usize = 256;
    let (kernels, dim, bytes) = (Kernels::best(), data.dim, coding.code_bytes());
    let parts = work.map("coding", data.n().div_ceil(ROWS), CodingScratch::default, |scratch, i| {
        let (mut codes, mut terms) = (Vec::new(), Vec::new());
        let (mut framed, mut spare, zeros) = (vec![0.0; dim], Vec::new(), vec![0.0; dim]);
        for row in data.base.chunks_exact(dim).skip(i * ROWS).take(ROWS) {
            let at = codes.len();
            codes.resize(at + bytes, 0);
            let term = if native {
                let raw: Vec<u8> = row.iter().map(|&x| x as u8).collect();
                coding.encode_native(kernels, &raw, 0, &mut codes[at..])
            } else {
                coding.frame().row(kernels, row, &mut spare, &mut framed);
                coding.encode(kernels, &framed, &zeros, 0, &mut codes[at..], scratch)
            };
            terms.extend([term.scale, term.bias]);
        }
        Ok((codes, terms))
    });
    let (codes, terms): (Vec<_>, Vec<_>) = parts.expect("codes").into_iter().unzip();
    (codes.concat(), terms.concat())
}

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = args.next().expect("a folder");
    let given = args.map(|arg| arg.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())));
    let settings = Settings(given.map(|pair| pair.expect("NAME=VALUE")).collect());
    let data = Data::read(Path::new(&folder));
    let (kernels, n, dim) = (Kernels::best(), data.n(), data.dim);
    let work = Work::new(Some(settings.count("threads")), &Silent);
    let native = data.is_uint8 && settings.count("native") == 1;
    let begin = Instant::now();
    let mut last = begin;
    let mut lap = |what: &str| {
        println!("{:8.2} s  {what}", last.elapsed().as_secs_f64());
        last = Instant::now();
    };

    let lists = lists(&data, native, &settings, &work);
    lap("lists");
    let coding = |encoding: ShortEncoding| {
        let codec = match native {
            true => Codec::UInt8,
            false => Codec::Short(Coder::train(encoding, dim, &[], 0, kernels, &work).expect("a coder")),
        };
        Coding::new(lists.coding.frame().clone(), codec, lists.coding.loss())
    };
    let long = coding(ShortEncoding::Scalar8);
    let (long_codes, long_terms) = coded(&data, &long, native, &work);
    let codes = if native || settings.count("bits") == 8 {
        Codes { coding: Arc::new(long), codes: column(dim, &long_codes), terms: column(2, &long_terms) }
    } else {
        let short = coding(ShortEncoding::Scalar4);
        let (codes, terms) = coded(&data, &short, false, &work);
        let bytes = short.code_bytes();
        Codes { coding: Arc::new(short), codes: column(bytes, &codes), terms: column(2, &terms) }
    };
    let pairs = Pairs::new(dim, long_codes, long_terms.chunks_exact(2).map(|terms| terms[0]).collect());
    lap("codes");

    let live = RowSet::first(n);
    let rows: Vec<Row> = (0..n as Row).collect();
    let n_probe = (lists.n_lists() as f64 * settings.number("part")) as usize;
    let found = near(&lists, &data.base, &rows, &live, settings.count("near"), n_probe, &work).expect("rows");
    lap("rows near each");
    let degree = settings.count("degree");
    let mut rule = Rule { degree, factor: settings.number("factor") as f32, fills: false };
    let of_found = |row: Row, out: &mut Vec<Row>| out.extend_from_slice(&found[row as usize]);
    let chosen = choose(kernels, &pairs, &rule, of_found, &work).expect("links");
    let incoming = reversed(&chosen, settings.count("incoming"));
    rule.fills = settings.count("fills") == 1;
    let both = |row: Row, out: &mut Vec<Row>| {
        let all = chosen[row as usize].iter().chain(&incoming[row as usize]);
        out.extend(all.map(|link| link.1));
    };
    let linked = choose(kernels, &pairs, &rule, both, &work).expect("links");
    lap("links");
    let mean = linked.iter().map(Vec::len).sum::<usize>() as f64 / n as f64;
    let mut links = packed(&linked, degree);

    let n_hubs = settings.count("hubs");
    let kmeans_settings = kmeans::Settings { max_points_per_centroid: 64, ..kmeans::Settings::new(n_hubs) };
    let points = sample(&data, 64 * n_hubs);
    let centroids =
        kmeans::kmeans(&Side::new(&points, dim), &kmeans_settings, &work).expect("hubs").centroids;
    let nearest = near(&lists, &centroids, &vec![NONE; n_hubs], &live, 1, 8, &work).expect("hubs");
    let mut hubs: Vec<Row> = nearest.into_iter().flatten().collect();
    connect(&mut links, degree, &mut hubs, of_found);
    let links = column(degree, &links);
    let hubs = Hubs::new(kernels, &codes, hubs);
    lap("hubs");
    println!(
        "{:8.2} s  in all; {mean:.1} links a row, {} hubs",
        begin.elapsed().as_secs_f64(),
        hubs.rows.len()
    );

    let walker = Walker::new(kernels, &codes, &links, n);
    let search =
        Search { data: &data, codes: &codes, hubs: &hubs, pairs: &pairs, long_terms: &long_terms, native };
    for ef in settings.text("ef").split(',').map(|ef| ef.parse().expect("a number")) {
        search.measure(&walker, ef, &settings);
    }
}

struct Search<'a> {
    data: &'a Data,
    codes: &'a Codes,
    hubs: &'a Hubs,
    /// What candidates are compared with again.
    pairs: &'a Pairs,
    long_terms: &'a [f32],
    native: bool,
}

impl Search<'_> {
    fn measure(&self, walker: &Walker<'_>, ef: usize, settings: &Settings) {
        let (kernels, dim) = (Kernels::best(), self.data.dim);
        let (n_starts, rerank) = (settings.count("starts"), settings.count("rerank"));
        let (mut coded, mut buffers) = (QueryCodes::default(), CodingScratch::default());
        let (mut query, mut long) = (Query::default(), CodeQuery::default());
        let (mut entries, mut sums, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let mut scratch = Scratch::default();
        let (mut found, mut steps, mut seconds) = (Vec::new(), Vec::new(), f64::INFINITY);
        for _ in 0..settings.count("rounds") {
            found.clear();
            steps.clear();
            let begin = Instant::now();
            for values in self.data.queries.chunks_exact(dim) {
                self.codes.coding.queries(kernels, values, &mut coded, &mut buffers);
                let of = &coded.rows;
                query.set(self.codes.bits(), &of.codes[..dim], of.start[0], of.unit[0]);
                if self.native {
                    query.set_integers(values);
                }
                self.hubs.nearest(kernels, &query, n_starts, &mut entries, &mut sums, &mut starts);
                steps.push(walker.walk(&query, &starts, ef, 1, &mut scratch));
                let best = scratch.pool.entries().iter().map(|&entry| pool::row(entry));
                found.push(if self.native {
                    best.take(K).collect()
                } else {
                    long.set(8, &of.codes[..dim]);
                    self.again(&long, of.unit[0], best.take(rerank).collect())
                });
            }
            seconds = seconds.min(begin.elapsed().as_secs_f64());
        }
        let n = self.data.n_queries() as f64;
        let mean = |of: fn(&Steps) -> usize| steps.iter().map(of).sum::<usize>() as f64 / n;
        println!(
            "ef {ef:4}: recall {:.4}, {:6.0}/s, {:5.1} µs, {:5.1} rounds, {:5.1} followed, {:5.0} distances",
            self.data.recall(&found),
            n / seconds,
            seconds / n * 1e6,
            mean(|steps| steps.n_rounds),
            mean(|steps| steps.n_followed),
            mean(|steps| steps.n_distances),
        );
    }

    /// The nearest of some rows by their codes of 8 bits.
    fn again(&self, query: &CodeQuery, unit: f32, rows: Vec<Row>) -> Vec<Row> {
        let codes: Vec<&[u8]> = rows.iter().map(|&row| self.pairs.code(row)).collect();
        codes.iter().for_each(|code| nearest_kernels::prefetch(code));
        let mut sums = vec![0; rows.len()];
        Kernels::best().code_sums(query, &codes, &mut sums);
        // Of all rows as much: what the zero of their codes adds.
        let start = -128 * query.sum();
        let mut scored: Vec<(f32, Row)> = rows
            .into_iter()
            .zip(sums)
            .map(|(row, sum)| {
                let [scale, bias] = [0, 1].map(|i| self.long_terms[2 * row as usize + i]);
                (-(unit * scale * (sum + start) as f32 + bias), row)
            })
            .collect();
        scored.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        scored.into_iter().take(K).map(|scored| scored.1).collect()
    }
}
