"""Every adapter, every mode, on a thousand synthetic vectors: the tests run it, so that benchmarks cannot rot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.bench.adapters import NAMES

if TYPE_CHECKING:
    from session import Session


def measure(session: Session) -> None:
    data = session.data("synthetic:n=1200,dim=16,queries=40,clusters=10,seed=1")
    assert data is not None
    session.compare("batch", data, NAMES, mode="batch", n_threads=2)
    session.compare("single", data, NAMES, mode="single", n_threads=1)
    session.compare("graph", data, NAMES, mode="graph", k=5, n_threads=1, graph_rows={"faiss": 300})


def claims(session: Session) -> None:
    for name, comparison in session.comparisons.items():
        session.claim_exact(f"{name}: answers equal float64 brute force", comparison.best("nearest"))
