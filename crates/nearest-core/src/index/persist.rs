//! The file of an index (kind `index`, specified in docs/format.md): written forward, opened by map.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::snapshot::{Snapshot, check_bits, check_numbers};
use super::writer::ShadowView;
use super::{Index, Spec};
use crate::column::{CHUNK_ROWS, Column, Row};
use crate::encoding::{Encoding, Kind, Vectors, each_kind};
use crate::error::{Error, Result};
use crate::exact::{BLOCK_ROWS, Shadow, shadow_bytes};
use crate::file::{Dtype, FileView, FileWriter, HasDtype, Section};
use crate::files::{Files, replace_file};
use crate::ids::{ARENA_CHUNK_BYTES, Ids, TextSlot, place_texts};
use crate::live::RowSet;
use crate::memory::{Bytes, Slots, SystemAllocator};
use crate::metric::Metric;
use nearest_kernels::Kernels;

/// The kind of these files.
const KIND: &str = "index";
const SPEC: &str = "spec";
const VECTORS: &str = "vectors";
const IDS: &str = "ids";
const TEXT_PLACES: &str = "text_places";
const TEXTS: &str = "texts";
const SHADOW: &str = "shadow";
const SHADOW_CENTRE: &str = "shadow_centre";
const KNOWN: [&str; 7] = [SPEC, VECTORS, IDS, TEXT_PLACES, TEXTS, SHADOW, SHADOW_CENTRE];

/// Numbers of the section `spec`.
const N_SPEC: usize = 8;

/// What the section `spec` says.
#[derive(Clone, Copy, Debug)]
pub struct IndexSpec {
    /// What the index is made of.
    pub spec: Spec,
    /// The id that the next vector without one gets.
    pub next_id: i64,
}

impl IndexSpec {
    fn to_numbers(self) -> [u64; N_SPEC] {
        let Spec { dim, metric, encoding, shadow, seed } = self.spec;
        // The fourth number is the structure: 0, exact.
        [
            dim as u64,
            metric as u64,
            encoding as u64,
            0,
            if shadow { 8 } else { 0 },
            seed,
            self.next_id as u64,
            0,
        ]
    }

    fn from_numbers(numbers: &[u64]) -> Result<Self> {
        let &[dim, metric, encoding, structure, shadow, seed, next_id, 0] = numbers else {
            return Err(Error::format(format!(
                "section 'spec' must hold 8 numbers, the last 0, got {numbers:?}"
            )));
        };
        let wrong =
            |what: &str, got: u64| Error::format(format!("section 'spec' names no known {what}: {got}"));
        if structure != 0 {
            return Err(wrong("structure", structure));
        }
        let spec = Spec {
            dim: usize::try_from(dim).map_err(|_| wrong("dim", dim))?,
            metric: u8::try_from(metric)
                .ok()
                .and_then(Metric::from_number)
                .ok_or_else(|| wrong("metric", metric))?,
            encoding: Encoding::from_number(encoding).ok_or_else(|| wrong("encoding", encoding))?,
            shadow: match shadow {
                0 => false,
                8 => true,
                other => return Err(wrong("shadow", other)),
            },
            seed,
        };
        spec.check().map_err(|error| Error::format(format!("section 'spec': {error}")))?;
        let next_id = i64::try_from(next_id).map_err(|_| wrong("next id", next_id))?;
        Ok(Self { spec, next_id })
    }
}

/// Reads the section `spec` of a file of kind `index`.
pub fn describe_spec(view: &FileView) -> Result<IndexSpec> {
    IndexSpec::from_numbers(view.array(view.require(SPEC, Dtype::U64, &[Some(N_SPEC as u64)])?)?)
}

