"""All queries at once, k = 10, 1 thread: the graph of `graph-single` against hnswlib, at recall 0.90, 0.95 and 0.99.

Whoever asks many questions at once should take lists (`lists-batch`); a graph must not be slower so than one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.bench.adapters.nearest import GRAPH

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet", "photos")
PEERS = ("nearest", "hnswlib")


def measure(session: Session) -> None:
    # Peers of one kind name none.
    session.compare_sets_at(SETS, PEERS, only=lambda parameters: parameters.family in (GRAPH, ""))


def claims(session: Session) -> None:
    # Where definitions run, and only there.
    from session import load_definition

    session.claim_against("hnswlib", load_definition("graph-single").HNSWLIB)
