"""This library."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import Exact, Graph, Index, Lists, build, knn_graph
from ..._native import kernels
from .base import Adapter, AllPairs, Array, Built, ParameterSet, SetInfo, list_counts, powers

BINARY = ("hamming", "jaccard")
# Inverted lists compete as three: what is quickest within 0.55 of the bytes of float32, what takes at most 0.2 of them,
# and what somebody gets who asks for a recall and nothing else.
FAST, COMPACT, ASKED = "nearest fast", "nearest compact", "nearest build(recall=…)"
# Graphs compete with the same settings on every set: the usual ones, and what takes at most 0.3 of the bytes of float32
# (0.4 where vectors are short).
GRAPH, COMPACT_GRAPH = "nearest graph", "nearest graph compact"
COMPACT_DEGREE = 16
RECALLS = (0.9, 0.95, 0.99)
# Vectors that get a second list: as many as the bytes allow.
SPILL = 0.4
COMPACT_SPILL = {"scalar4": 0.2, "rabitq(5)": 0.0}


class _Index(Built):
    def __init__(self, index: Index, prepared: np.dtype[Any]) -> None:
        self.index, self.prepared = index, prepared
        self.n_threads: int | None = 1
        self.effort: dict[str, Any] = {}

    def prepare(self, queries: Array) -> Any:
        return np.ascontiguousarray(queries, dtype=self.prepared)

    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        self.effort, self.n_threads = effort, n_threads

    def search(self, queries: Any, k: int) -> Any:
        return self.index.search(queries, k, n_threads=self.n_threads, **self.effort).ids

    def search_one(self, query: Any, k: int) -> Any:
        return self.index.search(query, k, n_threads=self.n_threads, **self.effort).ids

    def memory_bytes(self) -> int | None:
        return int(sum(value for name, value in self.index.stats().items() if name.endswith("_bytes")))

    def scanned_bytes(self) -> int | None:
        index = self.index
        structure: object = index.structure
        if not isinstance(structure, Exact):
            return None
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

    def sweep_parameters(self, info: SetInfo) -> list[ParameterSet]:
        if info.metric in BINARY:
            return []
        counts = list_counts(info.n)
        whole = "uint8" if info.dtype == "uint8" else "scalar8"
        # 8 bits for batches, fewer and a second look for single queries.
        fast: list[tuple[int, str, str | None]] = [(n, whole, None) for n in counts]
        fast += [(n, short, whole) for short in ("scalar4", "rabitq(2)") for n in counts[1:]]
        compact: list[tuple[int, str, str | None]] = [(n, code, None) for code in COMPACT_SPILL for n in counts[1:]]
        sets = []
        for family, choices in ((FAST, fast), (COMPACT, compact)):
            for n_lists, encoding, rerank in choices:
                efforts = tuple(
                    {"effort": effort} | ({"rerank_k": rerank_k} if rerank_k else {})
                    for rerank_k in ((16, 24, 40, 80) if rerank else (0,))
                    for effort in powers(1, n_lists)
                )
                spill = COMPACT_SPILL[encoding] if family == COMPACT else SPILL
                params: dict[str, Any] = {"n_lists": n_lists, "encoding": encoding, "rerank": rerank, "spill": spill}
                label = f"Lists({n_lists}, spill={spill:g}), {encoding}{f', rerank {rerank}' if rerank else ''}"
                sets.append(ParameterSet(label, params, efforts, family=family))
        encoding, rerank = graph_codes(info.dtype)
        # The same codes of native integers; of others one of 8 bits.
        compact_encoding = "scalar8" if rerank else encoding
        for family, degree, code, again in (
            (GRAPH, Graph().degree, encoding, rerank),
            (COMPACT_GRAPH, COMPACT_DEGREE, compact_encoding, None),
        ):
            params = {"degree": degree, "encoding": code, "rerank": again}
            label = f"{Graph() if family == GRAPH else Graph(degree)}, {code}{f', rerank {again}' if again else ''}"
            efforts = tuple({"effort": effort} for effort in powers(10, 1280))
            sets.append(ParameterSet(label, params, efforts, family=family))
        for workload in ("batch", "single"):
            for recall in RECALLS:
                params = {"workload": workload, "recall": recall}
                label = f"build(recall={recall}, workload={workload!r})"
                sets.append(ParameterSet(label, params, family=ASKED, asked=recall))
        return sets

    def graph_parameters(self, info: SetInfo) -> list[ParameterSet]:
        return [ParameterSet("knn_graph(exact=True)", {"all_pairs": True}, exhaustive=True, exact=True)]

    def build(self, vectors: Array, metric: str, params: dict[str, Any], n_threads: int, seed: int) -> Built:
        if params.get("all_pairs"):
            return _AllPairs(vectors, metric)
        prepared = np.dtype(np.uint8 if metric in BINARY else np.float32)
        if "recall" in params:
            common: dict[str, Any] = {"metric": metric, "n_threads": n_threads, "seed": seed, "progress": False}
            return _Index(build(vectors, workload=params["workload"], recall=params["recall"], **common), prepared)
        if "n_lists" in params:
            return _Index(build_lists(vectors, metric, n_threads=n_threads, seed=seed, **params), prepared)
        if "degree" in params:
            return _Index(build_graph(vectors, metric, n_threads=n_threads, seed=seed, **params), prepared)
        index = build(
            vectors,
            metric=metric,
            structure=Exact(shadow=params.get("shadow")),
            encoding=params["encoding"],
            n_threads=n_threads,
            seed=seed,
            progress=False,
        )
        return _Index(index, prepared)


def build_lists(
    vectors: Array,
    metric: str,
    *,
    n_lists: int,
    encoding: str,
    rerank: str | None = None,
    spill: float = SPILL,
    n_threads: int | None = None,
    seed: int = 0,
    ids: Any = None,
) -> Index:
    """An index of inverted lists, by the very choices named."""
    structure = Lists(n_lists, spill=spill)
    index = Index(vectors.shape[1], metric=metric, structure=structure, encoding=encoding, rerank=rerank, seed=seed)
    index.add(vectors, ids)
    return index


def graph_codes(dtype: str) -> tuple[str, str | None]:
    """What a graph keeps of such vectors: integers as they are, of others two codes."""
    return (dtype, None) if dtype in ("uint8", "int8") else ("scalar4", "scalar8")


def build_graph(
    vectors: Array,
    metric: str,
    *,
    degree: int | None = None,
    encoding: str | None = None,
    rerank: str | None = None,
    n_threads: int | None = None,
    seed: int = 0,
    ids: Any = None,
) -> Index:
    """A graph with its usual settings, but for those named; `rerank` goes with `encoding`."""
    structure = Graph() if degree is None else Graph(degree)
    if encoding is None:
        encoding, rerank = graph_codes(vectors.dtype.name)
    index = Index(vectors.shape[1], metric=metric, structure=structure, encoding=encoding, rerank=rerank, seed=seed)
    index._add(vectors, ids, replace=False, n_threads=n_threads)
    return index


ADAPTER = Nearest()
