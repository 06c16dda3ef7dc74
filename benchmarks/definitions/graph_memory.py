"""Bytes a vector of everything, and what they buy: graphs within 0.6 and within 0.3 of float32's bytes (0.4 for short
vectors, of 128 dimensions or fewer).

Two kinds compete, one query a call: `nearest graph` with its usual settings, and `nearest graph compact`, with fewer
links and shorter codes. Each has a curve of its own (the plot), and is measured at recall 0.90, 0.95 and 0.99 where it
reaches that; hnswlib is measured beside them. Bytes are those of everything that a search needs, by the library's own
account and, beside it, what stayed in memory after building and what it takes on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.bench import sweep
from nearest.bench.adapters.nearest import COMPACT_GRAPH, GRAPH

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet", "photos", "patches")
PEERS = ("nearest", "hnswlib")
FAST, COMPACT, COMPACT_SHORT, SHORT = 0.6, 0.3, 0.4, 128
RECALL = 0.95


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
        session.table_of_bytes(spec)


def claims(session: Session) -> None:
    for key in session.at_recall:
        if key.endswith(f" {RECALL:g}"):
            session.claim_bytes(key, GRAPH, FAST)
            session.claim_bytes(key, COMPACT_GRAPH, COMPACT_SHORT if session.dims[key] <= SHORT else COMPACT)
