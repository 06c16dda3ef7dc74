"""USearch: its graph, and its exact search without one."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Adapter, Array, Built, ParameterSet, SetInfo, float32_rows, powers

_METRICS = {"euclidean": "l2sq", "sqeuclidean": "l2sq", "cosine": "cos", "inner_product": "ip"}


class _Graph(Built):
    def __init__(self, index: Any) -> None:
        self.index = index
        self.n_threads = 1

    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        self.n_threads = n_threads
        self.index.expansion_search = effort["ef"]

    def search(self, queries: Any, k: int) -> Any:
        return self.index.search(queries, k, threads=self.n_threads).keys

    def search_one(self, query: Any, k: int) -> Any:
        return self.index.search(query, k, threads=1).keys

    def memory_bytes(self) -> int | None:
        return int(self.index.memory_usage)

    def save(self, path: str) -> None:
        self.index.save(path)


class _Exact(Built):
    def __init__(self, library: Any, rows: Array, metric: str) -> None:
        self.peer, self.rows, self.metric = library, rows, metric
        self.n_threads = 1

    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        self.n_threads = n_threads

    def search(self, queries: Any, k: int) -> Any:
        # The first argument is searched in; its answer for one query has one dimension less.
        matches = self.peer.search(
            self.rows, queries, min(k, len(self.rows)), self.metric, exact=True, threads=self.n_threads
        )
        return np.atleast_2d(matches.keys)

    def search_one(self, query: Any, k: int) -> Any:
        return self.search(query[None], k)[0]

    def scanned_bytes(self) -> int | None:
        return int(self.rows.nbytes)


class Usearch(Adapter):
    name = "usearch"
    module = "usearch"
    distributions = ("usearch",)

    def peer(self) -> Any:
        import importlib

        return importlib.import_module("usearch.index")

    def refuses(self, info: SetInfo) -> str | None:
        return None if info.metric in _METRICS else f"as set up here it knows {', '.join(_METRICS)}"

    def parameters(self, info: SetInfo) -> list[ParameterSet]:
        efs = tuple({"ef": ef} for ef in powers(16, 1024))
        sets = [ParameterSet("exact", {"exact": True}, exhaustive=True, exact=True)]
        for degree, dtype in ((16, "f32"), (32, "f32"), (32, "f16")):
            params = {"degree": degree, "ef_build": 200, "dtype": dtype}
            sets.append(ParameterSet(f"degree {degree}, ef_build 200, {dtype}", params, efs))
        return sets

    def build(self, vectors: Array, metric: str, params: dict[str, Any], n_threads: int, seed: int) -> Built:
        usearch = self.peer()
        rows = float32_rows(vectors)
        if params.get("exact"):
            kinds = usearch.MetricKind
            kind = {"l2sq": kinds.L2sq, "cos": kinds.Cos, "ip": kinds.IP}[_METRICS[metric]]
            return _Exact(usearch, rows, kind)
        index = usearch.Index(
            ndim=rows.shape[1],
            metric=_METRICS[metric],
            dtype=params["dtype"],
            connectivity=params["degree"],
            expansion_add=params["ef_build"],
        )
        index.add(np.arange(len(rows), dtype=np.uint64), rows, threads=n_threads)
        return _Graph(index)


ADAPTER = Usearch()
