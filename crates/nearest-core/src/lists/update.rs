//! Lists with rows added, dead rows dropped, or rows renumbered.
//!
//! Published blocks never change. A list that grows keeps its full blocks and gets its last one anew; a list of which many
//! rows are dead is packed again from those that live.

use std::ops::Range;
use std::sync::Arc;

use nearest_kernels::PANEL_ROWS;

use super::block::{BLOCK_PLACES, Block, List, Term};
use super::{Coded, Coding, Lists};
use crate::coder::CoderScratch;
use crate::column::Row;
use crate::error::Result;
use crate::live::RowSet;
use crate::memory::{Allocator, Slots};
use crate::work::Work;

/// Bytes of lists that are built together and share their memory: of full blocks whole huge pages, nearly. Memory comes in
/// these, and what is left of the last is lost (resident beyond what photos' lists hold: 27 % where these bytes were of all blocks, 2 % now).
const STORE_BYTES: usize = 4 << 20;

/// Dead rows, as a part of those that live, from which all lists are looked at for them: at worst a search looks at so
/// many more rows than it need, and a row that is removed costs the packing of as many others.
const SWEEP: usize = 8;
/// Dead rows, as a part of its rows, from which a list that changes is packed anew.
const REPACK: usize = 16;

/// Coded rows on their way into lists.
#[derive(Debug, Default)]
pub struct Entries {
    /// The list of each.
    pub lists: Vec<u32>,
    /// Terms of each.
    pub terms: Vec<Term>,
    /// Codes, side by side.
    pub codes: Vec<u8>,
}

impl Entries {
    /// How many.
    pub fn len(&self) -> usize {
        self.lists.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// All of these, in this order.
    pub(super) fn joined(parts: impl Iterator<Item = Entries>) -> Self {
        let parts: Vec<Entries> = parts.collect();
        let n: usize = parts.iter().map(Entries::len).sum();
        let code_bytes = parts.iter().map(|part| part.codes.len()).sum::<usize>() / n.max(1);
        let mut all = Entries::with_capacity(n, code_bytes);
        parts.into_iter().for_each(|part| all.append(part));
        all
    }

    /// None yet, with room for `n`.
    pub(super) fn with_capacity(n: usize, code_bytes: usize) -> Self {
        Entries {
            lists: Vec::with_capacity(n),
            terms: Vec::with_capacity(n),
            codes: Vec::with_capacity(n * code_bytes),
        }
    }

    /// Takes over others.
    pub fn append(&mut self, mut other: Entries) {
        if self.codes.capacity() == 0 {
            *self = other;
            return;
        }
        self.lists.append(&mut other.lists);
        self.terms.append(&mut other.terms);
        self.codes.append(&mut other.codes);
    }
}

/// What a list becomes.
struct Plan<'a> {
    list: usize,
    /// Blocks that stay.
    kept: &'a [Block],
    /// Rows of blocks that do not stay.
    moved: Vec<(&'a Block, usize)>,
    /// Positions among the new entries.
    added: &'a [u32],
}

impl Plan<'_> {
    fn n_rows(&self) -> usize {
        self.moved.len() + self.added.len()
    }

    /// Bytes of its new blocks: of those that are full, and of one that is not.
    fn n_bytes(&self, panel_bytes: usize) -> [usize; 2] {
        let mut n_bytes = [0; 2];
        for rows in blocks_of(self.n_rows()) {
            n_bytes[usize::from(rows.len() < BLOCK_PLACES)] += Block::size(rows.len(), panel_bytes);
        }
        n_bytes
    }
}

fn blocks_of(n: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(BLOCK_PLACES).map(move |start| start..(start + BLOCK_PLACES).min(n))
}

