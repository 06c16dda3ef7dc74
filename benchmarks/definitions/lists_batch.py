"""Many queries at once, k = 10: inverted lists against the best of others, at recall 0.90, 0.95 and 0.99.

Every family of methods is swept over all its parameter sets (at least four for each); at each recall its best one then
runs in turns against all the others, at the two efforts next to that recall, and the speed at exactly the recall is
interpolated between them. What `nearest.build` chooses when it is asked for that recall stands beside them, at the
recall that it got.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.bench.adapters.nearest import COMPACT, COMPACT_GRAPH, GRAPH

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet", "photos", "photos1m", "patches", "synthetic500k")
PEERS = ("nearest", "faiss", "scann", "svs", "hnswlib")
THREADS = (1, 2)
# Of the best peer's speed, where both answer at the same recall.
TARGETS = {0.9: 1.0, 0.95: 1.5, 0.99: 1.0}


def measure(session: Session) -> None:
    session.compare_sets_at(
        SETS,
        PEERS,
        threads=session.threads(THREADS),
        # What takes least memory has a definition of its own.
        only=lambda parameters: (
            parameters.family not in (COMPACT, GRAPH, COMPACT_GRAPH)
            and parameters.build.get("workload", "batch") == "batch"
        ),
    )


def claims(session: Session) -> None:
    session.claim_at_recalls(TARGETS)
