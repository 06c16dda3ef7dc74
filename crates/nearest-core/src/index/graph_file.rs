//! The sections of a graph in the file of an index.

use std::io::Write;
use std::sync::Arc;

use nearest_kernels::Kernels;

use super::persist::{column_of, float};
use super::{KeptAs, Snapshot, Spec};
use crate::column::{CHUNK_ROWS, Column, Row};
use crate::encoding::Vectors;
use crate::error::{Error, Result};
use crate::file::{Dtype, FileView, FileWriter};
use crate::graph::{Codes, Graph, Hubs, MOST_ROWS, NONE};
use crate::lists::{Codec, Coding, Loss, Second};
use crate::memory::SystemAllocator;
use crate::work::Work;

const GRAPH: &str = "graph";
const CENTRE: &str = "graph_centre";
const CODES: &str = "graph_codes";
const SCALES: &str = "graph_scales";
const LINKS: &str = "graph_links";
const HUBS: &str = "graph_hubs";
const WAITING: &str = "graph_waiting";
pub(super) const KNOWN: [&str; 7] = [GRAPH, CENTRE, CODES, SCALES, LINKS, HUBS, WAITING];

/// Numbers of the section `graph`.
const N_GRAPH: usize = 6;

impl Snapshot {
    /// Writes a graph with the row numbers of the file, in which live rows lie side by side, and without dead rows.
    pub(super) fn write_graph(&self, file: &mut FileWriter<&mut dyn Write>, graph: &Graph) -> Result<()> {
        let repaired;
        let graph = if graph.n_dead(&self.live) == 0 {
            graph
        } else {
            let allocator: Arc<dyn crate::memory::Allocator> = Arc::new(SystemAllocator);
            repaired = graph.repaired(&self.live, &allocator, &Work::inline())?;
            &repaired
        };
        let (n, dim, degree) = (self.len() as u64, self.spec.dim as u64, graph.plan.degree);
        let (codes, coding) = (&graph.codes, &graph.codes.coding);
        let loss = coding.loss();
        let bits_of = |number: f32| u64::from(number.to_bits());
        let [error, spread, growth] = [loss.error, loss.spread, graph.growth].map(bits_of);
        let counts = [graph.hubs_of, graph.n_repaired].map(|count| count as u64);
        let numbers = [error, spread, growth, counts[0], counts[1], codes.bits.into()];
        file.array(GRAPH, &[N_GRAPH as u64], &numbers)?;
        file.mark_required();
        file.array(CENTRE, &[dim], coding.frame().centre())?;
        file.mark_required();
        if self.spec.kept_as() != KeptAs::Place {
            file.section(CODES, Dtype::U8, &[n, codes.codes.width() as u64], |out| {
                self.live.iter().try_for_each(|row| out.write_all(codes.codes.row(row)))
            })?;
            file.mark_required();
        }
        file.section(SCALES, Dtype::Bf16, &[n], |out| {
            self.live.iter().try_for_each(|row| out.write_all(bytemuck::cast_slice(codes.scales.row(row))))
        })?;
        file.mark_required();
        let ranks = self.live.ranks();
        let number = |row: Row| ranks[row as usize];
        file.section(LINKS, Dtype::U32, &[n, degree as u64], |out| {
            let mut links = vec![NONE; degree];
            self.live.iter().try_for_each(|row| {
                links.fill(NONE);
                links.iter_mut().zip(graph.links_of(row)).for_each(|(place, link)| *place = number(link));
                out.write_all(bytemuck::cast_slice(&links))
            })
        })?;
        file.mark_required();
        for (name, rows) in [(HUBS, &graph.hubs.rows), (WAITING, &graph.waiting)] {
            let numbers: Vec<Row> = rows.iter().map(|&row| number(row)).collect();
            file.array(name, &[numbers.len() as u64], &numbers)?;
            file.mark_required();
        }
        Ok(())
    }
}

/// What a file holds of a graph besides its rows.
pub(super) struct Trained {
    pub(super) codes: Codes,
    hubs_of: usize,
    n_repaired: usize,
    growth: f32,
}

/// How the vectors of a graph are coded, and so on; nothing if the graph is still to be made.
pub(super) fn read_codes(view: &FileView, spec: &Spec) -> Result<Option<Trained>> {
    if view.section(GRAPH).is_none() {
        return Ok(None);
    }
    if spec.graph_plan().is_none() {
        return Err(Error::format("there are links (section 'graph') of an index that is no graph"));
    }
    let kernels = Kernels::best();
    let numbers = view.array::<u64>(view.require(GRAPH, Dtype::U64, &[Some(N_GRAPH as u64)])?)?;
    let &[error, spread, growth, hubs_of, n_repaired, bits] = numbers else {
        return Err(Error::format(format!("section 'graph' must hold {N_GRAPH} numbers, got {numbers:?}")));
    };
    let [error, spread, growth] = [error, spread, growth].map(float);
    if ![error, spread, growth].iter().all(|number| number.is_finite() && *number >= 0.0) {
        return Err(Error::format(
            "section 'graph': what coding loses and how distances grow must be finite numbers",
        ));
    }
    let centre = view.array::<f32>(view.require(CENTRE, Dtype::F32, &[Some(spec.dim as u64)])?)?.to_vec();
    if !kernels.all_finite(&centre) {
        return Err(Error::format("section 'graph_centre' holds what is no finite number"));
    }
    let plan = spec.plan(0);
    let coder = |encoding| crate::coder::Coder::from_state(encoding, spec.dim, &[]);
    let codec = match plan.codes {
        crate::lists::Codes::UInt8 => Codec::UInt8,
        crate::lists::Codes::Int8 => Codec::Int8,
        crate::lists::Codes::Short(encoding) => Codec::Short(coder(encoding)?),
    };
    let second = plan.second.map(coder).transpose()?;
    let second = second.map(|coder| Arc::new(Second::new(coder, spec.metric)));
    let bits = match (bits, &codec) {
        (4, _) => 4,
        (8, Codec::UInt8 | Codec::Int8) => 8,
        (8, Codec::Short(coder)) if coder.is_identity() => 8,
        _ => {
            return Err(Error::format(format!("section 'graph': walks cannot read {bits} bits a component")));
        }
    };
    let coding = Coding::new(plan.frame(kernels, centre)?, codec, Loss { error, spread });
    let count = |n: u64| match usize::try_from(n) {
        Ok(n) if n <= MOST_ROWS => Ok(n),
        _ => Err(Error::format(format!("section 'graph' must count at most {MOST_ROWS} rows, got {n}"))),
    };
    let (hubs_of, n_repaired) = (count(hubs_of)?, count(n_repaired)?);
    Ok(Some(Trained { codes: Codes::new(Arc::new(coding), second, bits), hubs_of, n_repaired, growth }))
}

