"""Filtered search of lists and of a graph against faiss: filters that pass 50, 10, 1 and 0.1 %, of three kinds.

At random; along clusters, so that most lists have nothing that passes; and against the queries, passing the rows that
are farthest from all of them, so that what passes is never where a query looks first. Recall, against float64 brute
force over what passes, is that at the effort that reaches recall@10 0.95 without a filter; speeds, in turns, are those
at the least effort that reaches it with the filter, of ours and of whatever faiss filters with.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
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

# Of faiss, all that takes a filter: factory, and what is searched harder and harder.
PEERS = {
    "Flat": (None,),
    "HNSW32,Flat": (16, 32, 64, 128, 256, 512, 1024, 2048),
    "IVF{n},Flat": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "IVF{n},PQ{half}x4fs,RFlat": (1, 2, 4, 8, 16, 32, 64, 128, 256),
}
# Candidates that are compared again, times k.
FACTOR = 12
TURNS = 3

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
            str(one["n_short"]),
            str(one["n_foreign"]),
            "–" if one["effort"] is None else str(one["effort"]),
            f"{report.number(one['queries_per_second'])}/s",
            f"{report.number(one['exact_queries_per_second'])}/s",
            "–" if one["peer"] is None else one["peer"]["label"],
            "–" if one["peer"] is None else f"{report.number(one['peer']['queries_per_second'])}/s",
            "–" if one["times_peer"] is None else f"{one['times_peer']:.2f}",
        ]
        for one in _got[name]
    ]
    head = ["filter", "passes", "rows", "recall", "short", "foreign"]
    head += ["least effort", "speed", "exact", "best peer", "its speed", "times it"]
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
    efforts = [None] if isinstance(index.structure, nearest.Exact) else lists.efforts(index, one, K)
    peers = [_Faiss(one, factory, hard) for factory, hard in PEERS.items()]
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
        some = one.vectors[passed]
        true = one.truth if kind == "none" else truth.exact_neighbors(some, one.queries, K, one.metric)

        def score(ids: Any, passed: Any = passed, passes: Any = passes, some: Any = some, true: Any = true) -> Any:
            there = ids >= 0
            foreign = there & ~passes[np.where(there, ids, 0)]
            # As rows of what passes, which is what the truth is about.
            positions = np.where(there & ~foreign, np.searchsorted(passed, ids), -1)
            found = truth.score(some, one.queries, positions, true, one.metric)._asdict()
            n_short = int((there.sum(axis=1) != min(K, len(passed))).sum())
            return {**found, "n_short": n_short, "n_foreign": int(foreign.sum())}

        def ours(of: Any, effort: int | None, kind: str = kind, passes: Any = passes) -> Any:
            options = {} if kind == "none" else {"filter": passes[of.ids]}
            return of.search(one.queries, K, effort=effort, n_threads=1, **options).ids

        methods: dict[str, Any] = {
            "own": _least(lambda effort: ours(index, effort), efforts, score),
            "exact": (None, lambda: ours(exact, None)),
        }
        for peer in peers:
            peer.filter(None if kind == "none" else passes)
            methods[peer.label] = _least(peer.search, peer.efforts, score)
        methods = {label: method for label, method in methods.items() if method is not None}
        speeds = _speeds({label: method[1] for label, method in methods.items()}, len(one.queries), seconds)
        labels = [peer.label for peer in peers if peer.label in speeds]
        best = max(labels, key=lambda label: speeds[label], default=None)
        own = speeds.get("own", 0.0)
        rows.append(
            {
                "kind": kind,
                "share": share,
                "n_passed": len(passed),
                **score(ours(index, effort)),
                "effort": methods["own"][0] if "own" in methods else None,
                "queries_per_second": own,
                "exact_queries_per_second": speeds["exact"],
                "peers": {
                    label: {"effort": methods[label][0], "queries_per_second": speeds[label]} for label in labels
                },
                "peer": None if best is None else {"label": best, "queries_per_second": speeds[best]},
                "times_peer": None if best is None else own / speeds[best],
            }
        )
    return {"index": repr(index), "effort": effort, "rows": rows}


def _least(search: Any, efforts: Any, score: Any) -> Any:
    """The least effort with which answers are whole and good, and a search with it; None if there is none."""
    for effort in efforts:
        found = score(search(effort))
        if found["recall"] >= RECALL and not found["n_short"] and not found["n_foreign"]:
            return effort, partial(search, effort)
    return None


def _speeds(searches: dict[str, Any], n_queries: int, seconds: float) -> dict[str, float]:
    """Queries a second of each, all queries at once, in turns."""
    import numpy as np

    times: dict[str, list[float]] = {label: [] for label in searches}
    for _ in range(TURNS):
        for label, search in searches.items():
            started, n = time.perf_counter(), 0
            while not n or time.perf_counter() - started < seconds:
                search()
                n += 1
            times[label].append((time.perf_counter() - started) / n)
    return {label: n_queries / float(np.median(one)) for label, one in times.items()}


class _Faiss:
    """One kind of index of faiss, and what it is to let pass."""

    def __init__(self, one: DataSet, factory: str, efforts: Any) -> None:
        from nearest.bench import adapters
        from nearest.bench.adapters.base import list_counts

        n_lists = list_counts(len(one.vectors))[-1]
        self.label = factory.format(n=n_lists, half=one.dim // 2)
        self.efforts = efforts
        self.built: Any = adapters.load("faiss").build(one.vectors, one.metric, {"factory": self.label}, 2, 0)
        self.queries = self.built.prepare(one.queries)
        self.built.set_effort({}, 1)
        self.selector: Any = None

    def filter(self, passes: Any) -> None:
        import numpy as np

        self.selector = None
        if passes is not None:
            self.selector = self.built.peer.IDSelectorBitmap(np.packbits(passes, bitorder="little"))

    def search(self, effort: Any) -> Any:
        faiss, sel = self.built.peer, self.selector
        if "HNSW" in self.label:
            params = faiss.SearchParametersHNSW(sel=sel, efSearch=effort)
        elif "IVF" in self.label:
            params = faiss.SearchParametersIVF(sel=sel, nprobe=effort)
        else:
            params = faiss.SearchParameters(sel=sel)
        if "RFlat" in self.label:
            params = faiss.IndexRefineSearchParameters(k_factor=FACTOR, base_index_params=params)
        return self.built.index.search(self.queries, K, params=params)[1]


def claims(session: Session) -> None:
    for spec, rows in _got.items():
        short, foreign = (sum(one[name] for one in rows) for name in ("n_short", "n_foreign"))
        session.claim(f"{spec}: answers that are not min(k, matches) long", "0", str(short), short == 0)
        session.claim(f"{spec}: neighbors that do not pass", "0", str(foreign), foreign == 0)
        against = [one for one in rows if one["times_peer"] is not None]
        if against:
            slowest = min(against, key=lambda one: one["times_peer"])
            text = f"{spec}: against the best of faiss, the least of all filters ({_named(slowest)})"
            measured = f"{slowest['times_peer']:.2f} × ({slowest['peer']['label']})"
            session.claim(text, "≥ 1 ×", measured, slowest["times_peer"] >= 1)
        worst = min(rows, key=lambda one: one["recall"])
        text = f"{spec}: the least recall ({_named(worst)})"
        measured = f"{worst['recall']:.4f}"
        session.claim(text, f"≥ {LEAST_RECALL:g}", measured, worst["recall"] >= LEAST_RECALL)


def _named(one: dict[str, Any]) -> str:
    return f"{one['kind']}, {100 * one['share']:g} %"
