"""How long one query of a graph takes, in the middle and at worst, and how far that is from what memory allows.

One query a call, k = 10, one thread, every call timed, in turns with hnswlib (degree 16, ef_build 200), each at the
least effort that reaches a recall. Beside it what a walk does on average: rounds, rows followed, codes compared, rows
compared again; and the least time that these take on this machine: a miss a round where each waits for the one before,
or all lines as fast as memory delivers what is asked for ahead, or all multiply-adds at their peak. Efficiency is the
greatest of these three as a share of the mean time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from nearest.bench import report

if TYPE_CHECKING:
    from session import Session

LIMITS = True
SETS = ("wordnet", "photos")
RECALLS, K = (0.95, 0.99), 10
PEER = {"degree": 16, "ef_build": 200}
OWN_EFFORTS, PEER_EFFORTS = range(10, 400), range(10, 1000)
# Calls of each: what the slowest of a thousand takes is the mean of some twenty.
CALLS = 20_000
GOAL = 0.4
LINE = 64

_got: dict[str, dict[str, Any]] = {}


def measure(session: Session) -> None:
    for spec in session.sets(SETS):
        data = session.data(spec)
        if data is None:
            continue
        session.say(f"{spec}: {data}")
        calls = 500 if session.quick else CALLS
        arguments = {"data": str(data.folder), "calls": calls, "seed": session.settings.seed}
        with session.worker(spec, 1) as worker:
            found = worker.ask("call", file=__file__, function="timed", arguments=arguments)
        for one in found["at"]:
            one["floor"] = _floor(one, found, session.limits)
        _got[spec] = session.figures[spec] = found
        rows = [
            [name, f"{one['recall']:g}", str(effort), *map(report.duration, times.values())]
            for one in found["at"]
            for name, effort, times in (
                ("Graph()", one["effort"], one["own"]),
                ("hnswlib", one["peer_effort"], one["peer"]),
            )
        ]
        head = ["method", "recall", "effort", "mean", "p50", "p90", "p99", "p99.9"]
        session.table(f"{spec}: a call, one query", head, rows, about=f"{data}; 1 thread, {calls:,} calls in turns")
        rows = [
            [
                f"{one['recall']:g}",
                *(f"{one['walk'][name]:.1f}" for name in ("n_rounds", "n_followed", "n_compared", "n_reranked")),
                f"{one['lines']:.0f}",
                *(report.duration(one["floor"][name]) for name in ("rounds", "lines", "products") if one["floor"]),
                report.duration(one["own"]["mean"]),
                f"{100 * one['floor']['efficiency']:.0f} %" if one["floor"] else "–",
            ]
            for one in found["at"]
        ]
        head = ["recall", "rounds", "followed", "compared", "again", "lines"]
        head += ["a miss a round", "all lines", "all products"] if session.limits else []
        session.table(f"{spec}: what a query does", [*head, "mean time", "efficiency"], rows)


def _floor(one: dict[str, Any], found: dict[str, Any], limits: dict[str, Any]) -> dict[str, float] | None:
    """The least time that such a walk takes here, in seconds, by what it is bound by."""
    miss, flight = limits.get("miss_nanoseconds"), limits.get("misses_in_flight")
    rate = limits.get("int8_giga_multiply_adds_per_second")
    if miss is None or flight is None or rate is None:
        return None
    floor = {
        "rounds": one["walk"]["n_rounds"] * miss * 1e-9,
        "lines": one["lines"] * miss / flight * 1e-9,
        "products": one["walk"]["n_compared"] * found["dim"] / rate * 1e-9,
    }
    return {**floor, "efficiency": max(floor.values()) / one["own"]["mean"]}


def timed(data: str, calls: int, seed: int) -> dict[str, Any]:
    """Called in a process of its own: times single calls."""
    import numpy as np
    from nearest.bench import adapters, truth
    from nearest.bench.adapters.nearest import build_graph
    from nearest.bench.data import DataSet

    one = DataSet.load(data)
    index = build_graph(one.vectors, one.metric, n_threads=2, seed=seed)
    peer = adapters.load("hnswlib").build(one.vectors, one.metric, PEER, 2, seed)
    prepared = peer.prepare(one.queries)
    queries = np.ascontiguousarray(one.queries, np.float32)

    def score(found: Any) -> float:
        return truth.score(one.vectors, one.queries, np.asarray(found, np.int64), one.truth, one.metric).recall

    def own_recall(effort: int) -> float:
        return score(index.search(queries, K, effort=effort, n_threads=2).ids)

    def peer_recall(effort: int) -> float:
        peer.set_effort({"ef": effort}, 2)
        return score(peer.search(prepared, K))

    at = []
    for recall in RECALLS:
        effort, peer_effort = _least(own_recall, OWN_EFFORTS, recall), _least(peer_recall, PEER_EFFORTS, recall)
        peer.set_effort({"ef": peer_effort}, 1)
        times = _times(
            lambda row, effort=effort: index.search(queries[row], K, effort=effort, n_threads=1),
            lambda row: peer.search_one(prepared[row], K),
            len(queries),
            calls,
            seed,
        )
        walk = index.search(queries, K, effort=effort, n_threads=1, explain=True).explanation
        assert walk is not None
        counts = {name: walk[name] for name in ("n_rounds", "n_followed", "n_compared", "n_reranked")}
        at.append(
            {
                "recall": recall,
                "effort": effort,
                "peer_effort": peer_effort,
                "own": times[0],
                "peer": times[1],
                "walk": counts,
                "lines": _lines(index, counts),
            }
        )
    return {"index": repr(index), "dim": one.dim, "at": at}


def _lines(index: Any, walk: dict[str, float]) -> float:
    """Cache lines that a query reads: codes and what lies beside them, links, and what is compared again."""
    half = -(-index.dim // 2)
    beside = 0 if index.encoding in ("uint8", "int8") else 1
    code, links = -(-half // LINE), index.structure.degree * 4 / LINE
    # What is kept of a row beside its code: all of its bytes, or a second code.
    again = -(-index.dim // LINE)
    # Hubs lie side by side, and stay near.
    n_moved = walk["n_compared"] - index.stats()["n_hubs"]
    return n_moved * (code + beside) + walk["n_followed"] * links + walk["n_reranked"] * again


def _least(recall_at: Any, efforts: range, recall: float) -> int:
    """The least effort that reaches a recall, which rises with it."""
    low, high = efforts.start, efforts.stop - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if recall_at(middle) >= recall else (middle + 1, high)
    return low


def _times(own: Any, peer: Any, n_queries: int, calls: int, seed: int) -> list[dict[str, float]]:
    """Mean and percentiles of both, in seconds: a thousand calls of one, a thousand of the other, in random order."""
    import numpy as np

    random = np.random.default_rng(seed)
    taken: list[list[float]] = [[], []]
    clock = time.perf_counter
    while len(taken[0]) < calls:
        order = random.permutation(n_queries).tolist()
        for search, times in zip((own, peer), taken, strict=True):
            for row in order:
                started = clock()
                search(row)
                times.append(clock() - started)
    percentiles = (50, 90, 99, 99.9)
    return [
        {"mean": float(np.mean(times)), **{f"p{p}": float(np.percentile(times, p)) for p in percentiles}}
        for times in taken
    ]


def claims(session: Session) -> None:
    for spec, found in _got.items():
        for one in found["at"]:
            if one["floor"]:
                value = one["floor"]["efficiency"]
                text = f"{spec}, recall {one['recall']:g}: the machine's limit, as a share of the mean"
                session.claim(text, f"≥ {100 * GOAL:.0f} %", f"{100 * value:.0f} %", value >= GOAL)