/// The graph of `n` rows, whose codes are `vectors` where nothing else is kept of them.
pub(super) fn read_graph(
    view: &FileView,
    spec: &Spec,
    Trained { codes, hubs_of, n_repaired, growth }: Trained,
    vectors: &Vectors,
    n: usize,
) -> Result<Graph> {
    let plan = spec.graph_plan().expect("codes of a graph");
    if n > MOST_ROWS {
        return Err(Error::format(format!("a graph holds at most {MOST_ROWS} vectors, got {n}")));
    }
    let n_rows = Some(n as u64);
    let width = codes.codes.width();
    let first = match (spec.kept_as(), vectors) {
        (KeptAs::Place, Vectors::UInt8(column)) => column.clone(),
        _ => {
            let section = view.require(CODES, Dtype::U8, &[n_rows, Some(width as u64)])?;
            column_of(view, section, width, n, CHUNK_ROWS)?
        }
    };
    let section = view.require(SCALES, Dtype::Bf16, &[n_rows])?;
    let scales = column_of(view, section, 1, n, CHUNK_ROWS)?;
    let section = view.require(LINKS, Dtype::U32, &[n_rows, Some(plan.degree as u64)])?;
    let links: Column<Row> = column_of(view, section, plan.degree, n, CHUNK_ROWS)?;
    let rows_of = |name: &str| -> Result<Vec<Row>> {
        let rows = view.array::<Row>(view.require(name, Dtype::U32, &[None])?)?;
        match rows.iter().find(|&&row| row as usize >= n) {
            Some(row) => Err(Error::format(format!("section '{name}' names row {row} of {n}"))),
            None => Ok(rows.to_vec()),
        }
    };
    let (hubs, waiting) = (rows_of(HUBS)?, rows_of(WAITING)?);
    if !waiting.is_sorted_by(|a, b| a < b) {
        return Err(Error::format("section 'graph_waiting' must name rows in order, each once"));
    }
    let n_linked = n - waiting.len();
    if hubs.is_empty() && n_linked > 0 {
        return Err(Error::format("section 'graph_hubs' names none of the rows that are linked"));
    }
    let codes = Codes { codes: first, scales, ..codes };
    let hubs = Arc::new(Hubs::new(Kernels::best(), &codes, hubs));
    let waiting = Arc::new(waiting);
    Ok(Graph { plan, codes, links, hubs, hubs_of, growth, waiting, n_linked, n_repaired })
}

/// Checks that links lead to rows, and to every row that does not wait.
pub(super) fn check_links(graph: &Graph, n: usize) -> Result<()> {
    let waiting = graph.waiting_rows();
    for row in 0..n as Row {
        let links = graph.links.row(row);
        let n_links = graph.links_of(row).count();
        if links[n_links..].iter().any(|&link| link != NONE) {
            return Err(Error::format(format!(
                "section 'graph_links': row {row} is linked to what is no row of {n}"
            )));
        }
        if n_links > 0 && waiting.contains(row) {
            return Err(Error::format(format!("section 'graph_waiting': row {row} has links")));
        }
        if let Some(link) = graph.links_of(row).find(|&link| waiting.contains(link)) {
            return Err(Error::format(format!(
                "section 'graph_links': row {row} is linked to {link}, which waits"
            )));
        }
    }
    let mut hubs = graph.hubs.rows.clone();
    hubs.sort_unstable();
    if let Some(hub) = hubs.iter().find(|&&hub| waiting.contains(hub)) {
        return Err(Error::format(format!("section 'graph_hubs' names row {hub}, which waits")));
    }
    if let Some(pair) = hubs.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::format(format!("section 'graph_hubs' names row {} twice", pair[0])));
    }
    match graph.n_unreachable(&crate::live::RowSet::first(n)) {
        0 => Ok(()),
        n => Err(Error::format(format!("section 'graph_links': {n} rows cannot be reached"))),
    }
}

/// Checks that scales are such as codes have.
pub(super) fn check_scales(graph: &Graph, n: usize) -> Result<()> {
    let is_wrong = |row: Row| {
        let scale = graph.codes.scales.row(row)[0].to_f32();
        if graph.codes.is_scaled() { !scale.is_finite() || scale < 0.0 } else { scale != 1.0 }
    };
    match (0..n as Row).find(|&row| is_wrong(row)) {
        Some(row) => {
            Err(Error::format(format!("section 'graph_scales': row {row} has a scale that no code has")))
        }
        None => Ok(()),
    }
}
