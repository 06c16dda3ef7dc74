"""Bytes a vector of everything, and what they buy: graphs within 0.6 and within 0.3 of float32's bytes (0.4 for short
vectors, of 128 dimensions or fewer).

Two kinds compete, one query a call: `nearest graph` with its usual settings, and `nearest graph compact`, with fewer
links and shorter codes. Each has a curve of its own (the plot), and is measured at recall 0.90, 0.95 and 0.99 where it
reaches that; hnswlib is measured beside them. Bytes are those of everything that a search needs, by the library's own
account and, beside it, what stayed in memory after building and what it takes on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.bench import report, sweep
from nearest.bench.adapters.nearest import COMPACT_GRAPH, GRAPH

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet", "photos", "patches")
PEERS = ("nearest", "hnswlib")
FAST, COMPACT, COMPACT_SHORT, SHORT = 0.6, 0.3, 0.4, 128
RECALL = 0.95

_dims: dict[str, int] = {}


def measure(session: Session) -> None:
    settings = session.with_settings(rounds=3, sessions=1)
    for spec in session.sets(SETS):
        data = session.data(spec)
        if data is None:
            continue
        session.compare_at(
            spec,
            data,
            PEERS,
            mode="single",
            only=lambda one: one.family in (GRAPH, COMPACT_GRAPH) or not (one.family and sweep.is_own(one.family)),
            settings=settings,
        )
        whole = 4 * data.dim
        rows = []
        for key, found in session.at_recall.items():
            if key in _dims:
                continue
            _dims[key] = data.dim
            for one in found:
                sizes = one.bytes_a_vector()
                share = (sizes["account_bytes_a_vector"] or 0.0) / whole
                numbers = [report.number(size) for size in sizes.values()]
                row = [one.label, one.family, f"{one.recall:g}", *numbers, f"{share:.3f}"]
                rows.append([*row, f"{report.number(one.queries_per_second)}/s"])
        head = ["method", "kind", "recall", "bytes a vector", "resident", "on disk", "of float32", "speed"]
        session.table(f"{spec}: bytes a vector of everything", head, rows, about=f"float32: {whole} bytes a vector")


def claims(session: Session) -> None:
    for key, found in session.at_recall.items():
        if not key.endswith(f" {RECALL:g}"):
            continue
        dim = _dims[key]
        for family, most in ((GRAPH, FAST), (COMPACT_GRAPH, COMPACT_SHORT if dim <= SHORT else COMPACT)):
            one: sweep.AtRecall | None = next((one for one in found if one.family == family), None)
            size = one.bytes_a_vector()["account_bytes_a_vector"] if one is not None else None
            share = None if size is None else size / (4 * dim)
            session.claim_most(
                f"{key}: bytes of {family}, as a share of float32", share, most, lambda value: f"{value:.3f}"
            )
