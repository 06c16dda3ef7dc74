"""Faiss."""

from __future__ import annotations

import math
import os
from typing import Any

from .base import (
    Adapter,
    AllPairs,
    Array,
    Built,
    ParameterSet,
    SetInfo,
    blas_environments,
    float32_rows,
    list_counts,
    powers,
)
from .numpy import loaded_blas

# Where a search keeps its effort.
_KNOBS = {"n_probe": "nprobe", "ef": "efSearch", "rerank_factor": "k_factor_rf"}


class _Index(Built):
    def __init__(self, library: Any, index: Any, normalised: bool) -> None:
        self.peer, self.index, self.normalised = library, index, normalised

    def prepare(self, queries: Array) -> Any:
        return float32_rows(queries, normalised=self.normalised)

    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        self.peer.omp_set_num_threads(n_threads)
        space = self.peer.ParameterSpace()
        for name, value in effort.items():
            space.set_index_parameter(self.index, _KNOBS[name], value)

    def search(self, queries: Any, k: int) -> Any:
        return self.index.search(queries, k)[1]

    def search_one(self, query: Any, k: int) -> Any:
        return self.index.search(query[None], k)[1][0]

    def memory_bytes(self) -> int | None:
        # What it would write, counted: a copy of it in memory may be more than there is.
        sizes: list[int] = []
        writer = self.peer.PyCallbackIOWriter(lambda data: sizes.append(len(data)))
        self.peer.write_index(self.index, writer)
        # The writer hands over its last bytes when it ends.
        del writer
        return sum(sizes)

    def save(self, path: str) -> None:
        self.peer.write_index(self.index, path)


class _Refined(_Index):
    """With the vectors themselves to compare candidates again with, which need not be kept twice on disk."""

    def __init__(self, library: Any, base: Any, rows: Any, normalised: bool) -> None:
        self.base = base
        super().__init__(library, library.IndexRefineFlat(base, library.swig_ptr(rows)), normalised)

    def keep(self, folder: str) -> None:
        self.peer.write_index(self.base, os.path.join(folder, "index"))


class _Flat(_Index):
    def scanned_bytes(self) -> int | None:
        return int(self.index.ntotal * self.index.code_size)


class _AllPairs(AllPairs):
    def __init__(self, library: Any, rows: Array, kind: Any) -> None:
        self.peer, self.rows, self.kind = library, rows, kind
        self.asked = rows

    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        self.peer.omp_set_num_threads(n_threads)

    def prepare_graph(self, rows: Array) -> None:
        self.asked = self.rows if len(rows) == len(self.rows) else self.rows[rows]

    def knn_graph(self, k: int) -> Any:
        # One more, since every member finds itself; telling it from its duplicates is left to the caller.
        return self.peer.knn(self.asked, self.rows, k + 1, metric=self.kind)[1]


