"""Lists and a graph under change: 10 rounds, each removing 20 % of the vectors and adding them again.

At random, and cluster by cluster, so that whole lists empty and fill again. After each round, recall@10, speed,
distances and size (lists: rows in them, dead ones included; graph: bytes), at the effort at which the index, as it was
built, reached 0.95; an index that is built anew has that recall again, so that what is lost is what change costs. Of a
graph what counts is lost at equal distances: below what it found, as it was built, with as many of them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nearest.bench import report

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet:held=6000", "photos:held=6000")
KINDS = ("at random", "cluster by cluster")
ROUNDS, SHARE, CLUSTERS = 10, 0.2, 60
RECALL, K = 0.95, 10
# Times the effort: where a graph, as it was built, is asked how recall grows with distances.
AROUND = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
MOST_LOST, MOST_SIZE = 0.005, 1.1

_got: dict[str, list[dict[str, Any]]] = {}


def measure(session: Session) -> None:
    for spec in session.sets(SETS):
        data = session.data(spec)
        if data is None:
            continue
        for structure, kind in ((structure, kind) for structure in session.structures() for kind in KINDS):
            name = f"{spec}, {structure}, {kind}"
            session.say(name)
            arguments = {
                "data": str(data.folder),
                "structure": structure,
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
                    "–" if one["n_compared"] is None else f"{one['recall'] - one['recall_of_fresh']:+.4f}",
                    f"{report.number(one['queries_per_second'])}/s",
                    f"{one['queries_per_second'] / fresh['queries_per_second']:.2f}",
                    "–" if one["n_compared"] is None else f"{one['n_compared']:.0f}",
                    f"{one['size'] / fresh['size']:.2f}",
                    report.duration(one["remove_seconds"]),
                    report.duration(one["add_seconds"]),
                    report.megabytes(one["memory_bytes"]),
                ]
                for one in _got[name]
            ]
            head = ["round", "recall", "less", "at equal distances", "speed", "of fresh", "distances", "size"]
            head += ["remove", "add", "memory"]
            about = f"{data}; effort {found['effort']}, 1 thread; changes on 2"
            session.table(f"{name}: change after change", head, rows, about=about)


def stream(data: str, structure: str, kind: str, rounds: int, seconds: float, seed: int) -> dict[str, Any]:
    """Called in a process of its own."""
    import numpy as np
    from nearest.bench import lists
    from nearest.bench.data import DataSet

    one = DataSet.load(data)
    n = len(one.vectors)
    n_removed = int(SHARE * n)
    random = np.random.default_rng(seed)
    # In another order than that of their ids, which are kept then: as they are after the first change.
    shuffled = random.permutation(n)
    index = lists.build(replace(one, vectors=one.vectors[shuffled]), 2, seed, ids=shuffled, structure=structure)
    effort = lists.effort_for(index, one, RECALL, K, 2)

    def n_compared(effort: int) -> float | None:
        explained = index.search(one.queries, K, effort=effort, n_threads=2, explain=True).explanation
        return (explained or {}).get("n_compared")

    curve = []
    if structure == "graph":
        around = [max(K, round(effort * times)) for times in AROUND]
        curve = [(n_compared(effort), lists.recall_at(index, one, K, effort, 2)) for effort in around]
    # In the order of clusters, round and round: every row is removed equally often.
    order = lists.along(lists.clusters(one.vectors, CLUSTERS, seed), n, seed)
    rows = []
    for step in range(rounds + 1):
        remove_seconds = add_seconds = None
        if step:
            if kind == "at random":
                changed = random.permutation(n)[:n_removed]
            else:
                changed = np.take(order, np.arange((step - 1) * n_removed, step * n_removed), mode="wrap")
            started = time.perf_counter()
            index.remove(changed)
            removed = time.perf_counter()
            index.add(one.vectors[changed], changed)
            remove_seconds, add_seconds = removed - started, time.perf_counter() - removed
        stats = index.stats()
        memory_bytes = sum(value for name, value in stats.items() if name.endswith("_bytes"))
        distances = n_compared(effort)
        rows.append(
            {
                "round": step,
                "recall": lists.recall_at(index, one, K, effort, 2),
                "recall_of_fresh": float(np.interp(distances, *zip(*curve, strict=True))) if curve else None,
                "queries_per_second": lists.speed(index, one.queries, K, seconds, effort=effort, n_threads=1),
                "remove_seconds": remove_seconds,
                "add_seconds": add_seconds,
                "n_compared": distances,
                "size": stats.get("n_entries", memory_bytes),
                "memory_bytes": memory_bytes,
            }
        )
    return {"index": repr(index), "effort": effort, "n_changed": n_removed, "rows": rows}


def claims(session: Session) -> None:
    for name, rows in _got.items():
        of_fresh = [one["recall_of_fresh"] for one in rows]
        equal = "effort" if None in of_fresh else "distances"
        of_fresh = [rows[0]["recall"]] * len(rows) if None in of_fresh else of_fresh
        lost = max(fresh - one["recall"] for fresh, one in zip(of_fresh, rows, strict=True))
        text = f"{name}: recall lost at equal {equal}, the worst of {len(rows) - 1} rounds"
        session.claim_most(text, lost, MOST_LOST, lambda value: f"{value:.4f}")
        more = max(one["size"] for one in rows) / rows[0]["size"]
        text = f"{name}: size, of that of a fresh build, the most of {len(rows) - 1} rounds"
        session.claim_most(text, more, MOST_SIZE, lambda value: f"{value:.2f}")
