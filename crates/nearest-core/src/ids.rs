//! Ids: the caller's names for rows, int64 ≥ 0 or text, and the way back from a name to its row.
//!
//! Ids that count 0, 1, 2, … are the rows themselves and cost nothing. Others lie in a column beside the vectors, and
//! an [`IdTable`] finds rows by id: a hash table of rows that only grows. It names *candidates*; whether one is meant
//! is decided by the column and the live rows of the version that asks, so all versions can share one table and
//! readers need no lock.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use bytemuck::{Pod, Zeroable};

use crate::candidates::RowOrder;
use crate::column::{CHUNK_ROWS, Column, ColumnWriter, Row, check_step};
use crate::error::{Error, Result};
use crate::live::RowSet;
use crate::memory::Allocator;

/// The longest text id, in bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 16;
/// Bytes of text in one chunk of the arena.
pub const ARENA_CHUNK_BYTES: usize = 1 << 20;
/// Places of a table in a row that ids which differ hardly ever take: it is at most half full.
const LONG_PROBE: usize = 64;

/// One id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id<'a> {
    /// A number ≥ 0.
    Int(i64),
    /// UTF-8 text.
    Text(&'a str),
}

impl std::fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Id::Int(id) => write!(f, "{id}"),
            Id::Text(id) => write!(f, "'{id}'"),
        }
    }
}

/// Many ids of one kind, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdList {
    /// Numbers.
    Int(Vec<i64>),
    /// Texts.
    Text(Vec<String>),
}

impl IdList {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            IdList::Int(ids) => ids.len(),
            IdList::Text(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The i-th.
    pub fn get(&self, i: usize) -> Id<'_> {
        match self {
            IdList::Int(ids) => Id::Int(ids[i]),
            IdList::Text(ids) => Id::Text(&ids[i]),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Id<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// The word for the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            IdList::Int(_) => "int",
            IdList::Text(_) => "text",
        }
    }

    /// An error if an id is negative or too long.
    pub fn check(&self) -> Result<()> {
        match self {
            IdList::Int(ids) => match ids.iter().position(|&id| id < 0) {
                Some(i) => Err(Error::argument(format!("ids must be ≥ 0, got {} at position {i}", ids[i]))),
                None => Ok(()),
            },
            IdList::Text(ids) => match ids.iter().position(|id| id.len() > MAX_TEXT_BYTES) {
                Some(i) => Err(Error::argument(format!(
                    "text ids must have at most {MAX_TEXT_BYTES} bytes, got {} at position {i}",
                    ids[i].len()
                ))),
                None => Ok(()),
            },
        }
    }

    /// Where an id stands a second time, if one does.
    pub fn repeated(&self) -> Option<usize> {
        let mut seen = std::collections::HashSet::with_capacity(self.len());
        self.iter().position(|id| !seen.insert(id))
    }

    /// Appends ids of the same kind; the caller has checked that it is.
    pub fn extend(&mut self, other: IdList) {
        match (self, other) {
            (IdList::Int(ids), IdList::Int(other)) => ids.extend(other),
            (IdList::Text(ids), IdList::Text(other)) => ids.extend(other),
            _ => unreachable!("kinds were compared before"),
        }
    }
}

/// Where a text lies in the arena, which is a column of bytes.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct TextSlot {
    /// Position of the first byte.
    pub start: u32,
    /// Bytes of it; they lie in one chunk of the arena.
    pub n_bytes: u32,
}

/// Places texts in arena order, so that none crosses a chunk: (start of each, bytes in all).
pub fn place_texts<'a>(
    texts: impl Iterator<Item = &'a str>,
    mut end: usize,
) -> Result<(Vec<TextSlot>, usize)> {
    let mut slots = Vec::with_capacity(texts.size_hint().0);
    for text in texts {
        let room = ARENA_CHUNK_BYTES - end % ARENA_CHUNK_BYTES;
        let start = if text.len() <= room { end } else { end + room };
        end = start + text.len();
        if u32::try_from(end).is_err() {
            return Err(Error::Memory(format!("text ids take at most {} bytes in all", u32::MAX)));
        }
        slots.push(TextSlot { start: start as u32, n_bytes: text.len() as u32 });
    }
    Ok((slots, end))
}

/// Ids of all rows of one version.
#[derive(Clone, Debug, Default)]
pub enum Ids {
    /// Nothing was added yet: the kind is open.
    #[default]
    None,
    /// The row is the id.
    Implicit,
    /// Numbers of the caller's.
    Int(IntIds),
    /// Texts of the caller's.
    Text(TextIds),
}