class Faiss(Adapter):
    name = "faiss"
    module = "faiss"
    distributions = ("faiss-cpu",)
    keeps = True

    def details(self) -> dict[str, Any]:
        return {"compiled_for": self.peer().get_compile_options().strip(), **loaded_blas()}

    def refuses(self, info: SetInfo) -> str | None:
        known = ("euclidean", "sqeuclidean", "cosine", "inner_product")
        return None if info.metric in known else f"as set up here it knows {', '.join(known)}"

    def parameters(self, info: SetInfo) -> list[ParameterSet]:
        sets = [
            ParameterSet(f"Flat{name}", {"factory": "Flat"}, exhaustive=True, exact=True, environment=environment)
            for name, environment in blas_environments()
        ]
        # What Faiss has for data that are not float32: bytes and halves as they are, compared one by one.
        if info.dtype == "uint8" and info.metric in ("euclidean", "sqeuclidean"):
            sets.append(ParameterSet("SQ8 direct", {"factory": "SQ8_direct"}, exhaustive=True, exact=True))
        if info.dtype == "float16" and info.metric == "inner_product":
            sets.append(ParameterSet("SQfp16", {"factory": "SQfp16"}, exhaustive=True, exact=True))
        n_lists = max(1, min(1 << round(math.log2(4 * math.sqrt(info.n))), info.n // 39))
        probes = tuple({"n_probe": n_probe} for n_probe in powers(1, min(n_lists, 256)))
        efs = tuple({"ef": ef} for ef in powers(16, 1024))
        sets.append(ParameterSet(f"IVF{n_lists},Flat", {"factory": f"IVF{n_lists},Flat"}, probes))
        if info.dim % 2 == 0 and info.n >= 1000:
            factory = f"IVF{n_lists},PQ{info.dim // 2}x4fs,RFlat"
            reranked = tuple({**probe, "rerank_factor": 8} for probe in probes)
            sets.append(ParameterSet(factory, {"factory": factory}, reranked))
        for degree in (16, 32):
            params = {"factory": f"HNSW{degree},Flat", "ef_build": 200}
            sets.append(ParameterSet(f"HNSW{degree},Flat, ef_build 200", params, efs))
        return sets

    def sweep_parameters(self, info: SetInfo) -> list[ParameterSet]:
        counts = list_counts(info.n)
        middle = counts[len(counts) // 2]
        half, quarter = (max(1, info.dim // per) for per in (2, 4))
        pq = [f"IVF{n},PQ{m}x4fs,RFlat" for m in (half, quarter) for n in counts if info.dim % m == 0]
        # Codes of what is left after the centroid: better ones, and a table for each list that is looked at.
        pq += [f"IVF{middle},PQ{m}x4fsr,RFlat" for m in (half, quarter) if info.dim % m == 0]
        rabitq = [f"IVF{n},RaBitQfs,RFlat" for n in counts]
        rabitq += [f"IVF{middle},{code}" for code in ("RaBitQfs2,RFlat", "RaBitQfs4,Refine(SQ8)", "RaBitQ,RFlat")]
        # It takes a coordinate's sign: the paper turns the vectors at random first.
        rabitq += [f"RR{info.dim},IVF{n},RaBitQfs,RFlat" for n in counts[:2]]
        rabitq += [f"RR{info.dim},IVF{middle},RaBitQfs4", f"RR{info.dim},IVF{middle},RaBitQfs4,RFlat"]
        families = ("IVF-PQ fast-scan", pq, (3, 6, 12, 25, 50)), ("IVF-RaBitQ", rabitq, (4, 10, 25, 60, 150))
        # Batches find their lists, and builds their centroids, by OpenBLAS: as fast as it can be made to be. Threads
        # that spin where they wait make a build of many small steps ten times as long once a CPU is busy otherwise.
        environment = {**blas_environments()[-1][1], "OMP_WAIT_POLICY": "PASSIVE"}
        sets = []
        for family, factories, factors in families:
            for factory in factories:
                n_lists = int(factory.partition("IVF")[2].partition(",")[0])
                refined = "Flat" in factory or "Refine" in factory
                efforts = tuple(
                    {"n_probe": n_probe, "rerank_factor": factor} if refined else {"n_probe": n_probe}
                    for factor in (factors if refined else (1,))
                    for n_probe in powers(1, n_lists)
                )
                params = {"factory": factory}
                sets.append(ParameterSet(factory, params, efforts, environment=environment, family=f"faiss {family}"))
        return sets

    def graph_parameters(self, info: SetInfo) -> list[ParameterSet]:
        return [
            ParameterSet(f"knn{name}", {"all_pairs": True}, exhaustive=True, exact=True, environment=environment)
            for name, environment in blas_environments()
        ]

    def build(self, vectors: Array, metric: str, params: dict[str, Any], n_threads: int, seed: int) -> Built:
        faiss = self.peer()
        faiss.omp_set_num_threads(n_threads)
        rows = float32_rows(vectors, normalised=metric == "cosine")
        kind = faiss.METRIC_L2 if metric in ("euclidean", "sqeuclidean") else faiss.METRIC_INNER_PRODUCT
        if params.get("all_pairs"):
            return _AllPairs(faiss, rows, kind)
        dim = rows.shape[1]
        factory = params["factory"]
        if factory.endswith(",RFlat"):
            base = faiss.index_factory(dim, factory.removesuffix(",RFlat"), kind)
            base.train(rows)
            base.add(rows)
            return _Refined(faiss, base, rows, metric == "cosine")
        if factory == "SQ8_direct":
            index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit_direct, kind)
        else:
            index = faiss.index_factory(dim, factory, kind)
        if "ef_build" in params:
            index.hnsw.efConstruction = params["ef_build"]
        if not index.is_trained:
            index.train(rows)
        index.add(rows)
        flat = factory in ("Flat", "SQ8_direct", "SQfp16")
        return (_Flat if flat else _Index)(faiss, index, metric == "cosine")

    def open(self, folder: str, vectors: Array, metric: str, params: dict[str, Any]) -> Built:
        faiss = self.peer()
        index = faiss.read_index(os.path.join(folder, "index"))
        if params["factory"].endswith(",RFlat"):
            normalised = metric == "cosine"
            return _Refined(faiss, index, float32_rows(vectors, normalised=normalised), normalised)
        return _Index(faiss, index, metric == "cosine")


ADAPTER = Faiss()
