//! Golden files of indexes: those of old versions open, those of this one are written byte for byte.
//!
//! `NEAREST_REMAKE_GOLDEN=1 cargo test -p nearest-core --test golden` writes them anew: only for a new format version.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use nearest_core::coder::ShortEncoding;
use nearest_core::encoding::{Encoding, Values};
use nearest_core::file::{FORMAT_VERSION, FileView, FileWriter};
use nearest_core::files::RealFiles;
use nearest_core::ids::{ARENA_CHUNK_BYTES, IdList};
use nearest_core::index::{Index, Knobs, Queries, Snapshot, Spec, Structure, Zeros, verify};
use nearest_core::memory::Bytes;
use nearest_core::metric::Metric;
use nearest_core::work::{Silent, Work};

fn folder(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(version.to_string())
}

fn index(
    (dim, metric, encoding, shadow): (usize, Metric, Encoding, bool),
    values: Values<'_>,
    ids: Option<IdList>,
) -> Arc<Index> {
    let index = Arc::new(
        Index::new(Spec {
            dim,
            metric,
            encoding,
            rerank: None,
            structure: Structure::Exact,
            shadow,
            seed: 42,
        })
        .unwrap(),
    );
    let mut stage = index.stage(Zeros::Accept, &Silent).unwrap();
    stage.append(values, ids, &Work::inline()).unwrap();
    stage.commit(false, &Work::inline()).unwrap();
    index
}

const DIM: usize = 5;
const N: usize = 40;

const GRAPH: Structure = Structure::Graph { degree: 4, ef_build: 8 };

/// Element `i` of the vectors in lists.
fn value(i: usize) -> f32 {
    (i / DIM % 3 * 80) as f32 + (i * 37 % 11) as f32
}

/// Lists of three groups that are far apart, so that every CPU sees the same ones; two vectors were removed.
fn lists(
    (metric, encoding, rerank): (Metric, Encoding, Option<Encoding>),
    structure: Structure,
    texts: bool,
    calibration: &str,
) -> Arc<Index> {
    let index =
        Index::new(Spec { dim: DIM, metric, encoding, rerank, structure, shadow: false, seed: 42 }).unwrap();
    let index = Arc::new(index);
    let values: Vec<f32> = (0..N * DIM).map(value).collect();
    index.train(N, Values::Float32(&values), &Work::inline()).unwrap();
    let name = |i: usize| format!("row {i}");
    let ids = texts.then(|| IdList::Text((0..N).map(name).collect()));
    let mut stage = index.stage(Zeros::Accept, &Silent).unwrap();
    stage.append(Values::Float32(&values), ids, &Work::inline()).unwrap();
    stage.commit(false, &Work::inline()).unwrap();
    let gone = if texts { IdList::Text(vec![name(5), name(17)]) } else { IdList::Int(vec![5, 17]) };
    index.remove(&gone, &Work::inline()).unwrap();
    index.set_calibration(calibration, &Silent).unwrap();
    index
}

/// A graph of the same, linked though there are few.
fn graph(kind: (Metric, Encoding, Option<Encoding>), texts: bool) -> Arc<Index> {
    let index = lists(kind, GRAPH, texts, "");
    index.link(&Work::inline()).unwrap();
    index
}

/// The same lists in groups, which only indexes of very many lists have; one group has none.
fn grouped(snapshot: &Snapshot) -> Arc<Index> {
    let bytes = bytes_of(snapshot);
    let view = FileView::open(Arc::new(Bytes::copied(&bytes).unwrap()), None).unwrap();
    let mut out = Vec::new();
    let mut file = FileWriter::new(&mut out, "index").unwrap();
    for section in view.sections() {
        let data = view.bytes_of(section);
        file.section(section.name(), section.dtype(), section.shape(), |out| out.write_all(data)).unwrap();
        if section.is_required() {
            file.mark_required();
        }
        if section.name() == "lists_centroids" {
            let centres: Vec<f32> = (0..3 * DIM).map(|i| i as f32 / 2.0 - 1.0).collect();
            file.array("lists_groups", &[3, DIM as u64], &centres).unwrap();
            file.array("lists_group_ends", &[3], &[4u32, 4, 9]).unwrap();
        }
    }
    file.finish().unwrap();
    Arc::new(Index::from_bytes(Arc::new(Bytes::copied(&out).unwrap())).unwrap())
}