/// Numbers, a row each.
#[derive(Clone, Debug)]
pub struct IntIds {
    /// The ids.
    pub column: Column<i64>,
    table: Arc<IdTable>,
}

/// Texts, a row each.
#[derive(Clone, Debug)]
pub struct TextIds {
    /// Where the texts are.
    pub slots: Column<TextSlot>,
    /// The bytes of all texts.
    pub arena: Column<u8>,
    table: Arc<IdTable>,
    /// Whether places from a file were looked at, and what came of it.
    plausible: Arc<OnceLock<bool>>,
}

impl TextIds {
    /// Whether all texts together are no longer than the arena. Otherwise they overlap, and a small file could claim
    /// more text than fits in memory. Looked at once, when a text is first asked for: opening stays quick.
    fn is_plausible(&self) -> bool {
        *self.plausible.get_or_init(|| {
            let chunks = (0..self.arena.n_chunks()).map(|chunk| self.arena.chunk(chunk).len() as u64);
            let slots = (0..self.slots.n_chunks()).flat_map(|chunk| self.slots.chunk(chunk));
            slots.map(|slot| u64::from(slot.n_bytes)).sum::<u64>() <= chunks.sum()
        })
    }

    /// The text of a row. Places come from files too, so one that makes no sense reads as empty text.
    fn text(&self, row: Row) -> &str {
        let Some(&[slot]) = self.slots.get(row) else { return "" };
        if slot.n_bytes as usize > MAX_TEXT_BYTES || !self.is_plausible() {
            return "";
        }
        let (chunk, at) = (slot.start as usize / ARENA_CHUNK_BYTES, slot.start as usize % ARENA_CHUNK_BYTES);
        let bytes = self.arena.chunk(chunk).get(at..at + slot.n_bytes as usize);
        bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("")
    }
}

impl Ids {
    /// Numbers from a file; the table is made when first asked.
    pub fn from_ints(column: Column<i64>) -> Self {
        Ids::Int(IntIds { column, table: Arc::new(IdTable::unmade()) })
    }

    /// Texts from a file; the table is made when first asked.
    pub fn from_texts(slots: Column<TextSlot>, arena: Column<u8>) -> Self {
        let (table, plausible) = (Arc::new(IdTable::unmade()), Arc::default());
        Ids::Text(TextIds { slots, arena, table, plausible })
    }

    /// An error if places from a file overlap. It looks at all of them, once.
    pub fn check_places(&self) -> Result<()> {
        match self {
            Ids::Text(ids) if !ids.is_plausible() => Err(Error::format(
                "section 'text_places': texts overlap: they are longer than section 'texts'",
            )),
            _ => Ok(()),
        }
    }

    /// The word for the kind: `none`, `implicit`, `int` or `text`.
    pub fn kind(&self) -> &'static str {
        match self {
            Ids::None => "none",
            Ids::Implicit => "implicit",
            Ids::Int(_) => "int",
            Ids::Text(_) => "text",
        }
    }

    /// The id of a row.
    pub fn id(&self, row: Row) -> Id<'_> {
        match self {
            Ids::None | Ids::Implicit => Id::Int(i64::from(row)),
            Ids::Int(ids) => Id::Int(ids.column.get(row).map_or(-1, |id| id[0])),
            Ids::Text(ids) => Id::Text(ids.text(row)),
        }
    }

    /// The ids of some rows.
    pub fn list(&self, rows: impl Iterator<Item = Row>) -> IdList {
        match self {
            Ids::None => IdList::Int(Vec::new()),
            Ids::Implicit => IdList::Int(rows.map(i64::from).collect()),
            Ids::Int(ids) => {
                IdList::Int(rows.map(|row| ids.column.get(row).map_or(-1, |id| id[0])).collect())
            }
            Ids::Text(ids) => IdList::Text(rows.map(|row| ids.text(row).to_owned()).collect()),
        }
    }

    /// The live row of an id.
    pub fn find(&self, id: Id<'_>, live: &RowSet) -> Option<Row> {
        match (self, id) {
            (Ids::Implicit, Id::Int(id)) => Row::try_from(id).ok().filter(|&row| live.contains(row)),
            (Ids::Int(ids), Id::Int(_)) => ids.table.find(self, id, live),
            (Ids::Text(ids), Id::Text(_)) => ids.table.find(self, id, live),
            _ => None,
        }
    }

    /// Bytes of memory held, without those of a map.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Ids::None | Ids::Implicit => 0,
            Ids::Int(ids) => ids.column.memory_bytes() + ids.table.memory_bytes(),
            Ids::Text(ids) => ids.slots.memory_bytes() + ids.arena.memory_bytes() + ids.table.memory_bytes(),
        }
    }

    /// An error unless ids of this kind can be looked up or added here.
    pub fn check_kind(&self, ids: &IdList) -> Result<()> {
        let fits = match self {
            Ids::None => true,
            Ids::Implicit | Ids::Int(_) => matches!(ids, IdList::Int(_)),
            Ids::Text(_) => matches!(ids, IdList::Text(_)),
        };
        if fits || ids.is_empty() {
            return Ok(());
        }
        let word = |text: bool| if text { "text" } else { "integers" };
        let (own, got) = (word(matches!(self, Ids::Text(_))), word(matches!(ids, IdList::Text(_))));
        Err(Error::argument(format!("ids of this index are {own}, got {got}")))
    }
}