impl Snapshot {
    /// Writes the live rows to any writer, front to back, on the calling thread, without locks.
    pub fn write(&self, out: &mut dyn Write) -> Result<()> {
        let mut file = FileWriter::new(out, KIND)?;
        let numbers = IndexSpec { spec: self.spec, next_id: self.next_id }.to_numbers();
        file.array(SPEC, &[N_SPEC as u64], &numbers)?;
        file.mark_required();
        each_kind!(&self.vectors, Vectors, column => self.write_vectors(&mut file, column))?;
        file.mark_required();
        let n = self.len() as u64;
        match &self.ids {
            Ids::None => {}
            Ids::Implicit if self.live.len() == self.vectors.n_rows() => {}
            Ids::Implicit | Ids::Int(_) => {
                let ids = self.ids();
                file.section(IDS, Dtype::I64, &[n], |out| {
                    ids.iter().try_for_each(|id| match id {
                        crate::ids::Id::Int(id) => out.write_all(&id.to_le_bytes()),
                        crate::ids::Id::Text(_) => unreachable!("ids of one kind"),
                    })
                })?;
                file.mark_required();
            }
            Ids::Text(_) => {
                let crate::ids::IdList::Text(texts) = self.ids() else { unreachable!("ids of one kind") };
                let (places, end) = place_texts(texts.iter().map(String::as_str), 0)?;
                file.section(TEXT_PLACES, Dtype::U32, &[n, 2], |out| {
                    out.write_all(bytemuck::cast_slice(&places))
                })?;
                file.mark_required();
                file.section(TEXTS, Dtype::U8, &[end as u64], |out| {
                    let mut at = 0;
                    for (place, text) in places.iter().zip(&texts) {
                        out.write_all(&vec![0; place.start as usize - at])?;
                        out.write_all(text.as_bytes())?;
                        at = place.start as usize + text.len();
                    }
                    Ok(())
                })?;
                file.mark_required();
            }
        }
        if let Some(centre) = self.shadow.as_ref().and_then(ShadowView::centre) {
            file.array(SHADOW_CENTRE, &[self.spec.dim as u64], centre)?;
            let shadow = Shadow::new(centre.to_vec(), self.spec.metric);
            each_kind!(&self.vectors, Vectors, column => self.write_shadow(&mut file, column, &shadow))?;
        }
        file.finish()?;
        Ok(())
    }

    /// Runs of live rows, side by side.
    fn live_runs<'a, T: Kind>(&'a self, column: &'a Column<T>) -> impl Iterator<Item = &'a [T]> {
        let mut rows = self.live.iter().peekable();
        std::iter::from_fn(move || {
            let first = rows.next()?;
            let (chunk, at) = (first as usize / CHUNK_ROWS, first as usize % CHUNK_ROWS);
            let mut n = 1;
            while at + n < CHUNK_ROWS && rows.next_if_eq(&(first + n as Row)).is_some() {
                n += 1;
            }
            Some(&column.chunk(chunk)[at * column.width()..(at + n) * column.width()])
        })
    }

    fn write_vectors<T: Kind + HasDtype>(
        &self,
        file: &mut FileWriter<&mut dyn Write>,
        column: &Column<T>,
    ) -> Result<()> {
        let shape = [self.len() as u64, column.width() as u64];
        file.section(VECTORS, T::DTYPE, &shape, |out| {
            self.live_runs(column).try_for_each(|run| out.write_all(bytemuck::cast_slice(run)))
        })
    }

    fn write_shadow<T: Kind>(
        &self,
        file: &mut FileWriter<&mut dyn Write>,
        column: &Column<T>,
        shadow: &Shadow,
    ) -> Result<()> {
        let (width, size) = (column.width(), shadow_bytes(self.spec.dim));
        let n_blocks = self.len() / BLOCK_ROWS;
        file.section(SHADOW, Dtype::U8, &[n_blocks as u64, size as u64], |out| {
            // Rows move together in the file, so their blocks are packed anew.
            let mut rows: Vec<T> = Vec::with_capacity(BLOCK_ROWS * width);
            let mut block = crate::memory::Buffer::zeroed(size, &(Arc::new(SystemAllocator) as _))
                .map_err(std::io::Error::other)?;
            for run in self.live_runs(column) {
                for row in run.chunks_exact(width) {
                    rows.extend_from_slice(row);
                    if rows.len() == BLOCK_ROWS * width {
                        shadow.pack(self.kernels, &rows, &mut block);
                        out.write_all(&block)?;
                        rows.clear();
                    }
                }
            }
            Ok(())
        })
    }

