"""One query a call, k = 10, 1 thread: exact search at the speed of memory, and faster with a shadow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.bench.adapters import NAMES

if TYPE_CHECKING:
    from session import Session

LIMITS = True
SETS = ("photos:dtype=float32", "synthetic:n=1000000,dim=128,dtype=float32,seed=7")


def measure(session: Session) -> None:
    for spec in SETS:
        data = session.data(spec)
        if data is not None:
            session.compare(
                spec,
                data,
                NAMES,
                # One query is no matrix product: what OpenBLAS takes the CPU for matters little.
                only=lambda parameters: parameters.exhaustive and not parameters.environment,
                mode="single",
                n_threads=1,
            )


def claims(session: Session) -> None:
    for spec in SETS:
        comparison = session.comparisons.get(spec)
        if comparison is None:
            continue
        plain = comparison.best("nearest", encoding="float32", shadow=None)
        shadowed = comparison.best("nearest", encoding="float32", shadow="scalar8")
        session.claim_share(f"{spec}: share of stream bandwidth", plain, "of_stream", 0.85)
        session.claim_ratio(f"{spec}: with a shadow, against Faiss", comparison.best("faiss"), shadowed, 3)
        session.claim_exact(f"{spec}: answers equal float64 brute force", plain)
        session.claim_exact(f"{spec}: the same with a shadow", shadowed)
