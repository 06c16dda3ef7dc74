"""This library."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import Exact, Index, build, knn_graph
from ..._native import kernels
from .base import Adapter, AllPairs, Array, Built, ParameterSet, SetInfo

BINARY = ("hamming", "jaccard")


class _Index(Built):
    def __init__(self, index: Index, prepared: np.dtype[Any]) -> None:
        self.index, self.prepared = index, prepared
        self.n_threads: int | None = 1

    def prepare(self, queries: Array) -> Any:
        return np.ascontiguousarray(queries, dtype=self.prepared)

    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        self.n_threads = n_threads

    def search(self, queries: Any, k: int) -> Any:
        return self.index.search(queries, k, n_threads=self.n_threads).ids

    def search_one(self, query: Any, k: int) -> Any:
        return self.index.search(query, k, n_threads=self.n_threads).ids

    def memory_bytes(self) -> int | None:
        return int(sum(value for name, value in self.index.stats().items() if name.endswith("_bytes")))

    def scanned_bytes(self) -> int | None:
        index = self.index
        width = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "binary": 1 / 8}[index.encoding]
        # Of rows that have a shadow, its 8 bits a dimension; what survives comes on top.
        n_shadowed = index.stats().get("n_shadowed", 0)
        return int(((len(index) - n_shadowed) * width + n_shadowed) * index.dim)

    def save(self, path: str) -> None:
        self.index.save(path)


class _AllPairs(AllPairs):
    def __init__(self, vectors: Array, metric: str) -> None:
        self.vectors, self.metric = vectors, metric
        self.n_threads = 1

    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        self.n_threads = n_threads

    def prepare_graph(self, rows: Array) -> None:
        # Each pair is computed once, so a sample of the members would be another thing.
        if len(rows) != len(self.vectors):
            raise NotImplementedError("nearest.knn_graph takes all members at once")

    def knn_graph(self, k: int) -> Any:
        return knn_graph(self.vectors, k, metric=self.metric, exact=True, n_threads=self.n_threads, progress=False).ids


class Nearest(Adapter):
    name = "nearest"
    module = "nearest"
    distributions = ("nearest",)

    def missing(self) -> str | None:
        return None

    def versions(self) -> dict[str, str]:
        from ..machine import native_module

        return native_module()

    def details(self) -> dict[str, Any]:
        return {"kernels": kernels()["level"]}

    def parameters(self, info: SetInfo) -> list[ParameterSet]:
        if info.metric in BINARY:
            return [ParameterSet("exact", {"encoding": "binary"}, exhaustive=True, exact=True)]
        encoding = info.dtype if info.dtype in ("float32", "float16", "int8", "uint8") else "float32"
        sets = [ParameterSet(f"exact {encoding}", {"encoding": encoding}, exhaustive=True, exact=True)]
        if encoding in ("float16", "uint8", "int8"):
            sets.append(ParameterSet("exact float32", {"encoding": "float32"}, exhaustive=True, exact=True))
        if encoding == "float32":
            shadowed = {"encoding": encoding, "shadow": "scalar8"}
            sets.append(ParameterSet(f"exact {encoding} + scalar8 shadow", shadowed, exhaustive=True, exact=True))
        return sets

    def graph_parameters(self, info: SetInfo) -> list[ParameterSet]:
        return [ParameterSet("knn_graph(exact=True)", {"all_pairs": True}, exhaustive=True, exact=True)]

    def build(self, vectors: Array, metric: str, params: dict[str, Any], n_threads: int, seed: int) -> Built:
        if params.get("all_pairs"):
            return _AllPairs(vectors, metric)
        index = build(
            vectors,
            metric=metric,
            structure=Exact(shadow=params.get("shadow")),
            encoding=params["encoding"],
            n_threads=n_threads,
            seed=seed,
            progress=False,
        )
        return _Index(index, np.dtype(np.uint8 if metric in BINARY else np.float32))


ADAPTER = Nearest()