/// Every encoding, kind of ids and kind of section, in as few bytes as that takes.
fn all() -> Vec<(&'static str, Arc<Snapshot>)> {
    let small = [0.0, 1.0, -2.5, 3.0, 4.0, 0.5];
    let whole = [0.0, 1.0, 2.0, 3.0, 4.0, 255.0];
    let many: Vec<f32> = (0..1030 * 2).map(|i| (i * 37 % 101) as f32 / 8.0 - 3.0).collect();
    let (floats, text) = (Values::Float32(&small), |texts: [&str; 3]| texts.map(String::from).to_vec());
    let spec = Spec {
        dim: 2,
        metric: Metric::Cosine,
        encoding: Encoding::Float16,
        rerank: None,
        structure: Structure::Exact,
        shadow: true,
        seed: 1,
    };
    let removed =
        index((2, Metric::SqEuclidean, Encoding::Int8, false), Values::Int8(&[1, 2, 3, 4, -128, 127]), None);
    removed.remove(&IdList::Int(vec![1]), &Work::inline()).unwrap();
    let names = IdList::Text(text(["a", "", "Löffel"]));
    let numbers = IdList::Int(vec![7, 1 << 40, 0]);
    let short = |encoding| Encoding::Short(encoding);
    let three = Structure::Lists { n_lists: 3, spill: 40 };
    let nine = Structure::Lists { n_lists: 9, spill: 40 };
    let scalar8 = short(ShortEncoding::Scalar8);
    let euclidean = |encoding, rerank| (Metric::Euclidean, encoding, rerank);
    let listed = Spec { encoding: short(ShortEncoding::Scalar4), structure: three, shadow: false, ..spec };
    let trained = Arc::new(Index::new(listed).unwrap());
    trained.train(3, Values::Float32(&[1.0, 2.0, -5.0, 4.0, 0.0, -3.0]), &Work::inline()).unwrap();
    let second = (Metric::Cosine, short(ShortEncoding::Scalar4), Some(short(ShortEncoding::Scalar8)));
    let words = short(ShortEncoding::Product { m: 2, bits: 4 });
    let bits = (Metric::InnerProduct, short(ShortEncoding::Rabitq { bits: 3 }), None);
    let calibration = "{\"n_queries\": 10, \"what\": \"gemessen\u{e4}\"}";
    [
        ("lists-untrained", Arc::new(Index::new(listed).unwrap())),
        ("lists-empty", trained),
        ("lists-float32", lists(euclidean(Encoding::Float32, None), nine, false, "")),
        ("lists-groups", grouped(&lists(euclidean(scalar8, None), nine, false, "").snapshot())),
        ("lists-uint8-texts", lists((Metric::Angular, Encoding::UInt8, None), three, true, "")),
        ("lists-second-calibrated", lists(second, three, false, calibration)),
        ("lists-words-float16", lists(euclidean(words, Some(Encoding::Float16)), three, false, "")),
        ("graph-waiting", lists(euclidean(scalar8, None), GRAPH, false, "")),
        ("graph-uint8-texts", graph(euclidean(Encoding::UInt8, None), true)),
        ("graph-second", graph(second, false)),
        ("codes", lists(bits, Structure::Exact, true, "")),
        ("empty", Arc::new(Index::new(spec).unwrap())),
        ("float32", index((2, Metric::Euclidean, Encoding::Float32, false), floats, None)),
        (
            "float16-ids",
            index((3, Metric::Angular, Encoding::Float16, false), floats, Some(IdList::Int(vec![9, 3]))),
        ),
        ("bfloat16-texts", index((2, Metric::InnerProduct, Encoding::BFloat16, false), floats, Some(names))),
        ("int8-removed", removed),
        (
            "uint8-ids",
            index((2, Metric::Manhattan, Encoding::UInt8, false), Values::Float32(&whole), Some(numbers)),
        ),
        (
            "binary",
            index((11, Metric::Jaccard, Encoding::Binary, false), Values::UInt8(&[1, 0x20, 255, 224]), None),
        ),
        ("shadow", index((2, Metric::Euclidean, Encoding::Float32, true), Values::Float32(&many), None)),
    ]
    .map(|(name, index)| (name, index.snapshot()))
    .to_vec()
}

