"""Inverted lists under change: 10 rounds, each removing 20 % of the vectors and adding them again.

At random, and cluster by cluster, so that whole lists empty and fill again. After each round, recall@10, speed and rows
in the lists, dead ones included, at the effort at which the index, as it was built, reached 0.95; an index that is
built anew has that recall again, so that what is lost is what change costs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from nearest.bench import report

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet", "photos")
KINDS = ("at random", "cluster by cluster")
ROUNDS, SHARE, CLUSTERS = 10, 0.2, 60
RECALL, K = 0.95, 10
MOST_LOST, MOST_ROWS = 0.005, 1.1

_got: dict[str, list[dict[str, Any]]] = {}


def measure(session: Session) -> None:
    for spec in session.sets(SETS):
        data = session.data(spec)
        if data is None:
            continue
        for kind in KINDS:
            name = f"{spec}, {kind}"
            session.say(name)
            arguments = {
                "data": str(data.folder),
                "kind": kind,
                "rounds": 3 if session.quick else ROUNDS,
                "seconds": session.settings.turn_seconds,
                "seed": session.settings.seed,
            }
            with session.worker(name, 2) as worker:
                found = worker.ask("call", file=__file__, function="stream", arguments=arguments)
            _got[name] = found.pop("rows")
            session.figures[name] = {**found, "rounds": _got[name]}
            fresh = _got[name][0]
            rows = [
                [
                    "as built" if not one["round"] else str(one["round"]),
                    f"{one['recall']:.4f}",
                    f"{one['recall'] - fresh['recall']:+.4f}",
                    f"{report.number(one['queries_per_second'])}/s",
                    f"{one['queries_per_second'] / fresh['queries_per_second']:.2f}",
                    f"{one['n_entries'] / fresh['n_entries']:.2f}",
                    report.duration(one["remove_seconds"]),
                    report.duration(one["add_seconds"]),
                    report.megabytes(one["memory_bytes"]),
                ]
                for one in _got[name]
            ]
            head = ["round", "recall", "less", "speed", "of fresh", "rows", "remove", "add", "memory"]
            about = f"{data}; effort {found['effort']}, 1 thread; changes on 2"
            session.table(f"{name}: change after change", head, rows, about=about)


def stream(data: str, kind: str, rounds: int, seconds: float, seed: int) -> dict[str, Any]:
    """Called in a process of its own."""
    import numpy as np
    from nearest.bench import lists
    from nearest.bench.data import DataSet

    one = DataSet.load(data)
    n = len(one.vectors)
    n_removed = int(SHARE * n)
    random = np.random.default_rng(seed)
    index = lists.build(one, 2, seed, ids=np.arange(n))
    effort = lists.effort_for(index, one, RECALL, K, 2)
    # In the order of clusters, round and round: every row is removed equally often.
    order = lists.along(lists.clusters(one.vectors, CLUSTERS, seed), n, seed)
    rows = []
    for round in range(rounds + 1):
        remove_seconds = add_seconds = None
        if round:
            if kind == "at random":
                changed = random.permutation(n)[:n_removed]
            else:
                changed = np.take(order, np.arange((round - 1) * n_removed, round * n_removed), mode="wrap")
            started = time.perf_counter()
            index.remove(changed)
            removed = time.perf_counter()
            index.add(one.vectors[changed], changed)
            remove_seconds, add_seconds = removed - started, time.perf_counter() - removed
        stats = index.stats()
        rows.append(
            {
                "round": round,
                "recall": lists.recall_at(index, one, K, effort, 2),
                "queries_per_second": lists.speed(index, one.queries, K, seconds, effort=effort, n_threads=1),
                "remove_seconds": remove_seconds,
                "add_seconds": add_seconds,
                "n_entries": stats["n_entries"],
                "memory_bytes": sum(value for name, value in stats.items() if name.endswith("_bytes")),
            }
        )
    return {"index": repr(index), "effort": effort, "n_changed": n_removed, "rows": rows}


def claims(session: Session) -> None:
    for name, rows in _got.items():
        lost = rows[0]["recall"] - min(one["recall"] for one in rows)
        text = f"{name}: recall lost at equal effort, the worst of {len(rows) - 1} rounds"
        session.claim_most(text, lost, MOST_LOST, lambda value: f"{value:.4f}")
        more = max(one["n_entries"] for one in rows) / rows[0]["n_entries"]
        text = f"{name}: rows in the lists, of those of a fresh build, the most of {len(rows) - 1} rounds"
        session.claim_most(text, more, MOST_ROWS, lambda value: f"{value:.2f}")
