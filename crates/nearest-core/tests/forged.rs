//! Files whose checksums are right and whose numbers are not, and ids at the end of all numbers.

use std::sync::Arc;

use nearest_core::encoding::{Encoding, Values};
use nearest_core::error::{Error, Result};
use nearest_core::file::{Dtype, FileView, FileWriter};
use nearest_core::files::{Files, RealFiles, replace_file};
use nearest_core::ids::{Id, IdList};
use nearest_core::index::{Index, Knobs, Queries, Spec, Structure, Zeros, verify};
use nearest_core::memory::Bytes;
use nearest_core::metric::Metric;
use nearest_core::work::{Silent, Work};

fn add(index: &Arc<Index>, n: usize, ids: Option<Vec<i64>>) -> Result<IdList> {
    let mut stage = index.stage(Zeros::Accept, &Silent)?;
    stage.append(Values::UInt8(&vec![1; n * index.spec().width()]), ids.map(IdList::Int), &Work::inline())?;
    stage.commit(false, &Work::inline())
}

fn view(bytes: &[u8]) -> FileView {
    FileView::open(Arc::new(Bytes::copied(bytes).unwrap()), None).unwrap()
}

/// An index of bytes, one dimension each, with more sections.
fn forged(
    metric: Metric,
    encoding: Encoding,
    next_id: u64,
    vectors: &[u8],
    more: impl FnOnce(&mut FileWriter<&mut Vec<u8>>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = FileWriter::new(&mut bytes, "index").unwrap();
    file.array("spec", &[8], &[1u64, metric as u64, encoding.number(), 0, 0, 0, next_id, 0]).unwrap();
    file.array("vectors", &[vectors.len() as u64, 1], vectors).unwrap();
    more(&mut file);
    file.finish().unwrap();
    bytes
}

fn opened(bytes: &[u8], map: bool) -> Result<Index> {
    if !map {
        return Index::from_bytes(Arc::new(Bytes::copied(bytes)?));
    }
    let name = format!("nearest-forged-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    replace_file(&RealFiles, &path, |out| out.write_all(bytes).map_err(|error| Error::io(&path, error)))?;
    let mapped = RealFiles.open_bytes(&path, true);
    std::fs::remove_file(&path).unwrap();
    Index::from_bytes(Arc::new(mapped?))
}

#[test]
fn after_the_largest_id_there_is_no_next_one() {
    let spec = Spec {
        dim: 1,
        metric: Metric::Euclidean,
        encoding: Encoding::UInt8,
        rerank: None,
        structure: Structure::Exact,
        shadow: false,
        seed: 0,
    };
    let index = Arc::new(Index::new(spec).unwrap());
    add(&index, 2, Some(vec![5, i64::MAX])).unwrap();
    let error = add(&index, 1, None).unwrap_err();
    assert!(matches!(&error, Error::Argument(text) if text.contains("no numbers are left")), "{error}");
    assert_eq!(index.snapshot().ids(), IdList::Int(vec![5, i64::MAX]));
    let mut bytes = Vec::new();
    index.snapshot().write(&mut bytes).unwrap();
    verify(&view(&bytes)).unwrap();
    let again = Arc::new(opened(&bytes, false).unwrap());
    assert!(add(&again, 1, None).is_err());
    assert_eq!(add(&again, 1, Some(vec![7])).unwrap(), IdList::Int(vec![7]));
    // One before the end, there is one more.
    let index = Arc::new(Index::new(spec).unwrap());
    add(&index, 1, Some(vec![i64::MAX - 2])).unwrap();
    assert!(add(&index, 2, None).is_err());
    assert_eq!(add(&index, 1, None).unwrap(), IdList::Int(vec![i64::MAX - 1]));
}

#[test]
fn counting_ids_need_a_next_one_after_them() {
    for (next_id, fine) in [(0, false), (2, false), (3, true), (7, true)] {
        let bytes = forged(Metric::Euclidean, Encoding::UInt8, next_id, &[1, 2, 3], |_| ());
        for map in [false, true] {
            assert_eq!(opened(&bytes, map).is_ok(), fine, "{next_id}");
        }
    }
}

#[test]
fn verify_sees_bits_beyond_dim() {
    for (bits, fine) in [(0x80, true), (0x81, false), (0x40, false)] {
        let bytes = forged(Metric::Hamming, Encoding::Binary, 2, &[0, bits], |_| ());
        assert_eq!(verify(&view(&bytes)).is_ok(), fine);
        opened(&bytes, true).unwrap();
    }
}

#[test]
fn one_id_many_times_is_found_quickly() {
    const N: usize = 300_000;
    for n_ids in [1, 3, 1000] {
        let ids: Vec<i64> = (0..N).map(|row| (row % n_ids) as i64 * 77).collect();
        let bytes = forged(Metric::Euclidean, Encoding::UInt8, 1 << 40, &[1; N], |file| {
            file.array("ids", &[N as u64], &ids).unwrap();
        });
        assert!(verify(&view(&bytes)).is_err());
        for map in [true, false] {
            let index = Arc::new(opened(&bytes, map).unwrap());
            for id in 0..n_ids as i64 {
                assert!(index.snapshot().contains(Id::Int(id * 77)));
            }
            assert!(!index.snapshot().contains(Id::Int(1)));
            if !map {
                add(&index, N, None).unwrap();
                assert!(index.snapshot().contains(Id::Int(77 * (n_ids as i64 - 1))));
            }
        }
    }
}

#[test]
fn texts_are_no_longer_than_the_bytes_there_are() {
    const N: usize = 1 << 17;
    for n_bytes in [8, 9, 1 << 16, 1 << 20] {
        let places: Vec<[u32; 2]> = (0..N as u32).map(|i| [i * 8 % (1 << 16), n_bytes]).collect();
        let bytes = forged(Metric::Euclidean, Encoding::UInt8, 0, &[1; N], |file| {
            let places = bytemuck::cast_slice(&places);
            file.section("text_places", Dtype::U32, &[N as u64, 2], |out| out.write_all(places)).unwrap();
            file.array("texts", &[1 << 20], &[b'a'; 1 << 20]).unwrap();
        });
        assert!(verify(&view(&bytes)).is_err());
        let overlap = n_bytes > 8;
        assert_eq!(opened(&bytes, false).is_err(), overlap);
        let snapshot = opened(&bytes, true).unwrap().snapshot();
        let IdList::Text(texts) = snapshot.ids() else { panic!("texts") };
        assert!(texts.iter().all(|text| text.is_empty() == overlap));
        assert_eq!(snapshot.contains(Id::Text("aaaaaaaa")), !overlap);
    }
}

#[test]
fn a_centre_that_is_no_number_is_refused() {
    for (centre, fine) in [(1.0f32, true), (f32::MAX, true), (f32::NAN, false), (f32::INFINITY, false)] {
        let mut bytes = Vec::new();
        let mut file = FileWriter::new(&mut bytes, "index").unwrap();
        file.array("spec", &[8], &[1u64, 0, 0, 0, 8, 0, 1, 0]).unwrap();
        file.array("vectors", &[1, 1], &[1.0f32]).unwrap();
        file.array("shadow_centre", &[1], &[centre]).unwrap();
        // Of a single row there is no block.
        file.array::<u8>("shadow", &[0, 4 * 1024 + 16_448], &[]).unwrap();
        file.finish().unwrap();
        for map in [false, true] {
            let index = opened(&bytes, map);
            assert_eq!(index.is_ok(), fine, "{centre}");
            if let Ok(index) = index {
                let found = index.snapshot().search(
                    Queries::Numbers(&[1.0; 8]),
                    1,
                    None,
                    Knobs::default(),
                    &Work::inline(),
                );
                assert!(found.unwrap().found.iter().all(|list| list[0].distance == 0.0));
            }
        }
    }
}