/// Vectors in lists are what they were, as far as their codes go.
fn check_values(snapshot: &Snapshot) {
    let ids: Vec<String> = snapshot.ids().iter().map(|id| id.to_string()).collect();
    assert_eq!(ids.len(), N - 2);
    let rows: Vec<u32> = (0..ids.len() as u32).collect();
    let mut got = Vec::new();
    snapshot
        .values_of(&rows, |values| match values {
            Values::Float32(values) => got.extend_from_slice(values),
            Values::Float16(values) => got.extend(values.iter().map(|x| x.to_f32())),
            Values::UInt8(values) => got.extend(values.iter().map(|&x| f32::from(x))),
            other => panic!("{other:?}"),
        })
        .unwrap();
    for (id, got) in ids.iter().zip(got.chunks_exact(DIM)) {
        let digits: String = id.chars().filter(char::is_ascii_digit).collect();
        let row: usize = digits.parse().unwrap();
        let expected: Vec<f32> = (0..DIM).map(|j| value(row * DIM + j)).collect();
        let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
        // Where only directions count, codes are of vectors of length 1.
        let is_raw = snapshot.values_encoding() != Encoding::Float32;
        let angular = snapshot.spec().metric.is_angular() && !is_raw;
        let scale = if angular { norm(&expected) } else { 1.0 };
        let off: Vec<f32> = expected.iter().zip(got).map(|(x, got)| x - got * scale).collect();
        assert!(norm(&off) <= 0.25 * norm(&expected).max(80.0), "{id}: {got:?} for {expected:?}");
    }
}

fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn this_version_is_written_byte_for_byte() {
    let folder = folder(FORMAT_VERSION);
    for (name, snapshot) in all() {
        let path = folder.join(format!("index-{name}.nearest"));
        let bytes = bytes_of(&snapshot);
        if std::env::var_os("NEAREST_REMAKE_GOLDEN").is_some() {
            fs::write(&path, &bytes).unwrap();
        }
        let golden = fs::read(&path).unwrap();
        assert!(golden == bytes, "{name}: the format changed: a new version is needed");
        for map in [true, false] {
            let opened = Index::open(&RealFiles, &path, map).unwrap().snapshot();
            assert!(bytes_of(&opened) == golden, "{name}: opened and written again");
            assert_eq!((opened.spec(), opened.ids()), (snapshot.spec(), snapshot.ids()), "{name}");
        }
    }
}

#[test]
fn files_of_every_version_open() {
    let mut n_files = 0;
    for version in 1..=FORMAT_VERSION {
        for entry in fs::read_dir(folder(version)).unwrap() {
            let path = entry.unwrap().path();
            let view =
                FileView::open(Arc::new(Bytes::copied(&fs::read(&path).unwrap()).unwrap()), None).unwrap();
            assert_eq!(view.version(), version);
            view.verify().unwrap();
            if view.kind() != "index" {
                continue;
            }
            verify(&view).unwrap();
            let snapshot = Index::open(&RealFiles, &path, true).unwrap().snapshot();
            let spec = *snapshot.spec();
            let (bits, numbers) = (vec![0x20; spec.width()], vec![1.0; spec.dim]);
            let query = match spec.encoding {
                Encoding::Binary => Queries::Bits(&bits),
                _ => Queries::Numbers(&numbers),
            };
            let found = snapshot.search(query, 3, None, Knobs::default(), &Work::inline()).unwrap();
            assert_eq!(found.found[0].len(), snapshot.len().min(3), "{}", path.display());
            if snapshot.is_trained() && !snapshot.is_empty() {
                check_values(&snapshot);
            }
            n_files += 1;
        }
    }
    assert_eq!(n_files, all().len());
}

#[test]
fn no_text_crosses_a_mebibyte() {
    // Too large for a golden file: texts that do not fit before the boundary start after it.
    let long = "x".repeat(60_000);
    let texts: Vec<String> = (0..40).map(|i| format!("{i}{long}")).collect();
    let index = index(
        (1, Metric::Euclidean, Encoding::UInt8, false),
        Values::UInt8(&[0; 40]),
        Some(IdList::Text(texts.clone())),
    );
    let bytes = bytes_of(&index.snapshot());
    let view = FileView::open(Arc::new(Bytes::copied(&bytes).unwrap()), Some("index")).unwrap();
    let places: &[[u32; 2]] = view.array(view.section("text_places").unwrap()).unwrap();
    let arena = view.bytes_of(view.section("texts").unwrap());
    let mut end = 0;
    for (&[start, n_bytes], text) in places.iter().zip(&texts) {
        let (start, n_bytes) = (start as usize, n_bytes as usize);
        assert_eq!(start / ARENA_CHUNK_BYTES, (start + n_bytes - 1) / ARENA_CHUNK_BYTES);
        assert_eq!(&arena[start..start + n_bytes], text.as_bytes());
        assert!(arena[end..start].iter().all(|&byte| byte == 0));
        end = start + n_bytes;
    }
    assert_eq!(end, arena.len());
    let opened = Index::from_bytes(Arc::new(Bytes::copied(&bytes).unwrap())).unwrap();
    assert!(bytes_of(&opened.snapshot()) == bytes);
}
