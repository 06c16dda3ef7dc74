//! Files of graphs whose checksums are right and whose numbers are not: a format error, or an index that can be used.

mod common;

use std::sync::Arc;

use common::forge::*;
use common::{Data, add, bytes_of, change, filled, plain, remove, scalar4, scalar8, vectors};
use nearest_core::encoding::Encoding;
use nearest_core::error::Error;
use nearest_core::file::Dtype;
use nearest_core::ids::IdList;
use nearest_core::index::{Index, Spec, Structure, verify};
use nearest_core::metric::Metric;

const DIM: usize = 6;
const N: usize = 1300;
const DEGREE: usize = 5;

/// A name, and an index with a graph of that kind; some rows wait, some are dead.
fn samples() -> Vec<(&'static str, Arc<Index>)> {
    let structure = Structure::Graph { degree: DEGREE as u16, ef_build: 12 };
    [
        ("raw", Metric::Euclidean, Encoding::Float32, None),
        ("whole", Metric::Euclidean, Encoding::UInt8, None),
        ("signed", Metric::Cosine, Encoding::Int8, None),
        ("second", Metric::InnerProduct, scalar4(), Some(scalar8())),
        ("place", Metric::Angular, scalar8(), None),
        ("rerank", Metric::SqEuclidean, scalar4(), Some(Encoding::Float16)),
    ]
    .map(|(name, metric, encoding, rerank)| {
        let spec = Spec { encoding, rerank, structure, ..plain(DIM, metric) };
        let index = filled(spec, &vectors(Data::Groups, N, DIM, encoding, 5));
        remove(&index, [3, 700]);
        add(&index, &vectors(Data::Normal, 40, DIM, encoding, 6));
        (name, index)
    })
    .to_vec()
}

#[test]
fn what_was_written_is_fine() {
    for (name, index) in samples() {
        let bytes = bytes_of(&index.snapshot());
        assert!(built(&parts(&bytes)) == bytes);
        view(&bytes).verify().unwrap();
        verify(&view(&bytes)).unwrap();
        assert!(use_them(&bytes), "{name}");
    }
}

#[test]
fn sections_that_are_missing_or_of_another_shape() {
    for (name, index) in samples().into_iter().step_by(2) {
        let all = parts(&bytes_of(&index.snapshot()));
        for i in 0..all.len() {
            let mut fewer = all.clone();
            let gone = fewer.remove(i);
            let opens = use_them(&built(&fewer));
            assert!(!opens || ["ids", "graph"].contains(&&*gone.name), "{name}: {}", gone.name);
            let n = gone.data.len() as u64;
            for shape in [vec![], vec![n, 1], vec![0, 7]] {
                let wrong = changed(&all, &gone.name, |part| {
                    part.data.resize(shape.iter().product::<u64>() as usize, 1);
                    part.shape = shape.clone();
                    part.dtype = Dtype::U8;
                });
                use_them(&built(&wrong));
            }
        }
        // The numbers of `spec` and `graph`, one by one: links of an index that has none, other degrees and encodings.
        for (section, n) in [("spec", 8), ("graph", 6)] {
            for at in 0..n {
                for value in
                    [0u64, 1, 2, 3, 5, 16, 17, 20, 2 | 6 << 16 | 12 << 32, 2 | 1 << 16, u64::MAX, 1 << 31]
                {
                    let wrong = changed(&all, section, |part| put(part, 8 * at, value.to_le_bytes()));
                    use_them(&built(&wrong));
                }
            }
        }
    }
}

