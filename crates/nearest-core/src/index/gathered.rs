//! Exact searches among rows that only lists hold, or only codes are kept of: these are read out, part by part, and
//! compared as if they lay by row.
//!
//! So a filter that keeps few rows touches no others, and all lists together are an exact search, also of integers that are
//! not kept by row.

use std::sync::{Mutex, PoisonError};

use super::Snapshot;
use super::snapshot::{Goal, Sought};
use crate::candidates::{Candidate, RowOrder, sort};
use crate::column::Row;
use crate::encoding::{Encoding, Kind};
use crate::error::{Error, Result};
use crate::exact::{self, Numbers, Scope};
use crate::graph::Graph;
use crate::ids::Ids;
use crate::lists::{Frame, Lists};
use crate::live::RowSet;
use crate::work::{Whole, Work};

/// Bytes of vectors that are read out and compared together.
const PART_BYTES: usize = 16 << 20;
/// Rows that one task reads where second codes are kept by row.
const GROUP_ROWS: usize = 1024;

/// Rows that are read out by one task: their numbers and, row-major, their values.
type Group<'a, T> = (&'a mut [Row], &'a mut [T]);

/// Fills group after group.
type Fill<'a, T> = &'a (dyn Fn(usize, Group<'_, T>) -> Result<()> + Sync);

impl Snapshot {
    /// Searches all selected rows.
    pub(super) fn search_gathered(
        &self,
        lists: &Lists,
        queries: &[f32],
        sought: &Sought<'_>,
        work: &Work<'_>,
    ) -> Result<Vec<Vec<Candidate>>> {
        match self.spec.encoding {
            Encoding::UInt8 => self.natives::<u8>(lists, queries, sought, work),
            Encoding::Int8 => self.natives::<i8>(lists, queries, sought, work),
            _ => {
                let queries = self.framed(lists.coding.frame(), queries);
                let centre = self.moved_by(&lists.coding);
                let moved = |out: &mut [f32]| out.iter_mut().zip(centre).for_each(|(x, c)| *x += c);
                if let Some(second) = &lists.second {
                    let read = |row: Row, out: &mut [f32]| {
                        second.decode(self.kept(row), out);
                        moved(out);
                    };
                    return self.search_rows(&read, &queries, sought, work);
                }
                let read = |list, place, out: &mut [f32]| {
                    lists.decode_at(self.kernels, list, place, &mut Vec::new(), out);
                    moved(out);
                };
                self.search_places(lists, &read, &queries, sought, work)
            }
        }
    }

    /// The same where a graph has codes by row.
    pub(super) fn search_gathered_codes(
        &self,
        graph: &Graph,
        queries: &[f32],
        sought: &Sought<'_>,
        work: &Work<'_>,
    ) -> Result<Vec<Vec<Candidate>>> {
        match self.spec.encoding {
            Encoding::UInt8 => {
                let read = |row: Row, out: &mut [u8]| self.native_of_graph(graph, row, out);
                self.search_rows(&read, queries, sought, work)
            }
            Encoding::Int8 => {
                let read = |row: Row, out: &mut [i8]| {
                    self.native_of_graph(graph, row, bytemuck::cast_slice_mut(out))
                };
                self.search_rows(&read, queries, sought, work)
            }
            _ => {
                let coding = &graph.codes.coding;
                let queries = self.framed(coding.frame(), queries);
                let read = |row: Row, out: &mut [f32]| {
                    self.framed_of_graph(graph, row, out);
                    out.iter_mut().zip(self.moved_by(coding)).for_each(|(x, c)| *x += c);
                };
                self.search_rows(&read, &queries, sought, work)
            }
        }
    }

    /// Rows that are read by their numbers.
    fn search_rows<T: Kind>(
        &self,
        read: &(dyn Fn(Row, &mut [T]) + Sync),
        queries: &[f32],
        sought: &Sought<'_>,
        work: &Work<'_>,
    ) -> Result<Vec<Vec<Candidate>>> {
        let rows: Vec<Row> = sought.selected.iter().collect();
        let sizes: Vec<usize> = rows.chunks(GROUP_ROWS).map(<[Row]>::len).collect();
        let fill = |group: usize, (numbers, values): Group<'_, T>| {
            numbers.copy_from_slice(&rows[group * GROUP_ROWS..][..numbers.len()]);
            for (&row, out) in numbers.iter().zip(values.chunks_exact_mut(self.spec.dim)) {
                read(row, out);
            }
            Ok(())
        };
        self.search_parts(&sizes, &fill, queries, sought, work)
    }

    /// Integers that only the lists hold.
    fn natives<T: Kind>(
        &self,
        lists: &Lists,
        queries: &[f32],
        sought: &Sought<'_>,
        work: &Work<'_>,
    ) -> Result<Vec<Vec<Candidate>>> {
        let read = |list, place, out: &mut [T]| lists.native_at(list, place, bytemuck::cast_slice_mut(out));
        self.search_places::<T>(lists, &read, queries, sought, work)
    }

    /// Rows of which the number of their list is kept.
    fn search_places<T: Kind>(
        &self,
        lists: &Lists,
        read: &(dyn Fn(u32, u32, &mut [T]) + Sync),
        queries: &[f32],
        sought: &Sought<'_>,
        work: &Work<'_>,
    ) -> Result<Vec<Vec<Candidate>>> {
        let selected = sought.selected;
        let mut counts = vec![0usize; lists.n_lists()];
        for row in selected.iter() {
            let list = self.list_of(row);
            *counts.get_mut(list as usize).ok_or_else(|| misplaced(list))? += 1;
        }
        let there: Vec<u32> = (0..).zip(&counts).filter(|&(_, &n)| n > 0).map(|(list, _)| list).collect();
        let sizes: Vec<usize> = there.iter().map(|&list| counts[list as usize]).collect();
        let fill = |group: usize, (numbers, values): Group<'_, T>| {
            let list = there[group];
            let places = self.own_places(lists, list, selected);
            if places.len() != numbers.len() {
                return Err(misplaced(list));
            }
            let out = numbers.iter_mut().zip(values.chunks_exact_mut(self.spec.dim));
            for ((row, place), (number, out)) in places.into_iter().zip(out) {
                *number = row;
                read(list, place, out);
            }
            Ok(())
        };
        self.search_parts(&sizes, &fill, queries, sought, work)
    }

    /// Selected rows whose own list this is, each once, and their places there.
    fn own_places(&self, lists: &Lists, list: u32, selected: &RowSet) -> Vec<(Row, u32)> {
        let rows = lists.lists[list as usize].rows().zip(0..);
        let mut places: Vec<(Row, u32)> =
            rows.filter(|&(row, _)| selected.contains(row) && self.list_of(row) == list).collect();
        // Only a damaged file has a row there twice.
        places.sort_unstable();
        places.dedup_by_key(|&mut (row, _)| row);
        places
    }

    /// Reads out groups of so many rows and searches them, as many groups at once as a part holds.
    fn search_parts<T: Kind>(
        &self,
        sizes: &[usize],
        fill: Fill<'_, T>,
        queries: &[f32],
        sought: &Sought<'_>,
        work: &Work<'_>,
    ) -> Result<Vec<Vec<Candidate>>> {
        let Sought { exclude, goal, .. } = *sought;
        let dim = self.spec.dim;
        let comparer = Numbers::<T>::new(self.kernels, self.spec.metric, dim, queries);
        let part_rows = (PART_BYTES / (dim * size_of::<T>())).max(1);
        let whole = Whole::new(work, "searching", sizes.iter().sum::<usize>() as u64);
        let mut found: Vec<Vec<Candidate>> = vec![Vec::new(); queries.len() / dim];
        let (mut rows, mut values) = (Vec::new(), Vec::new());
        let mut rest = sizes;
        while !rest.is_empty() {
            let first = sizes.len() - rest.len();
            let (mut n, mut n_groups) = (0, 0);
            while n_groups < rest.len() && (n == 0 || n + rest[n_groups] <= part_rows) {
                n += rest[n_groups];
                n_groups += 1;
            }
            let (part, after) = rest.split_at(n_groups);
            rest = after;
            let n_bytes = (n as u64).checked_mul((dim * size_of::<T>()) as u64);
            work.check_memory(n_bytes, "vectors read out of the lists")?;
            rows.resize(n, 0);
            values.resize(n * dim, bytemuck::Zeroable::zeroed());
            let (mut rows_left, mut values_left) = (&mut rows[..], &mut values[..]);
            let groups: Vec<Mutex<Group<'_, T>>> = part
                .iter()
                .map(|&size| {
                    let numbers = rows_left.split_off_mut(..size).expect("as many as the groups have");
                    let values = values_left.split_off_mut(..size * dim).expect("as many as the groups have");
                    Mutex::new((numbers, values))
                })
                .collect();
            work.for_each(
                "searching",
                n_groups,
                || (),
                |(), i| {
                    let mut group = groups[i].lock().unwrap_or_else(PoisonError::into_inner);
                    let (numbers, values) = &mut *group;
                    fill(first + i, (numbers, values))
                },
            )?;
            drop(groups);
            let work = whole.part(n as u64)?;
            let scope = Scope::of(&values, dim);
            let order = PartOrder { rows: &rows, ids: &self.ids };
            let of_part = match goal {
                // One more, for the row that is left out.
                Goal::Nearest(k) => {
                    let k = k.saturating_add(usize::from(exclude.is_some()));
                    exact::search(&scope, &comparer, k, None, &order, &work)
                }
                Goal::Within(radius) => exact::search_radius(&scope, &comparer, radius, None, &order, &work),
            }?;
            for (query, (found, of_part)) in found.iter_mut().zip(of_part).enumerate() {
                let candidates =
                    of_part.into_iter().map(|near| Candidate { row: rows[near.row as usize], ..near });
                found.extend(candidates.filter(|near| exclude.is_none_or(|rows| rows[query] != near.row)));
                sort(found, &self.ids);
                if let Goal::Nearest(k) = goal {
                    found.truncate(k);
                }
            }
        }
        Ok(found)
    }

    /// Queries as they are compared with codes: in the frame.
    fn framed(&self, frame: &Frame, queries: &[f32]) -> Vec<f32> {
        let dim = self.spec.dim;
        let (mut framed, mut scratch) = (vec![0.0; queries.len()], Vec::new());
        for (query, out) in queries.chunks_exact(dim).zip(framed.chunks_exact_mut(dim)) {
            frame.query(self.kernels, query, &mut scratch, out);
            if self.spec.metric.is_angular() {
                out.iter_mut().zip(frame.turned_centre()).for_each(|(q, c)| *q += c);
            }
        }
        framed
    }
}

/// Rows of a part in the order of their ids.
struct PartOrder<'a> {
    rows: &'a [Row],
    ids: &'a Ids,
}

impl RowOrder for PartOrder<'_> {
    fn before(&self, a: Row, b: Row) -> bool {
        self.ids.before(self.rows[a as usize], self.rows[b as usize])
    }
}

fn misplaced(list: u32) -> Error {
    Error::format(format!("rows are not in list {list}, where they should be"))
}
