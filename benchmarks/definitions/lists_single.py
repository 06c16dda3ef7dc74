"""One query a call, k = 10, 1 thread: inverted lists against the best of others, at recall 0.90, 0.95 and 0.99.

As `lists-batch`, but for single queries: parameter sets that are best for batches need not be the best here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.bench.adapters.nearest import COMPACT, COMPACT_GRAPH, GRAPH

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet", "photos", "photos1m", "patches", "synthetic500k")
PEERS = ("nearest", "faiss", "scann", "svs", "hnswlib")
TARGETS = {0.9: 1.0, 0.95: 1.0, 0.99: 1.0}


def measure(session: Session) -> None:
    session.compare_sets_at(
        SETS,
        PEERS,
        mode="single",
        only=lambda parameters: (
            parameters.family not in (COMPACT, GRAPH, COMPACT_GRAPH)
            and parameters.build.get("workload", "single") == "single"
        ),
    )


def claims(session: Session) -> None:
    session.claim_at_recalls(TARGETS)
