"""Bytes a vector of everything, and what they buy: inverted lists within 0.55 and within 0.2 of float32's bytes.

Two kinds compete: `fast`, which may take 0.55 of what the vectors take as float32, and `compact`, which may take 0.2.
Each has a curve of its own (the plot), and is measured at recall 0.90, 0.95 and 0.99 where it reaches that; faiss's
inverted lists are measured beside them. Bytes are those of everything that a search needs, by the library's own account
and, beside it, what stayed in memory after building and what it takes on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.bench import report, sweep
from nearest.bench.adapters.nearest import COMPACT, FAST

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet", "photos", "patches")
PEERS = ("nearest", "faiss")
MOST = {FAST: 0.55, COMPACT: 0.2}

_whole: dict[str, int] = {}


def measure(session: Session) -> None:
    settings = session.with_settings(rounds=3, sessions=1)
    for spec in session.sets(SETS):
        data = session.data(spec)
        if data is None:
            continue
        session.compare_at(spec, data, PEERS, only=lambda parameters: parameters.asked is None, settings=settings)
        whole = 4 * data.dim
        rows = []
        for key, found in session.at_recall.items():
            if key in _whole:
                continue
            _whole[key] = whole
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
        for family, most in MOST.items():
            one: sweep.AtRecall | None = next((one for one in found if one.family == family), None)
            size = one.bytes_a_vector()["account_bytes_a_vector"] if one is not None else None
            share = None if size is None else size / _whole[key]
            session.claim_most(
                f"{key}: bytes of {family}, as a share of float32", share, most, lambda value: f"{value:.3f}"
            )
