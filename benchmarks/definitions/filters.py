"""Filtered search of lists and of a graph: filters that pass 50, 10, 1 and 0.1 %, of three kinds.

At random; along clusters, so that most lists have nothing that passes; and against the queries, passing the rows that
are farthest from all of them, so that what passes is never where a query looks first. At the effort that reaches
recall@10 0.95 without a filter; beside it, exact search with the same filter. Recall is against float64 brute force
over what passes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nearest.bench import report

if TYPE_CHECKING:
    from nearest.bench.data import DataSet
    from session import Session

SETS = ("wordnet", "photos", "photos1m")
SHARES = (0.5, 0.1, 0.01, 0.001)
KINDS = ("at random", "along clusters", "against the queries")
CLUSTERS = 200
RECALL, K = 0.95, 10
# The true neighbors of more take long where vectors are many.
MOST_QUERIES = 1000
LEAST_RECALL = 0.95

_got: dict[str, list[dict[str, Any]]] = {}


def measure(session: Session) -> None:
    for spec in session.sets(SETS):
        data = session.data(spec)
        if data is None:
            continue
        for structure in session.structures():
            _measure(session, data, spec, structure)


def _measure(session: Session, data: DataSet, spec: str, structure: str) -> None:
    name = f"{spec}, {structure}"
    session.say(f"{name}: {data}")
    arguments = {
        "data": str(data.folder),
        "structure": structure,
        "seconds": session.settings.turn_seconds,
        "seed": session.settings.seed,
    }
    with session.worker(name, 1) as worker:
        found = worker.ask("call", file=__file__, function="filtered", arguments=arguments)
    _got[name] = found.pop("rows")
    session.figures[name] = {**found, "filters": _got[name]}
    rows = [
        [
            one["kind"],
            f"{100 * one['share']:g} %",
            f"{one['n_passed']:,}",
            f"{one['recall']:.4f}",
            f"{report.number(one['queries_per_second'])}/s",
            f"{report.number(one['exact_queries_per_second'])}/s",
            str(one["n_short"]),
            str(one["n_foreign"]),
        ]
        for one in _got[name]
    ]
    head = ["filter", "passes", "rows", "recall", "speed", "exact", "short", "foreign"]
    about = f"{data}; effort {found['effort']}, 1 thread, all queries at once"
    session.table(f"{name}: filters", head, rows, about=about)


def filtered(data: str, structure: str, seconds: float, seed: int) -> dict[str, Any]:
    """Called in a process of its own."""
    import nearest
    import numpy as np
    from nearest.bench import lists, truth
    from nearest.bench.data import DataSet

    one = DataSet.load(data)
    one = replace(one, queries=one.queries[:MOST_QUERIES], truth=one.truth[:MOST_QUERIES])
    n = len(one.vectors)
    index = lists.build(one, 2, seed, structure=structure)
    exact = nearest.build(one.vectors, metric=one.metric, structure=nearest.Exact(), progress=False)
    effort = lists.effort_for(index, one, RECALL, K, 1)
    which = lists.clusters(one.vectors, CLUSTERS, seed)
    orders = {
        "at random": np.random.default_rng(seed).permutation(n),
        "along clusters": lists.along(which, n, seed),
        "against the queries": np.argsort(lists.closeness(one), kind="stable"),
    }
    rows = []
    for kind, share in [("none", 1.0), *((kind, share) for kind in KINDS for share in SHARES)]:
        passed = np.sort(orders[kind][: max(1, int(share * n))]) if kind in orders else np.arange(n)
        passes = np.zeros(n, np.bool_)
        passes[passed] = True
        options: dict[str, Any] = {} if kind == "none" else {"filter": passes[index.ids]}
        ids = index.search(one.queries, K, effort=effort, n_threads=1, **options).ids
        there = ids >= 0
        foreign = there & ~passes[np.where(there, ids, 0)]
        # As rows of what passes, which is what the truth is about.
        positions = np.where(there & ~foreign, np.searchsorted(passed, ids), -1)
        some = one.vectors[passed]
        true = one.truth if kind == "none" else truth.exact_neighbors(some, one.queries, K, one.metric)
        score = truth.score(some, one.queries, positions, true, one.metric)
        speed = lists.speed(index, one.queries, K, seconds, effort=effort, n_threads=1, **options)
        options = {} if kind == "none" else {"filter": passes[exact.ids]}
        rows.append(
            {
                "kind": kind,
                "share": share,
                "n_passed": len(passed),
                **score._asdict(),
                "queries_per_second": speed,
                "exact_queries_per_second": lists.speed(exact, one.queries, K, seconds, n_threads=1, **options),
                "n_short": int((there.sum(axis=1) != min(K, len(passed))).sum()),
                "n_foreign": int(foreign.sum()),
            }
        )
    return {"index": repr(index), "effort": effort, "rows": rows}


def claims(session: Session) -> None:
    for spec, rows in _got.items():
        short, foreign = (sum(one[name] for one in rows) for name in ("n_short", "n_foreign"))
        session.claim(f"{spec}: answers that are not min(k, matches) long", "0", str(short), short == 0)
        session.claim(f"{spec}: neighbors that do not pass", "0", str(foreign), foreign == 0)
        worst = min(rows, key=lambda one: one["recall"])
        text = f"{spec}: the least recall ({worst['kind']}, {100 * worst['share']:g} %)"
        measured = f"{worst['recall']:.4f}"
        session.claim(text, f"≥ {LEAST_RECALL:g}", measured, worst["recall"] >= LEAST_RECALL)
