//! The file of an index (kind `index`, specified in docs/format.md): written forward, opened by map.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::snapshot::{Snapshot, check_bits, check_numbers};
use super::writer::ShadowView;
use super::{Index, KeptAs, Spec, Structure, graph_file};
use crate::coder::Coder;
use crate::column::{CHUNK_ROWS, Column, Row};
use crate::encoding::{Encoding, Kind, Vectors, each_kind};
use crate::error::{Error, Result};
use crate::exact::{BLOCK_ROWS, Shadow, shadow_bytes};
use crate::file::{Dtype, FileView, FileWriter, HasDtype, Section};
use crate::files::{Files, replace_file};
use crate::ids::{ARENA_CHUNK_BYTES, Ids, TextSlot, place_texts};
use crate::lists::{
    BLOCK_PLACES, Block, Codec, Codes, Coding, Grouping, List, Lists, Loss, Numbers, Packer, Router, Second,
    efforts,
};
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
const CALIBRATION: &str = "calibration";
const LISTS: &str = "lists";
const LISTS_CENTRE: &str = "lists_centre";
const LISTS_CENTROIDS: &str = "lists_centroids";
const LISTS_GROUPS: &str = "lists_groups";
const LISTS_GROUP_ENDS: &str = "lists_group_ends";
const LISTS_CODER: &str = "lists_coder";
const LISTS_SECOND: &str = "lists_second";
const LISTS_GAPS: &str = "lists_gaps";
const LISTS_BLOCKS: &str = "lists_blocks";
const LISTS_ROWS: &str = "lists_rows";
const KNOWN: [&str; 18] = [
    SPEC,
    VECTORS,
    IDS,
    TEXT_PLACES,
    TEXTS,
    SHADOW,
    SHADOW_CENTRE,
    CALIBRATION,
    LISTS,
    LISTS_CENTRE,
    LISTS_CENTROIDS,
    LISTS_GROUPS,
    LISTS_GROUP_ENDS,
    LISTS_CODER,
    LISTS_SECOND,
    LISTS_GAPS,
    LISTS_BLOCKS,
    LISTS_ROWS,
];

