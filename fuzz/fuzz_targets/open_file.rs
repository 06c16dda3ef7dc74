//! Any bytes: an index that can be used, or a format error. Never a panic, a hang, or memory that they do not justify.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use nearest_core::encoding::{Encoding, Values};
use nearest_core::error::Error;
use nearest_core::file::FileView;
use nearest_core::ids::{Id, IdList};
use nearest_core::index::{Allowed, Index, Queries, Snapshot, Zeros, verify, Knobs};
use nearest_core::memory::Bytes;
use nearest_core::work::{Silent, Work};
use nearest_fuzz::{Random, build, mapped, parse, repair};

fuzz_target!(|data: &[u8]| {
    for map in [true, false] {
        let bytes = || Arc::new(if map { mapped(data) } else { Bytes::copied(data).unwrap() });
        let verified = match FileView::open(bytes(), None) {
            Ok(view) => view.verify().and_then(|()| match view.kind() {
                "index" => verify(&view),
                _ => Ok(()),
            }),
            Err(error) => Err(error),
        };
        if let Err(error) = &verified {
            assert!(matches!(error, Error::Format(_)), "{error}");
        }
        match Index::from_bytes(bytes()) {
            Ok(index) => use_it(Arc::new(index), verified.is_ok()),
            Err(Error::Format(_)) => {}
            Err(error) => panic!("expected a format error, got {error}"),
        }
    }
});

fn use_it(index: Arc<Index>, verified: bool) {
    let snapshot = index.snapshot();
    let spec = *snapshot.spec();
    if verified {
        // What was verified is written again and is the same, but for sections that nobody knows.
        let mut bytes = Vec::new();
        snapshot.write(&mut bytes).unwrap();
        let again = Index::from_bytes(Arc::new(Bytes::copied(&bytes).unwrap())).unwrap().snapshot();
        assert_eq!(again.ids(), snapshot.ids());
        assert_eq!(again.spec(), &spec);
    }
    look(&snapshot);
    let ids = snapshot.ids();
    if index.is_mapped() {
        // Ids that are negative in the file are the first thing to be refused.
        assert!(matches!(index.remove(&ids, &Work::inline()), Err(Error::ReadOnly(_) | Error::Argument(_))));
        return;
    }
    let texts = matches!(ids, IdList::Text(_));
    let mut stage = index.stage(Zeros::Accept, &Silent).unwrap();
    let new = texts.then(|| IdList::Text(vec!["new".into()]));
    let zeros = vec![0; spec.width()];
    let floats = vec![0.0; spec.width()];
    let values =
        if spec.encoding == Encoding::Binary { Values::UInt8(&zeros) } else { Values::Float32(&floats) };
    if stage.append(values, new, &Work::inline()).and_then(|()| stage.commit(true, &Work::inline())).is_ok() {
        look(&index.snapshot());
    }
    let half = match &ids {
        IdList::Int(ids) => IdList::Int(ids[..ids.len() / 2].to_vec()),
        IdList::Text(ids) => IdList::Text(ids[..ids.len() / 2].to_vec()),
    };
    if index.remove(&half, &Work::inline()).is_ok() {
        look(&index.snapshot());
    }
}

fn look(snapshot: &Snapshot) {
    let work = Work::inline();
    let spec = snapshot.spec();
    let ids = snapshot.ids();
    assert!(ids.len() == snapshot.len() || snapshot.id_kind() == "none");
    let binary = spec.encoding == Encoding::Binary;
    let bits = vec![0x80; 3 * spec.width()];
    let numbers: Vec<f32> = (0..3 * spec.dim).map(|i| (i % 7) as f32 - 3.0 + (i / spec.dim) as f32).collect();
    for n in [1, 3] {
        let queries = match binary {
            true => Queries::Bits(&bits[..n * spec.width()]),
            false => Queries::Numbers(&numbers[..n * spec.dim]),
        };
        let mask: Vec<bool> = (0..snapshot.len()).map(|i| i % 3 > 0).collect();
        for allowed in [None, Some(Allowed::Mask(&mask)), Some(Allowed::Ids(&ids))] {
            // Zero queries are refused where only directions count.
            let Ok(found) = snapshot.search(queries, 4, allowed, Knobs::default(), &work) else { continue };
            for list in &found.found {
                assert!(list.len() <= 4);
                assert_eq!(snapshot.ids_of(list.iter().map(|c| c.row)).len(), list.len());
            }
        }
        let _ = snapshot.search_radius(queries, 5.0, None, Knobs::default(), &work);
    }
    let some: Vec<Id<'_>> = ids.iter().take(3).collect();
    assert!(some.iter().all(|&id| snapshot.id_kind() == "none" || snapshot.contains(id)));
    let list = snapshot.ids_of((0..3u32.min(snapshot.len() as u32)).chain([u32::MAX]));
    let _ = snapshot.neighbors_of(&list, 2, None, Knobs::default(), &work);
    if let Ok(rows) = snapshot.rows_of(&ids) {
        let mut n = 0;
        snapshot.values_of(&rows, |values| n += values.len());
        assert_eq!(n, rows.len() * spec.width());
    }
    snapshot.stats();
}

const EXTREMES: [u64; 12] =
    [0, 1, 7, 63, 64, 1023, 1 << 16, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX];

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random(u64::from(seed));
    let choice = random.below(4);
    let parsed = if choice >= 2 { parse(&data[..size]) } else { None };
    let Some((kind, mut parts)) = parsed.filter(|(_, parts)| !parts.is_empty()) else {
        // The bytes as they are, and in half of all cases checksums that are right.
        let size = fuzzer_mutate(data, size, max_size);
        if choice % 2 == 1 {
            repair(&mut data[..size]);
        }
        return size;
    };
    let (i, j) = (random.below(parts.len()), random.below(parts.len()));
    if choice == 2 {
        // What is in a section, and as many rows as it then has.
        let part = &mut parts[i];
        let n = part.data.len();
        let room = n + 64;
        part.data.resize(room, 0);
        let n = fuzzer_mutate(&mut part.data, n, room);
        part.data.truncate(n);
        part.fit();
    } else {
        match random.below(7) {
            0 => parts[i].dims[random.below(4)] = EXTREMES[random.below(EXTREMES.len())],
            1 => parts[i].dtype = random.below(15) as u8,
            2 => parts[i].n_dims = random.below(5) as u8,
            3 => parts.swap(i, j),
            4 => drop(parts.remove(i)),
            5 => {
                let name = parts[i].name;
                parts[i].name = parts[j].name;
                parts[j].name = name;
            }
            _ => {
                // Another number of rows for all that have one a row.
                let (old, new) = (parts[i].dims[0], [0, 1, 5, 1023, 1024, 1100][random.below(6)]);
                for part in parts.iter_mut().filter(|part| part.n_dims > 0 && part.dims[0] == old) {
                    part.dims[0] = new;
                    part.fill();
                }
            }
        }
    }
    let file = build(&kind, &parts);
    if file.len() > max_size {
        return fuzzer_mutate(data, size, max_size);
    }
    data[..file.len()].copy_from_slice(&file);
    file.len()
});
