//! Changes: staged unseen, published at once.

use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::checked::{Zeros, check_held, stage_values};
use super::snapshot::{check_bits, check_numbers};
use super::writer::{Writer, copied};
use super::{Index, KeptAs, Snapshot, WriterPlace, graphed, listed};
use crate::column::Row;
use crate::encoding::{Encoding, Values, each_kind};
use crate::error::{Error, Result};
use crate::ids::IdList;
use crate::lists::Coded;
use crate::live::RowSet;
use crate::work::{Caller, Work};

/// How long to wait for another writer before looking for signals.
const PATIENCE: Duration = Duration::from_millis(50);

impl Index {
    fn check_writable(&self) -> Result<()> {
        if self.mapped {
            return Err(Error::ReadOnly(
                "this index is a memory map and cannot be changed; open it with memory_map=False to change it".into(),
            ));
        }
        Ok(())
    }

    /// Makes the lists of an index from vectors like those it has or will have, before there are enough of them or instead
    /// of from them; `n` is how many it is to hold.
    pub fn train(self: &Arc<Self>, n: usize, sample: Values<'_>, work: &Work<'_>) -> Result<()> {
        let rows: Vec<usize> = (0..sample.len() / self.spec.dim).collect();
        self.train_on(n, sample, &rows, work)
    }

    /// The same from some rows of `values`, in this order, which are not copied.
    pub fn train_on(
        self: &Arc<Self>,
        n: usize,
        values: Values<'_>,
        rows: &[usize],
        work: &Work<'_>,
    ) -> Result<()> {
        if !self.spec.is_trained() {
            return Err(Error::argument("an index that looks at all its vectors has nothing to train"));
        }
        let mut stage = self.stage(Zeros::Accept, work.caller())?;
        let before = self.snapshot();
        if before.is_trained() {
            return Err(Error::argument("the lists or codes of this index were made already"));
        }
        let dim = self.spec.dim;
        if !values.len().is_multiple_of(dim) || rows.iter().any(|&row| row >= values.len() / dim) {
            return Err(Error::argument(format!(
                "lists are trained on whole vectors of {dim} numbers that are there"
            )));
        }
        each_kind!(values, Values, values => {
            for &row in rows {
                let values = &values[row * dim..][..dim];
                check_numbers(self.kernels, "vectors", values, dim, row, crate::metric::Metric::Euclidean)?;
            }
        });
        let before = Snapshot::clone(&before);
        let after = if self.spec.is_listed() {
            let lists = listed::train(&self.spec, n, values, rows, work)?;
            before.listed(Some(lists), &self.allocator, work)?
        } else {
            let codes = graphed::train(&self.spec, values, rows, work)?;
            before.graphed(Some(codes), &self.allocator, work)?
        };
        // The writer holds vectors of another kind: it is made anew.
        stage.is_whole = false;
        self.current.store(Arc::new(after));
        Ok(())
    }

    /// An empty index whose lists were made as this one's: what is added to it can be carried over by
    /// [`Stage::append_from`]. Without lists where there are none yet.
    pub fn empty_copy(&self) -> Result<Self> {
        let before = self.snapshot();
        let empty = Snapshot::empty(self.spec);
        let (allocator, work) = (&self.allocator, Work::inline());
        let after = match (&before.lists, &before.graph) {
            (Some(lists), _) => empty.listed(Some(lists.without_rows()), allocator, &work)?,
            (_, Some(graph)) => empty.graphed(Some(graph.codes.without_rows()), allocator, &work)?,
            (None, None) => empty,
        };
        Ok(Self::from_snapshot(after, false, self.allocator.clone()))
    }

    /// Keeps what was measured of this index, as text; an empty one forgets it.
    pub fn set_calibration(self: &Arc<Self>, text: &str, caller: &dyn Caller) -> Result<()> {
        let _stage = self.stage(Zeros::Accept, caller)?;
        let calibration = (!text.is_empty()).then(|| text.into());
        self.current.store(Arc::new(Snapshot { calibration, ..Snapshot::clone(&self.snapshot()) }));
        Ok(())
    }

