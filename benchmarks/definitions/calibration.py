"""Recall asked against recall got, on at least 5 000 queries that the index has never seen, for k = 1, 10 and 100.

`nearest.build(vectors, workload="batch", recall=0.95)` as anybody would call it, which makes lists, and "single", which
makes a graph; then `search(queries, k, recall=…)`.
The files' own queries are too few for wordnet and photos: there 6 000 rows are held out of the vectors. Then queries of
another kind: these with more and more noise, and noise alone. They must reach the recall, or a `RecallWarning` must
say that they may not.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from nearest.bench import report

if TYPE_CHECKING:
    from nearest.bench.data import DataSet
    from session import Session

SETS = ("wordnet:held=6000", "photos:held=6000", "photos1m", "patches")
ASKED = (0.8, 0.9, 0.95, 0.98, 0.99)
KS = (1, 10, 100)
# Noise, as a share of how far the vectors spread, and the recall that must be reached, or warned of.
NOISE = (0.1, 0.3, 1.0, 3.0)
UNLIKE_ASKED, UNLIKE_LEAST, UNLIKE_QUERIES, UNLIKE_K = 0.95, 0.94, 1000, 10

_got: dict[str, list[dict[str, Any]]] = {}
_unlike: dict[str, list[dict[str, Any]]] = {}


def measure(session: Session) -> None:
    for spec in session.sets(SETS):
        data = session.data(spec)
        if data is None:
            continue
        for structure in session.structures():
            _measure(session, data, spec, structure)


def _measure(session: Session, data: DataSet, spec: str, structure: str) -> None:
    name = f"{spec}, {structure}"
    session.say(f"{name}: {data}, {len(data.queries):,} queries")
    with session.worker(name, 2) as worker:
        workload = {"lists": "batch", "graph": "single"}[structure]
        arguments = {"data": str(data.folder), "workload": workload, "asked": ASKED, "ks": KS}
        found = worker.ask(
            "call", file=__file__, function="ask", arguments={**arguments, "seed": session.settings.seed}
        )
    _got[name], _unlike[name] = found.pop("rows"), found.pop("unlike")
    session.figures[name] = found
    rows = [
        [
            str(one["k"]),
            f"{one['asked']:g}",
            f"{one['recall']:.4f}",
            f"{one['recall_low']:.4f} – {one['recall_high']:.4f}",
            f"{one['recall_worst']:.3f}",
            f"{report.number(one['queries_per_second'])}/s",
        ]
        for one in _got[name]
    ]
    head = ["k", "asked", "got", "95 % interval", "worst 5 %", "speed"]
    session.table(f"{name}: asked and got", head, rows, about=f"{data}, {len(data.queries):,} queries, 2 threads")
    rows = [[one["kind"], f"{one['recall']:.4f}", "warned" if one["warned"] else "no warning"] for one in _unlike[name]]
    about = f"{UNLIKE_QUERIES:,} queries, k = {UNLIKE_K}, recall {UNLIKE_ASKED:g} asked"
    session.table(f"{name}: queries of another kind", ["queries", "got", "warning"], rows, about=about)


def ask(data: str, workload: str, asked: list[float], ks: list[int], seed: int) -> dict[str, Any]:
    """Called in a process of its own: builds once, and asks for every recall."""
    import nearest
    from nearest.bench import truth
    from nearest.bench.data import DataSet

    one = DataSet.load(data)
    started = time.perf_counter()
    index = nearest.build(
        one.vectors, metric=one.metric, workload=workload, recall=0.95, n_threads=2, seed=seed, progress=False
    )
    build_seconds = time.perf_counter() - started
    rows = []
    for k in ks:
        for recall in asked:
            started = time.perf_counter()
            found = index.search(one.queries, k, recall=recall, n_threads=2).ids
            seconds = time.perf_counter() - started
            score = truth.score(one.vectors, one.queries, found, one.truth, one.metric)._asdict()
            speed = {"queries_per_second": len(one.queries) / seconds}
            rows.append({"k": k, "asked": recall, **score, **speed})
    return {
        "build_seconds": build_seconds,
        "index": repr(index),
        "explanation": index.explanation,
        "rows": rows,
        "unlike": _ask_unlike(index, one, seed),
    }


def _ask_unlike(index: Any, one: Any, seed: int) -> list[dict[str, Any]]:
    """Queries of other kinds: what recall they get, and whether they are warned of."""
    import warnings

    import nearest
    import numpy as np
    from nearest.bench import truth

    random = np.random.default_rng(seed)
    queries = np.asarray(one.queries[:UNLIKE_QUERIES], np.float32)
    sample = np.asarray(one.vectors[:: max(1, len(one.vectors) // 10_000)], np.float32)
    centre, spread = sample.mean(axis=0), float(sample.std(axis=0).mean())
    noise = spread * random.standard_normal(queries.shape, dtype=np.float32)
    kinds = {f"noise {share:g} of the spread": queries + share * noise for share in NOISE}
    kinds["noise alone"] = centre + noise
    rows = []
    for kind, asked in kinds.items():
        if one.vectors.dtype == np.uint8:
            asked = asked.round().clip(0, 255)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = index.search(asked, UNLIKE_K, recall=UNLIKE_ASKED, n_threads=2).ids
        true = truth.exact_neighbors(one.vectors, asked, UNLIKE_K, one.metric)
        recall = truth.score(one.vectors, asked, found, true, one.metric).recall
        warned = any(issubclass(each.category, nearest.RecallWarning) for each in caught)
        rows.append({"kind": kind, "recall": recall, "warned": warned})
    return rows


def claims(session: Session) -> None:
    for spec, rows in _unlike.items():
        silent = [one for one in rows if one["recall"] < UNLIKE_LEAST and not one["warned"]]
        told = "; ".join(f"{one['kind']}: {one['recall']:.4f}" for one in silent) or "all"
        text = f"{spec}: queries of another kind reach {UNLIKE_LEAST:g} or are warned of"
        session.claim(text, "all", told, not silent)
    for spec, rows in _got.items():
        for k in KS:
            own = [one for one in rows if one["k"] == k]
            worst = min(own, key=lambda one: one["recall"] - one["asked"])
            text = f"{spec}: recall got for k = {k}, where it falls short most (asked {worst['asked']:g})"
            measured = f"{worst['recall']:.4f}, at most {worst['recall_high']:.4f} with 95 % confidence"
            session.claim(text, f"≥ {worst['asked']:g}", measured, worst["recall_high"] >= worst["asked"])