    /// Saves to a file: written beside, synced, renamed.
    pub fn save(&self, files: &dyn Files, path: &Path) -> Result<()> {
        replace_file(files, path, |out| self.write(out))
    }

    fn read(view: &FileView) -> Result<Self> {
        view.refuse_unknown(|name| KNOWN.contains(&name))?;
        let IndexSpec { spec, next_id } = describe_spec(view)?;
        let width = Some(spec.width() as u64);
        let read = |dtype| view.require(VECTORS, dtype, &[None, width]);
        let (vectors, n) = match spec.encoding {
            Encoding::Float32 => columns(view, read(Dtype::F32)?).map(|(c, n)| (Vectors::Float32(c), n)),
            Encoding::Float16 => columns(view, read(Dtype::F16)?).map(|(c, n)| (Vectors::Float16(c), n)),
            Encoding::BFloat16 => columns(view, read(Dtype::Bf16)?).map(|(c, n)| (Vectors::BFloat16(c), n)),
            Encoding::Int8 => columns(view, read(Dtype::I8)?).map(|(c, n)| (Vectors::Int8(c), n)),
            Encoding::UInt8 | Encoding::Binary => {
                columns(view, read(Dtype::U8)?).map(|(c, n)| (Vectors::UInt8(c), n))
            }
        }?;
        let n_rows = Some(n as u64);
        let ids = match (view.section(IDS), view.section(TEXT_PLACES)) {
            (None, None) if n == 0 => Ids::None,
            (None, None) if next_id < n as i64 => {
                return Err(Error::format(format!(
                    "section 'spec': the next id is {next_id} after {n} vectors"
                )));
            }
            (None, None) => Ids::Implicit,
            (Some(_), None) => {
                let section = view.require(IDS, Dtype::I64, &[n_rows])?;
                Ids::from_ints(column_of(view, section, 1, n, CHUNK_ROWS)?)
            }
            (None, Some(_)) => {
                let places = view.require(TEXT_PLACES, Dtype::U32, &[n_rows, Some(2)])?;
                let places: Column<TextSlot> = column_of(view, places, 1, n, CHUNK_ROWS)?;
                let texts = view.require(TEXTS, Dtype::U8, &[None])?;
                let n_bytes = texts.n_bytes() as usize;
                Ids::from_texts(places, column_of(view, texts, 1, n_bytes, ARENA_CHUNK_BYTES)?)
            }
            (Some(_), Some(_)) => return Err(Error::format("ids are int (section 'ids') and text at once")),
        };
        let shadow = match (spec.shadow, view.section(SHADOW_CENTRE)) {
            (false, _) => None,
            (true, None) => Some(ShadowView::default()),
            (true, Some(_)) => {
                let centre = view.require(SHADOW_CENTRE, Dtype::F32, &[Some(spec.dim as u64)])?;
                let centre = view.array(centre)?.to_vec();
                if !Kernels::best().all_finite(&centre) {
                    return Err(Error::format("section 'shadow_centre' holds what is no finite number"));
                }
                let size = shadow_bytes(spec.dim);
                let n_blocks = n / BLOCK_ROWS;
                let blocks = view.require(SHADOW, Dtype::U8, &[Some(n_blocks as u64), Some(size as u64)])?;
                let per_chunk = CHUNK_ROWS / BLOCK_ROWS;
                let chunks = (0..n_blocks).step_by(per_chunk).map(|first| {
                    view.slots::<u8>(blocks, first * size, per_chunk.min(n_blocks - first) * size).map(Some)
                });
                let chunks = chunks.collect::<Result<_>>()?;
                Some(ShadowView::new(Shadow::new(centre, spec.metric), chunks))
            }
        };
        let kernels = Kernels::best();
        Ok(Self { spec, vectors, live: RowSet::first(n), ids, shadow, next_id, kernels })
    }
}