    /// Links the vectors of a graph that wait.
    pub fn link(self: &Arc<Self>, work: &Work<'_>) -> Result<()> {
        let _stage = self.stage(Zeros::Accept, work.caller())?;
        let before = Snapshot::clone(&self.snapshot());
        let after = before.linked(&RowSet::default(), &self.allocator, work)?;
        self.current.store(Arc::new(after));
        Ok(())
    }

    /// Waits for the writer.
    fn take_writer(&self, caller: &dyn Caller) -> Result<Box<Writer>> {
        self.check_writable()?;
        let process = std::process::id();
        let mut place = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match std::mem::replace(&mut *place, WriterPlace::Taken(process)) {
                WriterPlace::Here(writer) => return Ok(writer),
                // A thread that had it when this process was forked does not exist here; what it staged is unseen.
                WriterPlace::Taken(by) if by == process => {
                    let (guard, timeout) = self
                        .writer_back
                        .wait_timeout(place, PATIENCE)
                        .unwrap_or_else(PoisonError::into_inner);
                    place = guard;
                    if timeout.timed_out() && matches!(*place, WriterPlace::Taken(_)) {
                        drop(place);
                        if !caller.poll(0, 0, "waiting for another writer") {
                            return Err(Error::Cancelled);
                        }
                        place = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
                    }
                }
                WriterPlace::Unmade | WriterPlace::Taken(_) => {
                    drop(place);
                    return Ok(Box::new(Writer::new(&self.snapshot(), self.allocator.clone())));
                }
            }
        }
    }

    /// Gives the writer back, or, if it may be half-changed, leaves it to be made anew.
    fn return_writer(&self, writer: Option<Box<Writer>>) {
        let mut place = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        *place = writer.map_or(WriterPlace::Unmade, WriterPlace::Here);
        self.writer_back.notify_one();
    }

    /// Begins a change that is seen at once or never.
    pub fn stage(self: &Arc<Self>, zeros: Zeros, caller: &dyn Caller) -> Result<Stage> {
        let writer = self.take_writer(caller)?;
        Ok(Stage {
            index: self.clone(),
            writer: Some(writer),
            zeros,
            ranges: Vec::new(),
            ids: None,
            coded: Coded::default(),
            held: RowSet::default(),
            n_staged: 0,
            is_whole: true,
        })
    }

    /// Removes the vectors of those ids that are there, at once; returns how many.
    pub fn remove(self: &Arc<Self>, ids: &IdList, work: &Work<'_>) -> Result<usize> {
        ids.check()?;
        // Taking the writer makes the snapshot the last one until it is given back.
        let stage = self.stage(Zeros::Accept, work.caller())?;
        let before = self.snapshot();
        before.ids.check_kind(ids)?;
        let rows: Vec<Row> = ids.iter().filter_map(|id| before.ids.find(id, &before.live)).collect();
        let mut live = before.live.clone();
        let n = live.remove(rows);
        if n > 0 {
            stage.publish(&before, live, &[], &IdList::Int(Vec::new()), work)?;
        }
        Ok(n)
    }
}

/// A change of an index that nobody sees until it is committed, and that is gone if it is dropped before.
#[derive(Debug)]
pub struct Stage {
    index: Arc<Index>,
    writer: Option<Box<Writer>>,
    zeros: Zeros,
    ranges: Vec<Range<Row>>,
    ids: Option<IdList>,
    /// Rows on their way into lists.
    coded: Coded,
    /// Rows that are not to be linked yet.
    held: RowSet,
    n_staged: usize,
    /// Whether the writer can be used again as it is.
    is_whole: bool,
}