#[test]
fn links_that_lead_nowhere() {
    for (name, index) in samples() {
        let bytes = bytes_of(&index.snapshot());
        let all = parts(&bytes);
        let n = index.snapshot().len() as u32;
        for value in [n - 1, n, n + 70_000, u32::MAX - 1, u32::MAX] {
            for at in [0, 4, DEGREE, 300 * DEGREE, 1300 * DEGREE] {
                let wrong = changed(&all, "graph_links", |part| put(part, 4 * at, value.to_le_bytes()));
                use_them(&built(&wrong));
            }
            let everywhere = changed(&all, "graph_links", |part| {
                (0..part.data.len() / 4).for_each(|at| put(part, 4 * at, value.to_le_bytes()));
            });
            let bytes = built(&everywhere);
            use_them(&bytes);
            assert!(matches!(verify(&view(&bytes)), Err(Error::Format(_))), "{name} {value}");
            assert!(matches!(
                Index::from_bytes(Arc::new(nearest_core::memory::Bytes::copied(&bytes).unwrap())),
                Err(Error::Format(_))
            ));
        }
        for section in ["graph_hubs", "graph_waiting"] {
            for value in [0, 700, n - 1, n, u32::MAX] {
                let wrong = changed(&all, section, |part| put(part, 0, value.to_le_bytes()));
                use_them(&built(&wrong));
                let twice = changed(&all, section, |part| {
                    put(part, 0, value.to_le_bytes());
                    put(part, 4, value.to_le_bytes());
                });
                use_them(&built(&twice));
            }
            let none = changed(&all, section, |part| {
                part.data.clear();
                part.shape = vec![0];
            });
            use_them(&built(&none));
        }
    }
}

/// Else a row that waits would still be found when it is gone, and one hub would be followed twice.
#[test]
fn links_to_rows_that_wait_and_repeated_hubs() {
    for (name, index) in samples() {
        let all = parts(&bytes_of(&index.snapshot()));
        let waits = index.snapshot().len() as u32 - 1;
        for (section, at, value) in
            [("graph_links", 0, waits.to_le_bytes()), ("graph_hubs", 0, waits.to_le_bytes())]
        {
            let bytes = built(&changed(&all, section, |part| put(part, at, value)));
            assert!(matches!(verify(&view(&bytes)), Err(Error::Format(_))), "{name} {section}");
            let read = Index::from_bytes(Arc::new(nearest_core::memory::Bytes::copied(&bytes).unwrap()));
            assert!(matches!(read, Err(Error::Format(_))), "{name} {section}");
            use_them(&bytes);
        }
        let twice = changed(&all, "graph_hubs", |part| {
            let first: [u8; 4] = part.data[..4].try_into().unwrap();
            put(part, 4, first);
        });
        assert!(matches!(verify(&view(&built(&twice))), Err(Error::Format(_))), "{name}");
    }
}

#[test]
fn scales_and_codes_of_any_kind() {
    for (name, index) in samples() {
        let all = parts(&bytes_of(&index.snapshot()));
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1.0, 0.0] {
            let wrong = changed(&all, "graph_scales", |part| {
                let bytes = half::bf16::from_f32(value).to_le_bytes();
                (0..part.data.len() / 2).step_by(3).for_each(|at| put(part, 2 * at, bytes));
            });
            let bytes = built(&wrong);
            use_them(&bytes);
            let is_told = matches!(verify(&view(&bytes)), Err(Error::Format(_)));
            assert!(is_told || (value.is_finite() && !value.is_nan()), "{name} {value}");
            let centre = changed(&all, "graph_centre", |part| put(part, 8, value.to_le_bytes()));
            assert!(value.is_finite() == use_them(&built(&centre)), "{name} {value}");
        }
        for byte in [0, 0xff] {
            for section in ["vectors", "graph_codes"] {
                if all.iter().any(|part| part.name == section) {
                    let wrong = changed(&all, section, |part| {
                        part.data.iter_mut().skip(7).step_by(3).for_each(|x| *x = byte)
                    });
                    use_them(&built(&wrong));
                }
            }
        }
    }
}

/// A file that lies can be changed without harm, if it opens.
#[test]
fn upserts_into_a_file_with_other_ids() {
    for (_, index) in samples().into_iter().step_by(3) {
        let all = parts(&bytes_of(&index.snapshot()));
        let wrong = changed(&all, "spec", |part| put(part, 8 * 6, (1u64 << 40).to_le_bytes()));
        let index = Arc::new(
            Index::from_bytes(Arc::new(nearest_core::memory::Bytes::copied(&built(&wrong)).unwrap()))
                .unwrap(),
        );
        let spec = *index.spec();
        let values = vectors(Data::Groups, 1200, DIM, spec.encoding, 8);
        change(&index, &values, Some(IdList::Int((500..1700).collect())), true).unwrap();
        assert_eq!(index.snapshot().stats().graph.unwrap().n_unreachable, 0);
    }
}