impl RowOrder for Ids {
    fn before(&self, a: Row, b: Row) -> bool {
        match self {
            Ids::None | Ids::Implicit => a < b,
            _ => (self.id(a), a) < (self.id(b), b),
        }
    }
}

/// A hash table of rows that only grows: open addressing, linear probing, at most half full.
#[derive(Debug)]
struct IdTable {
    /// Row + 1, or 0 where free. Made on first use for ids that came from a file.
    slots: OnceLock<Box<[AtomicU32]>>,
}

/// Other keys in every process, so that nobody can write a file of ids that all fall on one place.
static KEYS: LazyLock<(RandomState, u64, u64)> = LazyLock::new(|| {
    let state = RandomState::new();
    let (add, multiply) = (state.hash_one(1), state.hash_one(2) | 1);
    (state, add, multiply)
});

fn hash(id: Id<'_>) -> u64 {
    let (state, add, multiply) = &*KEYS;
    match id {
        Id::Int(id) => {
            let product = u128::from(id as u64 ^ add) * u128::from(*multiply);
            (product >> 64) as u64 ^ product as u64
        }
        Id::Text(id) => {
            let mut hasher = state.build_hasher();
            hasher.write(id.as_bytes());
            hasher.finish()
        }
    }
}

impl IdTable {
    fn unmade() -> Self {
        Self { slots: OnceLock::new() }
    }

    fn with_room_for(n_ids: usize) -> Self {
        Self { slots: OnceLock::from(Self::empty_slots(n_ids)) }
    }

    fn empty_slots(n_ids: usize) -> Box<[AtomicU32]> {
        (0..(n_ids * 2).next_power_of_two().max(64)).map(|_| AtomicU32::new(0)).collect()
    }

    fn slots(&self, ids: &Ids, live: &RowSet) -> &[AtomicU32] {
        self.slots.get_or_init(|| {
            let slots = Self::empty_slots(live.len());
            Self::put_live(&slots, ids, live);
            slots
        })
    }

    /// Puts all live rows into an empty table.
    fn put_live(slots: &[AtomicU32], ids: &Ids, live: &RowSet) {
        let mask = slots.len() - 1;
        for row in live.iter() {
            let id = ids.id(row);
            let hash = hash(id);
            // A file may have one id many times: the first rows of it will do. Looking for them only where many
            // places in a row are taken costs other files nothing.
            let at = |i: usize| slots[(hash as usize).wrapping_add(i) & mask].load(Ordering::Relaxed);
            let taken = (0..LONG_PROBE).all(|i| at(i) != 0);
            let is_twin = |i| ids.id(at(i) - 1) == id;
            if !(taken && (0..LONG_PROBE).any(is_twin)) {
                Self::put(slots, hash, row);
            }
        }
    }

    /// Puts a row in; returns how many places were taken on the way.
    fn put(slots: &[AtomicU32], hash: u64, row: Row) -> usize {
        let mask = slots.len() - 1;
        let first = hash as usize & mask;
        let mut n_taken = 0;
        while slots[(first + n_taken) & mask].load(Ordering::Relaxed) != 0 {
            n_taken += 1;
        }
        slots[(first + n_taken) & mask].store(row + 1, Ordering::Release);
        n_taken
    }