impl Lists {
    /// These lists with new rows, and without rows that are not in `live` in lists where these are many.
    ///
    /// Only lists that change anyway are looked at for dead rows, until so many rows are dead that all are.
    pub fn with(
        &self,
        coded: &Coded,
        n_new: usize,
        live: &RowSet,
        allocator: &Arc<dyn Allocator>,
        work: &Work<'_>,
    ) -> Result<Lists> {
        let entries = &coded.entries;
        let n_rows = self.n_rows + n_new;
        let sweep = n_rows > live.len() + live.len() / SWEEP + BLOCK_PLACES;
        // New entries by list, in their order.
        let n_lists = self.lists.len();
        let mut ends = vec![0u32; n_lists + 1];
        entries.lists.iter().for_each(|&list| ends[list as usize + 1] += 1);
        for list in 0..n_lists {
            ends[list + 1] += ends[list];
        }
        let mut by_list = vec![0u32; entries.len()];
        let mut next = ends.clone();
        for (i, &list) in entries.lists.iter().enumerate() {
            by_list[next[list as usize] as usize] = i as u32;
            next[list as usize] += 1;
        }
        let plans: Vec<Plan<'_>> = (0..n_lists)
            .filter_map(|list| {
                let added = &by_list[ends[list] as usize..ends[list + 1] as usize];
                if added.is_empty() && !sweep {
                    return None;
                }
                let blocks = &self.lists[list].blocks;
                let n_rows = self.lists[list].n_rows();
                let n_dead = self.lists[list].rows().filter(|&row| !live.contains(row)).count();
                let drop_dead = n_dead > 0 && (sweep || REPACK * n_dead >= n_rows);
                if added.is_empty() && !drop_dead {
                    return None;
                }
                let n_kept = if drop_dead {
                    0
                } else {
                    blocks.iter().take_while(|block| block.n_rows() == BLOCK_PLACES).count()
                };
                let moved = blocks[n_kept..].iter().flat_map(|block| {
                    let rows = block.rows().enumerate();
                    rows.filter(|&(_, row)| !drop_dead || live.contains(row)).map(move |(at, _)| (block, at))
                });
                Some(Plan { list, kept: &blocks[..n_kept], moved: moved.collect(), added })
            })
            .collect();
        let mut lists = self.carry_out(&plans, entries, &|row| row, allocator, work)?;
        lists.n_rows = if sweep { live.len() } else { n_rows };
        lists.added.0 = lists.added.0.saturating_add(n_new as u64);
        lists.added.1 += coded.distance;
        Ok(lists)
    }

