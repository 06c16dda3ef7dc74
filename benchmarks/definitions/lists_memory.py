"""Bytes a vector of everything, and what they buy: inverted lists within 0.55 and within 0.2 of float32's bytes.

Two kinds compete: `fast`, which may take 0.55 of what the vectors take as float32, and `compact`, which may take 0.2.
Each has a curve of its own (the plot), and is measured at recall 0.90, 0.95 and 0.99 where it reaches that; faiss's
inverted lists are measured beside them. Bytes are those of everything that a search needs, by the library's own account
and, beside it, what stayed in memory after building and what it takes on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.bench import sweep
from nearest.bench.adapters.nearest import COMPACT, FAST

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet", "photos", "patches")
PEERS = ("nearest", "faiss")
MOST = {FAST: 0.55, COMPACT: 0.2}


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
            only=lambda one: one.family in MOST or not (one.family and sweep.is_own(one.family)),
            settings=settings,
        )
        session.table_of_bytes(spec)


def claims(session: Session) -> None:
    for key in session.at_recall:
        for family, most in MOST.items():
            session.claim_bytes(key, family, most)
