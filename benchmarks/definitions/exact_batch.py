"""1 000 queries at once, k = 10, on 2 threads and on 1: exact search of this library against that of others.

Faiss and numpy run twice: with OpenBLAS as it takes this CPU by itself, and told that it has AVX-512; their best
counts. Against Faiss that is its IndexFlat, and on a line of its own whatever else it has that is exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.bench.adapters import NAMES

if TYPE_CHECKING:
    from session import Session

LIMITS = True
SETS = ("wordnet", "photos")


def measure(session: Session) -> None:
    for spec in SETS:
        data = session.data(spec)
        if data is None:
            continue
        for n_threads in (2, 1):
            session.compare(
                f"{spec}, {n_threads} {'thread' if n_threads == 1 else 'threads'}",
                data,
                NAMES,
                only=lambda parameters: parameters.exhaustive,
                mode="batch",
                n_queries=1000,
                n_threads=n_threads,
            )


def claims(session: Session) -> None:
    for spec in SETS:
        comparison = session.comparisons.get(f"{spec}, 2 threads")
        if comparison is None:
            continue
        own = comparison.best("nearest")
        session.claim_ratio(f"{spec}, 2 threads: against IndexFlat", comparison.best("faiss", factory="Flat"), own, 3)
        session.claim_ratio(f"{spec}, 2 threads: against Faiss's best", comparison.best("faiss"), own, 3)
        session.claim_ratio(f"{spec}, 2 threads: against numpy", comparison.best("numpy"), own, 5)
        session.claim_exact(f"{spec}: answers equal float64 brute force", own)
        session.claim_share(f"{spec}, 2 threads: share of the int8 limit (an aim)", own, "of_int8_peak", 0.6)
