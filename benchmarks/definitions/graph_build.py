"""Seconds to build a graph on 2 threads, and vectors a second that are added to one, against hnswlib and faiss.

Ours is what `nearest.build(vectors, recall=0.95)` makes for single queries, its choosing and its calibration included;
the others build with the settings that people take, and measure nothing. Then the same index of the first half of the
vectors takes the others, a thousand at a time: once they are added, they are found. All in turns, each time in a new
process; what came out is asked once for its recall@10 at an effort of 64.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from nearest.bench import report, runner

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet", "photos")
OURS = "nearest"
# What is told to whose adapter, and the effort in its words.
PEERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "hnswlib, degree 16, ef_build 200": ("hnswlib", {"degree": 16, "ef_build": 200}, {"ef": 64}),
    "faiss HNSW32_SQ8": ("faiss", {"factory": "HNSW32_SQ8"}, {"ef": 64}),
}
BUILDS, PART, EFFORT, K = 3, 1024, 64, 10
# Times as fast as a peer, to build at once and to add.
BUILD_TARGETS = {"hnswlib, degree 16, ef_build 200": 4.0, "faiss HNSW32_SQ8": 1.0}
ADD_TARGETS = {"hnswlib, degree 16, ef_build 200": 2.0}

_got: dict[str, dict[str, list[dict[str, Any]]]] = {}


def measure(session: Session) -> None:
    for spec in session.sets(SETS):
        data = session.data(spec)
        if data is None:
            continue
        got: dict[str, list[dict[str, Any]]] = {name: [] for name in (OURS, *PEERS)}
        for turn in range(1 if session.quick else BUILDS):
            for name, runs in got.items():
                session.say(f"{spec}, turn {turn + 1}: {name}")
                one: dict[str, Any] = {}
                for function in ("build", "add"):
                    if function == "add" and name not in (OURS, *ADD_TARGETS):
                        continue
                    with session.worker(name, 2) as worker:
                        arguments = {"data": str(data.folder), "name": name, "seed": session.settings.seed}
                        one |= worker.ask("call", file=__file__, function=function, arguments=arguments)
                runs.append(one)
        _got[spec] = session.figures[spec] = got
        rows = []
        for name, runs in got.items():
            seconds = [one["build_seconds"] for one in runs]
            rates = [one["added_per_second"] for one in runs if "added_per_second" in one]
            rows.append(
                [
                    name,
                    report.duration(_median(runs, "build_seconds")),
                    f"{min(seconds):.2f} – {max(seconds):.2f} s",
                    f"{runs[-1]['recall']:.4f}",
                    f"{report.number(_median(runs, 'added_per_second'))}/s" if rates else "–",
                    f"{min(rates):.0f} – {max(rates):.0f}" if rates else "–",
                    f"{runs[-1]['added_recall']:.4f}" if rates else "–",
                ]
            )
        head = ["method", "build", "builds", f"recall at {EFFORT}", "added", "turns", f"recall at {EFFORT} after"]
        session.table(f"{spec}: building and adding, 2 threads", head, rows, about=str(data))


def build(data: str, name: str, seed: int) -> dict[str, Any]:
    """Called in a process of its own: builds at once."""
    import nearest
    from nearest.bench.data import DataSet

    one = DataSet.load(data)
    started = time.perf_counter()
    if name == OURS:
        options: dict[str, Any] = {"recall": 0.95, "n_threads": 2, "seed": seed, "progress": False}
        index: Any = nearest.build(one.vectors, metric=one.metric, **options)
    else:
        index = _peer(one, one.vectors, name, seed)
    seconds = time.perf_counter() - started
    return {"build_seconds": seconds, "recall": _recall(index, one, name)}


def add(data: str, name: str, seed: int) -> dict[str, Any]:
    """Called in a process of its own: builds of half the vectors and adds the others."""
    from nearest.bench.adapters.base import float32_rows
    from nearest.bench.adapters.nearest import build_graph
    from nearest.bench.data import DataSet

    one = DataSet.load(data)
    n, half = len(one.vectors), len(one.vectors) // 2
    if name == OURS:
        index: Any = build_graph(one.vectors[:half], one.metric, n_threads=2, seed=seed)
        rows, take = one.vectors, index.add
    else:
        index = _peer(one, one.vectors[:half], name, seed)
        index.index.resize_index(n)
        rows = float32_rows(one.vectors, normalised=one.metric == "cosine")

        def take(part: Any) -> None:
            index.index.add_items(part, num_threads=2)

    started = time.perf_counter()
    for first in range(half, n, PART):
        take(rows[first : first + PART])
    rate = (n - half) / (time.perf_counter() - started)
    return {"added_per_second": rate, "added_recall": _recall(index, one, name)}


def _peer(one: Any, vectors: Any, name: str, seed: int) -> Any:
    from nearest.bench import adapters

    adapter, params, _ = PEERS[name]
    return adapters.load(adapter).build(vectors, one.metric, params, 2, seed)


def _recall(index: Any, one: Any, name: str) -> float:
    """Recall of what was built; ids are rows."""
    import nearest
    import numpy as np
    from nearest.bench import truth

    if name == OURS:
        # Of few vectors no graph is made.
        effort = None if isinstance(index.structure, nearest.Exact) else EFFORT
        found = index.search(one.queries, K, effort=effort, n_threads=2).ids
    else:
        index.set_effort(PEERS[name][2], 2)
        found = index.search(index.prepare(one.queries), K).astype(np.int64)
    return truth.score(one.vectors, one.queries, found, one.truth, one.metric).recall


def _median(runs: list[dict[str, Any]], name: str) -> float:
    return runner.spread([one[name] for one in runs])["median"]


def claims(session: Session) -> None:
    for spec, got in _got.items():
        for peer, target in BUILD_TARGETS.items():
            own, other = (_median(got[name], "build_seconds") for name in (OURS, peer))
            measured = f"{other / own:.2f} × ({report.duration(own)} against {report.duration(other)})"
            text = f"{spec}: build with calibration, against {peer}"
            session.claim(text, f"≥ {target:g} × as fast", measured, other / own >= target)
        for peer, target in ADD_TARGETS.items():
            own, other = (_median(got[name], "added_per_second") for name in (OURS, peer))
            measured = f"{own / other:.2f} × ({own:.0f}/s against {other:.0f}/s)"
            text = f"{spec}: adding a thousand at a time, against {peer}"
            session.claim(text, f"≥ {target:g} × as fast", measured, own / other >= target)