impl Stage {
    /// Stages vectors (row-major, `float32` or the encoding's own type) with their ids; ids for all blocks or none.
    pub fn append(&mut self, values: Values<'_>, ids: Option<IdList>, work: &Work<'_>) -> Result<()> {
        let spec = *self.index.spec();
        let width = spec.width();
        if !values.len().is_multiple_of(width) {
            return Err(Error::argument(format!(
                "vectors must have {width} elements each, got {} in all",
                values.len()
            )));
        }
        let n = values.len() / width;
        self.take_ids(n, ids)?;
        if spec.encoding == Encoding::Binary {
            let Values::UInt8(bytes) = values else {
                return Err(Error::argument(format!(
                    "vectors must be packed bits (uint8), got {}",
                    values.element()
                )));
            };
            check_bits("vectors", bytes, spec.dim, self.n_staged)?;
        }
        let (first, zeros, kernels) = (self.n_staged, self.zeros, self.index.kernels);
        let writer = self.writer.as_mut().expect("a stage has the writer");
        let snapshot = self.index.snapshot();
        let ranges = match (&snapshot.lists, &snapshot.graph) {
            (None, Some(graph)) => writer.stage_graphed(&graph.codes, values, &spec, first, zeros, work)?,
            (None, None) => {
                // What waits for lists is kept as it came, and must be such as they will keep.
                if let (Encoding::Short(_), KeptAs::Raw(kept), Values::Float32(values)) =
                    (spec.encoding, spec.kept_as(), values)
                {
                    check_held(kept, values, &spec, first, zeros, kernels)?;
                }
                each_kind!(&mut writer.vectors, VectorsWriter, column => {
                    stage_values(column, values, &spec, first, zeros, kernels)
                })?
            }
            (Some(lists), _) => {
                let (coded, ranges) = writer.stage_coded(lists, values, &spec, first, zeros, work)?;
                self.coded.append(coded);
                ranges
            }
        };
        self.ranges.extend(ranges);
        self.n_staged += n;
        Ok(())
    }

    /// Says which of the vectors that were staged are not to be linked yet, by their places: so they can be queries that a graph
    /// is measured on. [`Index::link`] links them.
    pub fn hold(&mut self, places: &[usize]) -> Result<()> {
        if let Some(place) = places.iter().find(|&&place| place >= self.n_staged) {
            return Err(Error::argument(format!(
                "there are {} staged vectors, got place {place}",
                self.n_staged
            )));
        }
        let rows: Vec<Row> = self.ranges.iter().cloned().flatten().collect();
        self.held.insert(places.iter().map(|&place| rows[place]));
        Ok(())
    }

    fn take_ids(&mut self, n: usize, ids: Option<IdList>) -> Result<()> {
        if let Some(ids) = &ids {
            if ids.len() != n {
                return Err(Error::argument(format!(
                    "ids must be as many as vectors, {n}, got {}",
                    ids.len()
                )));
            }
            ids.check()?;
            self.index.snapshot().ids.check_kind(ids)?;
        }
        match (&mut self.ids, ids) {
            (mine, ids) if self.n_staged == 0 => *mine = ids,
            (None, None) => {}
            (Some(mine), Some(ids)) if mine.kind() == ids.kind() => mine.extend(ids),
            _ => {
                return Err(Error::argument(
                    "ids must be given for all vectors of a change, of one kind, or for none",
                ));
            }
        }
        Ok(())
    }

    /// Stages all vectors of another index with their ids, their codes as they are; false, and nothing is staged, where its
    /// lists were not made as those of this one.
    pub fn append_from(&mut self, other: &Snapshot, work: &Work<'_>) -> Result<bool> {
        let snapshot = self.index.snapshot();
        let (Some(lists), Some(others)) = (&snapshot.lists, &other.lists) else { return Ok(false) };
        let (spec, of_other) = (self.index.spec(), other.spec());
        let alike = (spec.metric, spec.encoding, spec.rerank)
            == (of_other.metric, of_other.encoding, of_other.rerank);
        if !alike || !lists.is_trained_as(others) {
            return Ok(false);
        }
        let rows: Vec<Row> = other.live.iter().collect();
        let n = rows.len();
        let n_bytes = others.lists.iter().map(|list| list.n_bytes() as u64).sum();
        work.check_memory(Some(n_bytes), "the codes of another index")?;
        self.take_ids(n, (n > 0).then(|| other.ids.list(rows.iter().copied())))?;
        let writer = self.writer.as_mut().expect("a stage has the writer");
        let ranges = copied(&mut writer.vectors, &other.vectors, &rows)?;
        let staged: Vec<Row> = ranges.iter().cloned().flatten().collect();
        let number = |row: Row| rows.binary_search(&row).ok().map(|at| staged[at]);
        let (entries, distance) = (others.entries_of(number, work)?, others.distance_of(n));
        let mut found = RowSet::default();
        found.insert(entries.terms.iter().map(|term| term.row));
        if found.len() != n {
            // Only a damaged file lacks some.
            return Err(Error::format(format!("{} of {n} rows are in no list", n - found.len())));
        }
        self.coded.append(Coded { entries, kept: Vec::new(), distance });
        self.ranges.extend(ranges);
        self.n_staged += n;
        Ok(true)
    }