/// Checks what checksums cannot: that a file of kind `index` holds vectors with values and ids that differ.
pub fn verify(view: &FileView) -> Result<()> {
    let snapshot = Snapshot::read(view)?;
    let wrong = |error: Error| Error::format(format!("section 'vectors': {error}"));
    each_kind!(&snapshot.vectors, Vectors, column => {
        for chunk in 0..column.n_chunks() {
            let first = chunk * CHUNK_ROWS;
            let dim = column.width();
            check_numbers(snapshot.kernels, "vectors", column.chunk(chunk), dim, first, Metric::Euclidean)
                .map_err(wrong)?;
        }
    });
    if let (Encoding::Binary, Vectors::UInt8(column)) = (snapshot.spec.encoding, &snapshot.vectors) {
        for chunk in 0..column.n_chunks() {
            check_bits("vectors", column.chunk(chunk), snapshot.spec.dim, chunk * CHUNK_ROWS)
                .map_err(wrong)?;
        }
    }
    snapshot.ids.check_places()?;
    let ids = snapshot.ids();
    ids.check().map_err(|error| Error::format(error.to_string()))?;
    if !matches!(snapshot.ids, Ids::Implicit | Ids::None)
        && let Some(i) = ids.repeated()
    {
        return Err(Error::format(format!("id {} stands at position {i} again", ids.get(i))));
    }
    if let crate::ids::IdList::Int(ids) = &ids {
        // After the largest number of all there is no next one.
        if snapshot.next_id < i64::MAX && ids.iter().any(|&id| id >= snapshot.next_id) {
            return Err(Error::format(format!(
                "the next id is {}, but a higher one is there",
                snapshot.next_id
            )));
        }
    }
    Ok(())
}

/// The vectors of a section, and how many they are.
fn columns<T: Kind>(view: &FileView, section: &Section) -> Result<(Column<T>, usize)> {
    let &[n, width] = section.shape() else { unreachable!("required with two dimensions") };
    let n = usize::try_from(n).ok().filter(|&n| n < u32::MAX as usize - CHUNK_ROWS);
    let n = n.ok_or_else(|| {
        Error::format(format!("an index holds fewer than 2³² vectors, got {}", section.shape()[0]))
    })?;
    Ok((column_of(view, section, width as usize, n, CHUNK_ROWS)?, n))
}

/// A section as a column of `n` rows.
fn column_of<T: bytemuck::Pod>(
    view: &FileView,
    section: &Section,
    width: usize,
    n: usize,
    chunk_rows: usize,
) -> Result<Column<T>> {
    let chunks = (0..n)
        .step_by(chunk_rows)
        .map(|first| view.slots(section, first * width, chunk_rows.min(n - first) * width))
        .collect::<Result<Vec<Arc<Slots<T>>>>>()?;
    Ok(Column::from_chunks(width, chunk_rows, chunks))
}

impl Index {
    /// Opens a file, as a map that cannot change or read into memory.
    pub fn open(files: &dyn Files, path: &Path, memory_map: bool) -> Result<Self> {
        let bytes = Arc::new(files.open_bytes(path, memory_map)?);
        Self::from_bytes(bytes).map_err(|error| match error {
            Error::Format(text) => Error::Format(format!("{}: {text}", path.display())),
            other => other,
        })
    }

    /// Opens bytes; they stay shared, and unless they are a map, changes go beside them. What was read as a whole is
    /// also checked as a whole.
    pub fn from_bytes(bytes: Arc<Bytes>) -> Result<Self> {
        let mapped = bytes.is_mapped();
        let view = FileView::open(bytes, Some(KIND))?;
        if !mapped {
            view.verify()?;
        }
        let snapshot = Snapshot::read(&view)?;
        if !mapped {
            snapshot.ids.check_places()?;
        }
        Ok(Self::from_snapshot(snapshot, mapped, Arc::new(SystemAllocator)))
    }
}