    fn find(&self, ids: &Ids, id: Id<'_>, live: &RowSet) -> Option<Row> {
        let slots = self.slots(ids, live);
        let mask = slots.len() - 1;
        let mut at = hash(id) as usize & mask;
        loop {
            match slots[at].load(Ordering::Acquire) {
                0 => return None,
                entry if live.contains(entry - 1) && ids.id(entry - 1) == id => return Some(entry - 1),
                _ => at = (at + 1) & mask,
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        self.slots.get().map_or(0, |slots| slots.len() * size_of::<AtomicU32>())
    }
}

/// The one place that gives rows their ids.
#[derive(Debug)]
pub struct IdsWriter {
    columns: Columns,
    table: Arc<IdTable>,
    /// Entries of the table, stale ones included.
    n_entries: usize,
    /// One more than the largest number given so far: the next id where none is given.
    next_id: i64,
    allocator: Arc<dyn Allocator>,
}

#[derive(Debug)]
enum Columns {
    None,
    Implicit,
    Int(ColumnWriter<i64>),
    Text { slots: ColumnWriter<TextSlot>, arena: ColumnWriter<u8>, arena_end: usize },
}

impl IdsWriter {
    /// Goes on from a version.
    pub fn new(ids: &Ids, live: &RowSet, next_id: i64, allocator: Arc<dyn Allocator>) -> Self {
        let mut table = Arc::new(IdTable::unmade());
        let columns = match ids {
            Ids::None => Columns::None,
            Ids::Implicit => Columns::Implicit,
            Ids::Int(ids) => {
                table = ids.table.clone();
                Columns::Int(ColumnWriter::new(ids.column.clone(), allocator.clone()))
            }
            Ids::Text(ids) => {
                table = ids.table.clone();
                let n = ids.arena.n_chunks();
                let arena_end =
                    n.saturating_sub(1) * ARENA_CHUNK_BYTES + ids.arena.chunk(n.saturating_sub(1)).len();
                Columns::Text {
                    slots: ColumnWriter::new(ids.slots.clone(), allocator.clone()),
                    arena: ColumnWriter::new(ids.arena.clone(), allocator.clone()),
                    arena_end,
                }
            }
        };
        if !matches!(columns, Columns::None | Columns::Implicit) {
            table.slots(ids, live);
        }
        // Rows removed earlier may stand in the table too: count as full what may be.
        let n_entries = table.memory_bytes() / size_of::<AtomicU32>() / 2;
        Self { columns, table, n_entries, next_id, allocator }
    }

    /// One more than the largest number given so far.
    pub fn next_id(&self) -> i64 {
        self.next_id
    }

    /// The ids that rows get where the caller gives none.
    pub fn automatic(&self, n: usize) -> Result<IdList> {
        if n > 0 && matches!(self.columns, Columns::Text { .. }) {
            return Err(Error::argument(format!(
                "ids of this index are text: {n} vectors need ids, got none"
            )));
        }
        let end = i64::try_from(n).ok().and_then(|n| self.next_id.checked_add(n)).ok_or_else(|| {
            Error::argument(format!("{n} vectors need ids: after {} no numbers are left", self.next_id))
        })?;
        Ok(IdList::Int((self.next_id..end).collect()))
    }

    /// Stages `ids` for the rows in `ranges`, which follow all rows staged before.
    pub fn stage(&mut self, n_published: usize, ids: &IdList, ranges: &[Range<Row>]) -> Result<()> {
        if let IdList::Int(numbers) = ids {
            let rows = ranges.iter().cloned().flatten();
            let counts = numbers.iter().copied().eq(rows.map(i64::from));
            match self.columns {
                Columns::None if counts => self.columns = Columns::Implicit,
                Columns::None => self.columns = Columns::Int(self.int_writer()),
                Columns::Implicit if !counts => self.materialise(n_published)?,
                _ => {}
            }
        } else if matches!(self.columns, Columns::None) {
            self.columns = Columns::Text {
                slots: ColumnWriter::new(Column::new(1, CHUNK_ROWS), self.allocator.clone()),
                arena: ColumnWriter::new(Column::new(1, ARENA_CHUNK_BYTES), self.allocator.clone()),
                arena_end: 0,
            };
        }
        match (&mut self.columns, ids) {
            (Columns::Int(column), IdList::Int(numbers)) => {
                let went = column.stage(numbers.len(), |part, out| out.copy_from_slice(&numbers[part]))?;
                check_step(&went, ranges);
            }
            (Columns::Text { slots, arena, arena_end }, IdList::Text(texts)) => {
                let (placed, end) = place_texts(texts.iter().map(String::as_str), *arena_end)?;
                let mut bytes = vec![0; end - *arena_end];
                for (slot, text) in placed.iter().zip(texts) {
                    let at = slot.start as usize - *arena_end;
                    bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
                }
                arena.stage(bytes.len(), |part, out| out.copy_from_slice(&bytes[part]))?;
                *arena_end = end;
                let went = slots.stage(placed.len(), |part, out| out.copy_from_slice(&placed[part]))?;
                check_step(&went, ranges);
            }
            _ => {}
        }
        Ok(())
    }

    fn int_writer(&self) -> ColumnWriter<i64> {
        ColumnWriter::new(Column::new(1, CHUNK_ROWS), self.allocator.clone())
    }

    /// Writes out ids that were the rows themselves, because from now on some are not.
    pub fn materialise(&mut self, n_rows: usize) -> Result<()> {
        let mut column = self.int_writer();
        column.stage(n_rows, |part, out| {
            out.iter_mut().zip(part).for_each(|(id, row)| *id = row as i64);
        })?;
        self.columns = Columns::Int(column);
        // All rows must be found by the table now; `publish` makes it anew.
        self.n_entries = usize::MAX / 4;
        Ok(())
    }

    /// Whether ids are the rows themselves.
    pub fn is_implicit(&self) -> bool {
        matches!(self.columns, Columns::Implicit)
    }

    /// Publishes what was staged. `live` are the live rows from now on, `new` those staged with their ids.
    pub fn publish(&mut self, live: &RowSet, new: &[Range<Row>], ids: &IdList, free: &[usize]) -> Ids {
        if let IdList::Int(numbers) = ids {
            let after = numbers.iter().max().map_or(0, |max| max.saturating_add(1));
            self.next_id = self.next_id.max(after);
        }
        let view = |table: &Arc<IdTable>, columns: &mut Columns, free: &[usize]| match columns {
            Columns::None => Ids::None,
            Columns::Implicit => Ids::Implicit,
            Columns::Int(column) => Ids::Int(IntIds { column: column.publish(free), table: table.clone() }),
            Columns::Text { slots, arena, .. } => Ids::Text(TextIds {
                slots: slots.publish(free),
                arena: arena.publish(&[]),
                table: table.clone(),
                // Those of a file were looked at before anything could be added.
                plausible: Arc::new(OnceLock::from(true)),
            }),
        };
        let published = view(&self.table, &mut self.columns, free);
        if matches!(published, Ids::None | Ids::Implicit) {
            return published;
        }
        let n_new: usize = new.iter().map(|range| range.len()).sum();
        let n_slots = self.table.memory_bytes() / size_of::<AtomicU32>();
        if (self.n_entries.saturating_add(n_new)) * 2 <= n_slots {
            let slots = self.table.slots.get().expect("a table with entries");
            let rows = new.iter().cloned().flatten();
            let longest =
                rows.map(|row| IdTable::put(slots, hash(published.id(row)), row)).max().unwrap_or(0);
            self.n_entries += n_new;
            if longest > LONG_PROBE.max(n_slots.isqrt()) {
                // One id given again and again left its stale rows in a row: next time, a table without them. The
                // root balances the cost of a new table with that of walking past.
                self.n_entries = usize::MAX / 4;
            }
            return published;
        }
        // A new table of twice the size, without what is stale; versions in use keep theirs.
        self.table = Arc::new(IdTable::with_room_for(live.len().max(n_new) * 2));
        let slots = self.table.slots.get().expect("just made");
        IdTable::put_live(slots, &published, live);
        self.n_entries = live.len();
        // The chunks in `free` are free by now: freed twice, they would be given out twice.
        view(&self.table, &mut self.columns, &[])
    }

    /// Closes the open chunks, in step with the vectors.
    pub fn close(&mut self) {
        match &mut self.columns {
            Columns::None | Columns::Implicit => {}
            Columns::Int(column) => column.close(),
            Columns::Text { slots, .. } => slots.close(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::SystemAllocator;

    fn writer() -> IdsWriter {
        IdsWriter::new(&Ids::None, &RowSet::default(), 0, Arc::new(SystemAllocator))
    }

    fn add(writer: &mut IdsWriter, live: &mut RowSet, ids: IdList) -> Ids {
        let first = live.iter().last().map_or(0, |row| row + 1);
        let range = [first..first + ids.len() as Row];
        writer.stage(first as usize, &ids, &range).unwrap();
        live.insert(range[0].clone());
        writer.publish(live, &range, &ids, &[])
    }

    #[test]
    fn counting_ids_cost_nothing_until_they_stop_counting() {
        let (mut writer, mut live) = (writer(), RowSet::default());
        let ids = add(&mut writer, &mut live, IdList::Int((0..1000).collect()));
        assert!(matches!(ids, Ids::Implicit));
        assert_eq!(ids.find(Id::Int(999), &live), Some(999));
        assert_eq!(ids.find(Id::Int(1000), &live), None);
        assert_eq!(ids.find(Id::Text("1"), &live), None);
        let automatic = writer.automatic(2).unwrap();
        assert_eq!(automatic, IdList::Int(vec![1000, 1001]));
        let ids = add(&mut writer, &mut live, IdList::Int(vec![7_000_000_000, 5000]));
        for (id, row) in [(0, 0), (999, 999), (7_000_000_000, 1000), (5000, 1001)] {
            assert_eq!(ids.find(Id::Int(id), &live), Some(row));
            assert_eq!(ids.id(row), Id::Int(id));
        }
        assert!(ids.before(1001, 1000));
        assert_eq!(writer.automatic(1).unwrap(), IdList::Int(vec![7_000_000_001]));
    }

    #[test]
    fn texts_are_found_across_arena_chunks() {
        let (mut writer, mut live) = (writer(), RowSet::default());
        let long = "é".repeat(20_000);
        let texts: Vec<String> =
            (0..100).map(|i| format!("{i}{long}")).chain(["".into(), "x".into()]).collect();
        let mut ids = Ids::None;
        for part in texts.chunks(17) {
            ids = add(&mut writer, &mut live, IdList::Text(part.to_vec()));
        }
        for (row, text) in texts.iter().enumerate() {
            assert_eq!(ids.find(Id::Text(text), &live), Some(row as Row));
            assert_eq!(ids.id(row as Row), Id::Text(text));
        }
        assert!(ids.check_kind(&IdList::Int(vec![1])).is_err());
        assert!(writer.automatic(1).is_err());
    }

    #[test]
    fn an_id_given_again_means_the_live_row() {
        let (mut writer, mut live) = (writer(), RowSet::default());
        let before = add(&mut writer, &mut live, IdList::Int(vec![5, 6]));
        let old_live = live.clone();
        live.remove([0]);
        let after = add(&mut writer, &mut live, IdList::Int(vec![5]));
        assert_eq!(after.find(Id::Int(5), &live), Some(2));
        assert_eq!(before.find(Id::Int(5), &old_live), Some(0));
    }

    #[test]
    fn one_id_given_again_and_again_stays_quick_to_find() {
        let (mut writer, mut live) = (writer(), RowSet::default());
        let mut ids = add(&mut writer, &mut live, IdList::Int((1..20_000).collect()));
        for _ in 0..3000 {
            live.remove([ids.find(Id::Int(77), &live).unwrap()]);
            let last = ids.clone();
            let Ids::Int(column) = &last else { panic!("{last:?}") };
            let next = (column.column.n_chunks() - 1) * CHUNK_ROWS
                + column.column.rows_in(column.column.n_chunks() - 1);
            let range = [next as Row..next as Row + 1];
            writer.stage(next, &IdList::Int(vec![77]), &range).unwrap();
            live.insert(range[0].clone());
            ids = writer.publish(&live, &range, &IdList::Int(vec![77]), &[]);
        }
        let slots = writer.table.slots.get().unwrap();
        let runs = slots.split(|slot| slot.load(Ordering::Relaxed) == 0).map(<[AtomicU32]>::len);
        assert!(runs.max().unwrap() < 2 * slots.len().isqrt(), "stale rows of one id fill the table");
        assert!(ids.find(Id::Int(77), &live).is_some() && live.len() == 19_999);
    }

    #[test]
    fn bad_lists_are_refused() {
        assert!(IdList::Int(vec![1, -1]).check().unwrap_err().to_string().contains("position 1"));
        assert!(IdList::Text(vec!["a".repeat(MAX_TEXT_BYTES + 1)]).check().is_err());
        assert_eq!(IdList::Int(vec![1, 2, 1, 2]).repeated(), Some(2));
        assert_eq!(IdList::Text(vec!["1".into(), "2".into()]).repeated(), None);
    }
}
