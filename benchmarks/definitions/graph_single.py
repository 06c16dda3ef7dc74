"""One query a call, k = 10, 1 thread: a graph with the same settings on every set against the best of others, at recall
0.90, 0.95 and 0.99.

Peers are swept over all their parameter sets, as in `lists-single`; the graph is `Graph()` over codes of 4 bits
compared again by codes of 8, or over uint8 as they are. What `nearest.build` chooses when it is asked for that recall
stands beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.bench import sweep
from nearest.bench.adapters.nearest import ASKED, GRAPH

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet", "photos", "photos1m", "patches", "synthetic500k", "products100k")
PEERS = ("nearest", "hnswlib", "faiss", "scann", "svs")
# Of the best peer's speed, and of hnswlib's on the sets where others were measured that cannot be installed.
TARGETS = {0.9: 1.5, 0.95: 1.5, 0.99: 1.5}
HNSWLIB = {("wordnet", 0.95): 3.6, ("wordnet", 0.99): 4.1, ("photos", 0.95): 3.9, ("photos", 0.99): 4.5}


def measure(session: Session) -> None:
    session.compare_sets_at(
        SETS,
        PEERS,
        mode="single",
        only=lambda parameters: (
            parameters.family == GRAPH
            or (parameters.family == ASKED and parameters.build["workload"] == "single")
            # Peers of one kind name none.
            or not (parameters.family and sweep.is_own(parameters.family))
        ),
    )


def claims(session: Session) -> None:
    session.claim_at_recalls(TARGETS)
    session.claim_against("hnswlib", HNSWLIB)
