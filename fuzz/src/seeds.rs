//! Writes what the fuzzers start from: small files of every encoding × kind of ids × shadow, and random programs.

use std::path::PathBuf;
use std::sync::Arc;

use nearest_core::encoding::{Encoding, Values};
use nearest_core::ids::IdList;
use nearest_core::index::{Index, Spec, Zeros, Structure};
use nearest_core::metric::Metric;
use nearest_core::work::Silent;
use nearest_fuzz::Random;

fn main() {
    let corpus = PathBuf::from(std::env::args().nth(1).expect("the folder to write to"));
    let (folder, programs) = (corpus.join("open_file"), corpus.join("operations"));
    std::fs::create_dir_all(&folder).expect("the folder of files");
    std::fs::create_dir_all(&programs).expect("the folder of programs");
    let mut random = Random(1);
    for i in 0..64 {
        let program: Vec<u8> = (0..20 + 6 * i).map(|_| random.next() as u8).collect();
        std::fs::write(programs.join(format!("random-{i}")), program).expect("a program");
    }
    for encoding in Encoding::ALL {
        for ids in ["none", "implicit", "int", "text"] {
            for shadow in [false, true] {
                let metric = if encoding == Encoding::Binary { Metric::Hamming } else { Metric::Euclidean };
                let spec = Spec { dim: 3, metric, encoding, rerank: None, structure: Structure::Exact, shadow, seed: 0 };
                let Ok(index) = Index::new(spec) else { continue };
                let index = Arc::new(index);
                // A shadow starts at 1024 rows.
                let n = if shadow { 1030 } else { 9 };
                let mut stage = index.stage(Zeros::Accept, &Silent).expect("a stage");
                let named = match ids {
                    "int" => Some(IdList::Int((0..n).map(|i| i * 7919 % 100_003).collect())),
                    "text" => Some(IdList::Text((0..n).map(|i| format!("{i:x}é")).collect())),
                    _ => None,
                };
                if encoding == Encoding::Binary {
                    let bits: Vec<u8> = (0..n).map(|i| (i as u8) << 5).collect();
                    stage.append(Values::UInt8(&bits), named, &Work::inline()).expect("bits");
                } else {
                    let numbers: Vec<f32> = (0..n * 3).map(|i| (i * 31 % 101) as f32).collect();
                    stage.append(Values::Float32(&numbers), named, &Work::inline()).expect("numbers");
                }
                if ids != "none" {
                    stage.commit(false, &Work::inline()).expect("a commit");
                }
                let mut bytes = Vec::new();
                index.snapshot().write(&mut bytes).expect("bytes");
                let name = format!("{}-{ids}-{shadow}", encoding.name());
                std::fs::write(folder.join(name), bytes).expect("a file");
            }
        }
    }
}