    /// Publishes all that was staged, at once; with `replace`, vectors that had these ids go in the same instant.
    pub fn commit(mut self, replace: bool, work: &Work<'_>) -> Result<IdList> {
        let before = self.index.snapshot();
        let writer = self.writer.as_mut().expect("a stage has the writer");
        let automatic = self.ids.is_none();
        let ids = match self.ids.take() {
            Some(ids) => ids,
            None if replace && self.n_staged > 0 => {
                return Err(Error::argument("upsert needs ids, got none"));
            }
            None => writer.ids.automatic(self.n_staged)?,
        };
        if self.n_staged == 0 {
            return Ok(ids);
        }
        let mut live = before.live.clone();
        if !automatic {
            if let Some(i) = ids.repeated() {
                return Err(Error::argument(format!(
                    "ids must differ, got {} again at position {i}",
                    ids.get(i)
                )));
            }
            let there: Vec<(usize, Row)> = ids
                .iter()
                .enumerate()
                .filter_map(|(i, id)| before.ids.find(id, &before.live).map(|row| (i, row)))
                .collect();
            match there.first() {
                Some(&(i, _)) if !replace => {
                    return Err(Error::argument(format!(
                        "{} of {} ids are in the index already, the first is {} at position {i}; upsert replaces",
                        there.len(),
                        ids.len(),
                        ids.get(i)
                    )));
                }
                _ => live.remove(there.into_iter().map(|(_, row)| row)),
            };
        }
        live.insert(self.ranges.iter().cloned().flatten());
        let ranges = std::mem::take(&mut self.ranges);
        self.publish(&before, live, &ranges, &ids, work)?;
        Ok(ids)
    }

    /// Publishes, moves together what lies scattered, and gives the writer back; on an error nothing has changed.
    fn publish(
        mut self,
        before: &Snapshot,
        live: RowSet,
        new: &[Range<Row>],
        ids: &IdList,
        work: &Work<'_>,
    ) -> Result<()> {
        let n_new = new.iter().map(ExactSizeIterator::len).sum();
        let lists = before.lists.as_ref();
        let lists = lists
            .map(|lists| lists.with(&self.coded, n_new, &live, &self.index.allocator, work))
            .transpose()?;
        let writer = self.writer.as_mut().expect("a stage has the writer");
        // Until this is through, a failure (or a panic) leaves the writer half-changed.
        self.is_whole = false;
        writer.ids.stage(before.vectors.n_rows(), ids, new)?;
        let mut after = writer.publish(before, live, lists, new, ids, &[])?;
        let allocator = &self.index.allocator;
        if after.spec.is_trained() && !after.is_trained() && after.len() >= after.spec.training_rows() {
            // The writer holds vectors of another kind than those in lists or linked: it is left to be made anew.
            let trained = match after.spec.is_listed() {
                true => after.listed(None, allocator, work)?,
                false => after.graphed(None, allocator, work)?,
            };
            self.index.current.store(Arc::new(trained));
            return Ok(());
        }
        if let Some(graph) = &after.graph {
            let graph = graph.awaiting(new.iter().cloned().flatten(), &after.live);
            after = Snapshot { graph: Some(graph), ..after }.maintained(&self.held, allocator, work)?;
        }
        if after.is_outgrown() {
            let relisted = after.relisted(allocator, work)?;
            self.index.current.store(Arc::new(relisted));
            return Ok(());
        }
        let compacted = match writer.compact(&after, work) {
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            compacted => compacted,
        };
        // Room that cannot be made now can be made another time, by a writer made anew.
        self.is_whole = compacted.is_ok();
        self.index.current.store(Arc::new(compacted.ok().flatten().unwrap_or(after)));
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A writer that is not whole is left to be made anew from what was published.
        let writer = self.writer.take().filter(|_| self.is_whole).map(|mut writer| {
            writer.rewind();
            writer
        });
        self.index.return_writer(writer);
    }
}