/// Numbers of the section `spec`.
const N_SPEC: usize = 8;
/// Numbers of the section `lists`.
const N_LISTS: usize = 8;

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
        let Spec { dim, metric, encoding, rerank, structure, shadow, seed } = self.spec;
        let structure = match structure {
            Structure::Exact => 0,
            Structure::Lists { n_lists, spill } => 1 | u64::from(spill) << 16 | u64::from(n_lists) << 32,
            Structure::Graph { degree, ef_build } => 2 | u64::from(degree) << 16 | u64::from(ef_build) << 32,
        };
        [
            dim as u64,
            metric as u64,
            encoding.number(),
            structure,
            if shadow { 8 } else { 0 },
            seed,
            self.next_id as u64,
            // One more, since 0 stands for none.
            rerank.map_or(0, |rerank| rerank.number() + 1),
        ]
    }

    fn from_numbers(numbers: &[u64]) -> Result<Self> {
        let &[dim, metric, encoding, structure, shadow, seed, next_id, rerank] = numbers else {
            return Err(Error::format(format!("section 'spec' must hold 8 numbers, got {numbers:?}")));
        };
        let wrong =
            |what: &str, got: u64| Error::format(format!("section 'spec' names no known {what}: {got}"));
        let structure = match (structure & 0xffff, structure >> 16 & 0xffff, structure >> 32) {
            (0, 0, 0) => Structure::Exact,
            (1, spill @ 0..=100, n_lists) => Structure::Lists { n_lists: n_lists as u32, spill: spill as u8 },
            (2, degree, ef_build @ 0..=0xffff) => {
                Structure::Graph { degree: degree as u16, ef_build: ef_build as u16 }
            }
            _ => return Err(wrong("structure", structure)),
        };
        let rerank = match rerank.checked_sub(1) {
            None => None,
            Some(number) => Some(Encoding::from_number(number).ok_or_else(|| wrong("rerank", rerank))?),
        };
        let spec = Spec {
            dim: usize::try_from(dim).map_err(|_| wrong("dim", dim))?,
            metric: u8::try_from(metric)
                .ok()
                .and_then(Metric::from_number)
                .ok_or_else(|| wrong("metric", metric))?,
            encoding: Encoding::from_number(encoding).ok_or_else(|| wrong("encoding", encoding))?,
            rerank,
            structure,
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
        if let Some(lists) = &self.lists {
            self.write_lists(&mut file, lists)?;
        }
        if let Some(graph) = &self.graph {
            self.write_graph(&mut file, graph)?;
        }
        if let Some(calibration) = &self.calibration {
            file.section(CALIBRATION, Dtype::Utf8, &[calibration.len() as u64], |out| {
                out.write_all(calibration.as_bytes())
            })?;
        }
        file.finish()?;
        Ok(())
    }

    /// Writes lists with the row numbers of the file, in which live rows lie side by side, and without dead rows.
    fn write_lists(&self, file: &mut FileWriter<&mut dyn Write>, lists: &Lists) -> Result<()> {
        let (dim, coding) = (self.spec.dim as u64, &lists.coding);
        let loss = coding.loss();
        let numbers = [
            lists.n_lists() as u64,
            u64::from(lists.spill_gap.to_bits()),
            u64::from(loss.error.to_bits()),
            u64::from(loss.spread.to_bits()),
            lists.distance.to_bits(),
            lists.added.0,
            lists.added.1.to_bits(),
            lists.made_for,
        ];
        file.array(LISTS, &[N_LISTS as u64], &numbers)?;
        file.mark_required();
        file.array(LISTS_CENTRE, &[dim], coding.frame().centre())?;
        file.mark_required();
        file.array(LISTS_CENTROIDS, &[lists.n_lists() as u64, dim], lists.router.centroids())?;
        file.mark_required();
        // Whoever does not know them compares with all centroids, and finds what is nearest.
        if let Some(Grouping { centres, ends }) = lists.router.grouping() {
            file.array(LISTS_GROUPS, &[ends.len() as u64, dim], centres)?;
            file.array(LISTS_GROUP_ENDS, &[ends.len() as u64], ends)?;
        }
        if let Codec::Short(coder) = coding.codec() {
            let state = coder.state();
            file.array(LISTS_CODER, &[state.len() as u64], &state)?;
            file.mark_required();
        }
        if let Some(second) = &lists.second {
            let state = second.coder.state();
            file.array(LISTS_SECOND, &[state.len() as u64], &state)?;
            file.mark_required();
        }
        // Numbers of rows in the file: the same if all rows live, and chunks that went free or stayed short left no gaps.
        let n_chunks = self.vectors.n_chunks();
        let gaps = (1..n_chunks).any(|chunk| self.vectors.rows_in(chunk - 1) < CHUNK_ROWS);
        let all = !gaps && self.live.len() == self.vectors.n_rows();
        let numbers = if all { Vec::new() } else { self.live.ranks() };
        let number = |row: Row| {
            if all { Some(row) } else { numbers.get(row as usize).copied().filter(|&n| n != Row::MAX) }
        };
        let n_live = |list: &List| list.rows().filter(|&row| number(row).is_some()).count();
        let mut blocks: Vec<u32> = Vec::new();
        let mut n_bytes = 0;
        for (i, list) in lists.lists.iter().enumerate() {
            let n = n_live(list);
            for start in (0..n).step_by(BLOCK_PLACES) {
                let n_rows = BLOCK_PLACES.min(n - start);
                blocks.extend([i as u32, n_rows as u32]);
                n_bytes += Block::size(n_rows, coding.panel_bytes());
            }
        }
        if !lists.gaps.is_empty() {
            file.array(LISTS_GAPS, &[lists.gaps.len() as u64], &lists.gaps)?;
            file.mark_required();
        }
        file.array(LISTS_BLOCKS, &[blocks.len() as u64 / 2, 2], &blocks)?;
        file.mark_required();
        file.section(LISTS_ROWS, Dtype::U8, &[n_bytes as u64], |out| {
            let mut packer = Packer::default();
            for list in lists.lists.iter() {
                packer.write(coding, list, &number, &mut |bytes| out.write_all(bytes))?;
            }
            Ok(())
        })?;
        file.mark_required();
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
        view.refuse_unknown(|name| KNOWN.contains(&name) || graph_file::KNOWN.contains(&name))?;
        let IndexSpec { spec, next_id } = describe_spec(view)?;
        let mut lists = read_lists(view, &spec)?;
        let codes = graph_file::read_codes(view, &spec)?;
        // Before there are lists or links, vectors wait as they came.
        let is_trained = lists.is_some() || codes.is_some();
        let kept_as = if is_trained { spec.kept_as() } else { KeptAs::Raw(spec.encoding) };
        let (stored, width) = match (kept_as, &lists, &codes) {
            (KeptAs::Raw(Encoding::Short(_)), ..) => (Encoding::Float32, spec.dim),
            (KeptAs::Raw(encoding), ..) => (encoding, encoding.width(spec.dim)),
            (_, Some(lists), _) => (Encoding::UInt8, lists.kept_bytes()),
            (_, _, Some(trained)) => (Encoding::UInt8, trained.codes.kept_bytes()),
            (_, None, None) => unreachable!("codes are kept where there are lists or links"),
        };
        let width = Some(width as u64);
        let read = |dtype| view.require(VECTORS, dtype, &[None, width]);
        let (vectors, n) = match stored {
            Encoding::Short(_) => unreachable!("short codes are bytes"),
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
        if let Some(lists) = &mut lists {
            lists.n_rows = n;
        }
        let graph = codes.map(|codes| graph_file::read_graph(view, &spec, codes, &vectors, n)).transpose()?;
        let calibration = match view.section(CALIBRATION) {
            None => None,
            Some(section) => {
                let section = view.require(section.name(), Dtype::Utf8, &[None])?;
                let text = std::str::from_utf8(view.bytes_of(section));
                Some(text.map_err(|_| Error::format("section 'calibration' is not UTF-8"))?.into())
            }
        };
        let live = RowSet::first(n);
        Ok(Self { spec, vectors, live, ids, shadow, lists, graph, calibration, next_id, kernels })
    }
}

/// A number of 32 bits that stands in one of 64; no number if it does not fit.
pub(super) fn float(bits: u64) -> f32 {
    u32::try_from(bits).map_or(f32::NAN, f32::from_bits)
}

/// The lists of a file; nothing if they are still to be made.
fn read_lists(view: &FileView, spec: &Spec) -> Result<Option<Lists>> {
    if view.section(LISTS).is_none() {
        return Ok(None);
    }
    if !spec.is_listed() {
        return Err(Error::format("there are lists (section 'lists') of an index that looks at everything"));
    }
    let kernels = Kernels::best();
    let dim = Some(spec.dim as u64);
    let numbers = view.array::<u64>(view.require(LISTS, Dtype::U64, &[Some(N_LISTS as u64)])?)?;
    let &[n_lists, spill_gap, error, spread, distance, n_added, added, made_for] = numbers else {
        return Err(Error::format(format!("section 'lists' must hold 8 numbers, got {numbers:?}")));
    };
    let loss = Loss { error: float(error), spread: float(spread) };
    if !(loss.error >= 0.0 && loss.spread >= 0.0 && loss.error.is_finite() && loss.spread.is_finite()) {
        return Err(Error::format("section 'lists': what coding loses must be finite numbers"));
    }
    let (distance, added) = (f64::from_bits(distance), f64::from_bits(added));
    if !(distance >= 0.0 && added >= 0.0) || float(spill_gap).is_nan() {
        return Err(Error::format("section 'lists': distances must be numbers"));
    }
    let centre = view.array::<f32>(view.require(LISTS_CENTRE, Dtype::F32, &[dim])?)?.to_vec();
    let centroids = view.array::<f32>(view.require(LISTS_CENTROIDS, Dtype::F32, &[Some(n_lists), dim])?)?;
    if n_lists == 0 || n_lists > u64::from(super::MAX_LISTS) {
        return Err(Error::format(format!(
            "section 'lists': there must be 1 to {} lists, got {n_lists}",
            super::MAX_LISTS
        )));
    }
    if !kernels.all_finite(&centre) || !kernels.all_finite(centroids) {
        return Err(Error::format("centre and centroids of lists must be finite numbers"));
    }
    let plan = spec.plan(0);
    let coder_of = |name: &str, encoding| {
        let section = view.require(name, Dtype::U8, &[None])?;
        Coder::from_state(encoding, spec.dim, view.bytes_of(section))
    };
    let codec = match plan.codes {
        Codes::UInt8 => Codec::UInt8,
        Codes::Int8 => Codec::Int8,
        Codes::Short(encoding) => Codec::Short(coder_of(LISTS_CODER, encoding)?),
    };
    let second = plan.second.map(|encoding| coder_of(LISTS_SECOND, encoding)).transpose()?;
    let second = second.map(|coder| Second::new(coder, spec.metric));
    let frame = plan.frame(kernels, centre)?;
    let router = read_router(view, spec, kernels)?;
    let coding = Coding::new(frame, codec, loss);
    let panel_bytes = coding.panel_bytes();
    let mut lists = Lists::new(router, coding, second, float(spill_gap), distance);
    if view.section(LISTS_GAPS).is_some() {
        let n_gaps = efforts(lists.n_lists()).count() as u64;
        lists.gaps = view.array::<f32>(view.require(LISTS_GAPS, Dtype::F32, &[Some(n_gaps)])?)?.to_vec();
        if !kernels.all_finite(&lists.gaps) {
            return Err(Error::format("section 'lists_gaps' holds what is no finite number"));
        }
    }
    lists.made_for = made_for;
    lists.added = (n_added, added);
    let blocks = view.array::<u32>(view.require(LISTS_BLOCKS, Dtype::U32, &[None, Some(2)])?)?;
    let rows = view.require(LISTS_ROWS, Dtype::U8, &[None])?;
    let n_bytes = rows.n_bytes() as usize;
    let store = view.slots::<u8>(rows, 0, n_bytes)?;
    // Lists without rows share one: there may be many.
    let mut filled: Vec<Arc<List>> = Vec::clone(&lists.lists);
    let (mut start, mut last) = (0, 0);
    for &[list, n_rows] in blocks.as_chunks::<2>().0 {
        let wrong = || {
            Error::format(format!(
                "section 'lists_blocks': a block of {n_rows} rows of list {list} cannot be"
            ))
        };
        let block = Block::at(&store, start, n_rows as usize, panel_bytes).ok_or_else(wrong)?;
        start += block.bytes().len();
        if list < last {
            return Err(wrong());
        }
        last = list;
        let of_list = &mut Arc::make_mut(filled.get_mut(list as usize).ok_or_else(wrong)?).blocks;
        // All but the last of a list are full.
        if of_list.last().is_some_and(|last: &Block| last.n_rows() != BLOCK_PLACES) {
            return Err(wrong());
        }
        of_list.push(block);
    }
    if start != n_bytes {
        return Err(Error::format(format!(
            "section 'lists_rows' holds {n_bytes} bytes, of which blocks take {start}"
        )));
    }
    lists.lists = Arc::new(filled);
    Ok(Some(lists))
}

/// The centroids of a file, which were checked, and the groups they lie in.
fn read_router(view: &FileView, spec: &Spec, kernels: &Kernels) -> Result<Router> {
    let dim = Some(spec.dim as u64);
    let section = view.require(LISTS_CENTROIDS, Dtype::F32, &[None, dim])?;
    let centroids = view.array::<f32>(section)?;
    let n_lists = centroids.len() / spec.dim;
    let stored = view.slots::<f32>(section, 0, centroids.len())?;
    // Of a file that was read into memory a copy, or they would keep all of it there.
    let is_mapped = stored.memory_bytes() == 0;
    let numbers = if is_mapped { Numbers::Stored(stored) } else { Numbers::Owned(centroids.to_vec()) };
    if view.section(LISTS_GROUPS).is_none() && view.section(LISTS_GROUP_ENDS).is_none() {
        return Ok(Router::new(kernels, spec.metric, spec.dim, numbers));
    }
    let ends = view.array::<u32>(view.require(LISTS_GROUP_ENDS, Dtype::U32, &[None])?)?.to_vec();
    let n_groups = Some(ends.len() as u64);
    let centres = view.array::<f32>(view.require(LISTS_GROUPS, Dtype::F32, &[n_groups, dim])?)?.to_vec();
    let grouping = Grouping { centres, ends };
    grouping.check(n_lists, spec.dim)?;
    Ok(Router::two_level(kernels, spec.metric, spec.dim, numbers, grouping))
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
    if let Some(lists) = &snapshot.lists {
        verify_lists(&snapshot, lists)?;
    }
    if let Some(graph) = &snapshot.graph {
        graph_file::check_links(graph, snapshot.len())?;
        graph_file::check_scales(graph, snapshot.len())?;
    }
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

/// Checks that every row is in a list, in two at most, in none twice, and in the one that is kept of it; and that terms are
/// such as codes have.
fn verify_lists(snapshot: &Snapshot, lists: &Lists) -> Result<()> {
    let n = snapshot.len();
    let wrong = |text: String| Error::format(format!("section 'lists_rows': {text}"));
    // What is kept of rows beside the lists.
    let kept = match (&snapshot.vectors, snapshot.spec.kept_as()) {
        (Vectors::UInt8(column), KeptAs::Place | KeptAs::Code(_)) => Some(column),
        _ => None,
    };
    let first_4 = |row: Row| kept.and_then(|column| column.row(row).first_chunk().copied());
    let is_place = snapshot.spec.kept_as() == KeptAs::Place;
    // The last list that each row was met in, counted from 1; how many they were; whether its own was among them.
    let mut met: Vec<(u32, u8, bool)> = vec![(0, 0, !is_place); n];
    for (list, number) in lists.lists.iter().zip(0u32..) {
        for block in &list.blocks {
            for panel in block.panels() {
                for (place, (&scale, &bias)) in panel.scales.iter().zip(panel.biases).enumerate() {
                    let Some(&row) = panel.rows.get(place) else {
                        if scale != 0.0 || bias != f32::NEG_INFINITY {
                            return Err(wrong(format!("a place of list {number} without a row has terms")));
                        }
                        continue;
                    };
                    let Some((last, n_lists, is_there)) = met.get_mut(row as usize) else {
                        return Err(wrong(format!("list {number} holds row {row} of {n}")));
                    };
                    // Of squares that float32 cannot hold, −∞ is left.
                    if !scale.is_finite() || bias.is_nan() || bias == f32::INFINITY {
                        return Err(wrong(format!(
                            "row {row} in list {number} has terms that are no numbers"
                        )));
                    }
                    if *last == number + 1 || *n_lists == 2 {
                        return Err(wrong(format!("row {row} is in list {number} once too often")));
                    }
                    *last = number + 1;
                    *n_lists += 1;
                    *is_there |= is_place && first_4(row).map(u32::from_le_bytes) == Some(number);
                }
            }
        }
    }
    if let Some(row) = met.iter().position(|&(_, n_lists, is_there)| n_lists == 0 || !is_there) {
        return Err(wrong(format!("row {row} is in no list, or not in the one that 'vectors' says")));
    }
    if let (Some(column), KeptAs::Code(_)) = (kept, snapshot.spec.kept_as()) {
        let is_wrong = |row: Row| {
            let (terms, _) = column.row(row).as_chunks::<4>();
            let (scale, bias) = (f32::from_le_bytes(terms[0]), f32::from_le_bytes(terms[1]));
            !scale.is_finite() || bias.is_nan() || bias == f32::INFINITY
        };
        if let Some(row) = (0..n as Row).find(|&row| is_wrong(row)) {
            return Err(Error::format(format!("section 'vectors': row {row} has terms that are no numbers")));
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
pub(super) fn column_of<T: bytemuck::Pod>(
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
            // What links lead to may come to be rows when some are added.
            if let Some(graph) = &snapshot.graph {
                graph_file::check_links(graph, snapshot.len())?;
            }
        }
        Ok(Self::from_snapshot(snapshot, mapped, Arc::new(SystemAllocator)))
    }
}