    fn carry_out(
        &self,
        plans: &[Plan<'_>],
        entries: &Entries,
        number: &(dyn Fn(Row) -> Row + Sync),
        allocator: &Arc<dyn Allocator>,
        work: &Work<'_>,
    ) -> Result<Lists> {
        let panel_bytes = self.coding.panel_bytes();
        // Neighbouring lists share memory, so that large pages serve many of them.
        let mut groups: Vec<Range<usize>> = Vec::new();
        let mut n_bytes = [0; 2];
        for (i, plan) in plans.iter().enumerate() {
            let [full, other] = plan.n_bytes(panel_bytes);
            match groups.last_mut() {
                Some(group) if (n_bytes[0] + full).max(n_bytes[1] + other) <= STORE_BYTES => {
                    group.end = i + 1;
                    n_bytes = [n_bytes[0] + full, n_bytes[1] + other];
                }
                _ => {
                    groups.push(i..i + 1);
                    n_bytes = [full, other];
                }
            }
        }
        let done = work.map("filling lists", groups.len(), Packer::default, |packer, i| {
            packer.pack(&self.coding, &plans[groups[i].clone()], entries, number, allocator)
        })?;
        let mut lists = Vec::clone(&self.lists);
        for (plan, list) in plans.iter().zip(done.into_iter().flatten()) {
            lists[plan.list] = Arc::new(list);
        }
        Ok(Lists { lists: Arc::new(lists), ..self.clone() })
    }

    /// These lists with other row numbers: `number` gives the new one, or nothing for rows that are to be dropped.
    pub fn renumbered(
        &self,
        number: impl Fn(Row) -> Option<Row> + Sync,
        allocator: &Arc<dyn Allocator>,
        work: &Work<'_>,
    ) -> Result<Lists> {
        let plans: Vec<Plan<'_>> = self
            .lists
            .iter()
            .enumerate()
            .filter(|(_, list)| list.rows().any(|row| number(row) != Some(row)))
            .map(|(list, of)| {
                let moved = of.blocks.iter().flat_map(|block| {
                    let rows = block.rows().enumerate();
                    rows.filter(|&(_, row)| number(row).is_some()).map(move |(at, _)| (block, at))
                });
                Plan { list, kept: &[], moved: moved.collect(), added: &[] }
            })
            .collect();
        let number = |row| number(row).unwrap_or(Row::MAX);
        self.carry_out(&plans, &Entries::default(), &number, allocator, work)
    }
}

/// Packs lists; buffers of one worker.
#[derive(Debug, Default)]
pub struct Packer {
    codes: Vec<u8>,
    terms: Vec<Term>,
    coder: CoderScratch,
}

impl Packer {
    fn pack(
        &mut self,
        coding: &Coding,
        plans: &[Plan<'_>],
        entries: &Entries,
        number: &(dyn Fn(Row) -> Row + Sync),
        allocator: &Arc<dyn Allocator>,
    ) -> Result<Vec<List>> {
        let panel_bytes = coding.panel_bytes();
        // Full blocks stay for good; those that will be replaced when their list grows must not keep them company.
        let n_bytes = |i: usize| plans.iter().map(|plan| plan.n_bytes(panel_bytes)[i]).sum();
        let mut stores = [
            Slots::<u8>::with_capacity(n_bytes(0), allocator)?,
            Slots::<u8>::with_capacity(n_bytes(1), allocator)?,
        ];
        let mut places = Vec::with_capacity(plans.len());
        for plan in plans {
            for rows in blocks_of(plan.n_rows()) {
                let (of, n_rows) = (usize::from(rows.len() < BLOCK_PLACES), rows.len());
                self.gather(coding, plan, rows, entries);
                self.terms.iter_mut().for_each(|term| term.row = number(term.row));
                let writer = &mut stores[of].1;
                places.push((of, writer.staged(), n_rows));
                writer.stage(Block::size(n_rows, panel_bytes), |bytes| self.write_block(coding, bytes));
            }
        }
        stores.iter_mut().for_each(|(_, writer)| writer.publish());
        let mut places = places.into_iter();
        let lists = plans.iter().map(|plan| {
            let new = places.by_ref().take(blocks_of(plan.n_rows()).count());
            let new = new.map(|(of, start, n_rows)| {
                Block::at(&stores[of].0, start, n_rows, panel_bytes).expect("the block was just written")
            });
            List { blocks: plan.kept.iter().cloned().chain(new).collect() }
        });
        Ok(lists.collect())
    }

    /// Passes on the blocks of a list as they are with other row numbers: `number` gives them, or nothing for rows to be
    /// left out.
    pub fn write(
        &mut self,
        coding: &Coding,
        list: &List,
        number: &dyn Fn(Row) -> Option<Row>,
        out: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        if list.rows().all(|row| number(row) == Some(row)) {
            return list.blocks.iter().try_for_each(|block| out(block.bytes()));
        }
        let moved = list.blocks.iter().flat_map(|block| {
            let rows = block.rows().enumerate();
            rows.filter(|&(_, row)| number(row).is_some()).map(move |(at, _)| (block, at))
        });
        let plan = Plan { list: 0, kept: &[], moved: moved.collect(), added: &[] };
        let mut bytes = Vec::new();
        for rows in blocks_of(plan.n_rows()) {
            let n_rows = rows.len();
            self.gather(coding, &plan, rows, &Entries::default());
            self.terms.iter_mut().for_each(|term| term.row = number(term.row).unwrap_or(Row::MAX));
            bytes.clear();
            bytes.resize(Block::size(n_rows, coding.panel_bytes()), 0);
            self.write_block(coding, &mut bytes);
            out(&bytes)?;
        }
        Ok(())
    }

    /// Packs the codes and terms that were gathered.
    fn write_block(&mut self, coding: &Coding, bytes: &mut [u8]) {
        let panel_bytes = coding.panel_bytes();
        let units = bytes.chunks_exact_mut(Block::size(1, panel_bytes));
        let codes = self.codes.chunks(PANEL_ROWS * coding.code_bytes());
        for ((unit, codes), terms) in units.zip(codes).zip(self.terms.chunks(PANEL_ROWS)) {
            coding.pack_panel(codes, &mut unit[..panel_bytes], &mut self.coder);
            Block::write_terms(unit, terms);
        }
    }

    /// Codes and terms of some rows of a plan.
    fn gather(&mut self, coding: &Coding, plan: &Plan<'_>, rows: Range<usize>, entries: &Entries) {
        let code_bytes = coding.code_bytes();
        self.codes.resize(rows.len() * code_bytes, 0);
        self.terms.clear();
        for (i, code) in rows.zip(self.codes.chunks_exact_mut(code_bytes)) {
            if let Some(&(block, at)) = plan.moved.get(i) {
                block.code(coding, at, code);
                self.terms.push(block.term(at));
            } else {
                let at = plan.added[i - plan.moved.len()] as usize;
                code.copy_from_slice(&entries.codes[at * code_bytes..][..code_bytes]);
                self.terms.push(entries.terms[at]);
            }
        }
    }
}
