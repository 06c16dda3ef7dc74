"""SVS: its graph (Vamana) and its inverted lists.

The wheel's compressed encodings, LVQ and LeanVec, run on Intel's processors only: on others the library ends the
process that asks for them. There its float32, float16 and 8-bit integers are what can be compared.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np

from .base import Adapter, Array, Built, ParameterSet, SetInfo, float32_rows, list_counts, powers

_LVQ = {"lvq8": (8, 0), "lvq4x8": (4, 8)}


class _Index(Built):
    def __init__(self, library: Any, index: Any, dtype: str, normalised: bool) -> None:
        self.peer, self.index, self.dtype, self.normalised = library, index, dtype, normalised

    def prepare(self, queries: Array) -> Any:
        rows = float32_rows(queries, normalised=self.normalised)
        return rows.astype(np.uint8) if self.dtype == "uint8" else rows

    def search(self, queries: Any, k: int) -> Any:
        return self.index.search(queries, k)[0]

    def search_one(self, query: Any, k: int) -> Any:
        return self.index.search(query, k)[0][0]


class _Graph(_Index):
    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        if self.index.num_threads != n_threads:
            self.index.num_threads = n_threads
        parameters = self.index.search_parameters
        parameters.buffer_config = self.peer.SearchBufferConfig(effort["ef"], effort["ef"])
        self.index.search_parameters = parameters

    def save(self, path: str) -> None:
        os.mkdir(path)
        self.index.save(*(os.path.join(path, name) for name in ("config", "graph", "data")))


class _Lists(_Index):
    def __init__(self, library: Any, index: Any, dtype: str, normalised: bool, kind: Any) -> None:
        super().__init__(library, index, dtype, normalised)
        self.kind = kind

    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        if self.index.num_threads != n_threads:
            # It has its threads from the moment it was put together.
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "index")
                self.save(path)
                self.index = _open_lists(self.peer, path, self.kind, n_threads)
        self.index.search_parameters = self.peer.IVFSearchParameters(effort["n_probe"], 1.0)

    def save(self, path: str) -> None:
        os.mkdir(path)
        self.index.save(*(os.path.join(path, name) for name in ("config", "data")))


class Svs(Adapter):
    name = "svs"
    module = "svs"
    distributions = ("scalable-vs",)
    keeps = True

    def details(self) -> dict[str, Any]:
        return {"mkl": self.peer().have_mkl()}

    def refuses(self, info: SetInfo) -> str | None:
        known = ("euclidean", "sqeuclidean", "cosine", "inner_product")
        return None if info.metric in known else f"as set up here it knows {', '.join(known)}"

    def parameters(self, info: SetInfo) -> list[ParameterSet]:
        efs = tuple({"ef": ef} for ef in powers(16, 1024))
        return [self._graph(32, 128, "float32", efs), self._graph(64, 200, "float16", efs)]

    def sweep_parameters(self, info: SetInfo) -> list[ParameterSet]:
        efs = tuple({"ef": ef} for ef in powers(10, 1280))
        whole = "uint8" if info.dtype == "uint8" else "float16"
        kinds = [(32, 128, "float32"), (32, 128, whole), (64, 160, whole)]
        if _is_intel():
            kinds += [(64, 160, "lvq8"), (64, 160, "lvq4x8")]
        sets = [self._graph(*kind, efs) for kind in kinds]
        for n_lists in list_counts(info.n):
            efforts = tuple({"n_probe": n_probe} for n_probe in powers(1, n_lists))
            sets.append(ParameterSet(f"IVF {n_lists}, float16", {"n_lists": n_lists, "dtype": "float16"}, efforts))
        return sets

    @staticmethod
    def _graph(degree: int, ef: int, dtype: str, efforts: tuple[dict[str, Any], ...]) -> ParameterSet:
        params = {"degree": degree, "ef_build": ef, "dtype": dtype}
        return ParameterSet(f"Vamana degree {degree}, ef_build {ef}, {dtype}", params, efforts)

    def build(self, vectors: Array, metric: str, params: dict[str, Any], n_threads: int, seed: int) -> Built:
        svs = self.peer()
        normalised = metric == "cosine"
        rows = float32_rows(vectors, normalised=normalised)
        kind = _kind(svs, metric)
        dtype = params["dtype"]
        stored = rows.astype(dtype) if dtype in ("float16", "uint8") else rows
        if "n_lists" in params:
            parameters = svs.IVFBuildParameters(
                num_centroids=params["n_lists"],
                minibatch_size=min(10_000, len(rows)),
                training_fraction=min(1.0, 256 * params["n_lists"] / len(rows)),
                seed=seed + 1,
            )
            clustering = svs.Clustering.build(parameters, rows, kind, num_threads=n_threads)
            index = svs.IVF.assemble_from_clustering(clustering, stored, kind, num_threads=n_threads)
            return _Lists(svs, index, dtype, normalised, kind)
        parameters = svs.VamanaBuildParameters(
            alpha=1.2 if kind == svs.DistanceType.L2 else 0.95,
            graph_max_degree=params["degree"],
            window_size=params["ef_build"],
        )
        if dtype in _LVQ:
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "rows.fvecs")
                svs.write_vecs(rows, path)
                loader = svs.VectorDataLoader(path, svs.DataType.float32, rows.shape[1])
                stored = svs.LVQLoader(loader, *_LVQ[dtype])
                index = svs.Vamana.build(parameters, stored, kind, num_threads=n_threads)
        else:
            index = svs.Vamana.build(parameters, stored, kind, num_threads=n_threads)
        return _Graph(svs, index, dtype, normalised)

    def open(self, folder: str, vectors: Array, metric: str, params: dict[str, Any]) -> Built:
        svs = self.peer()
        path = os.path.join(folder, "index")
        kind, dtype = _kind(svs, metric), params["dtype"]
        if "n_lists" in params:
            return _Lists(svs, _open_lists(svs, path, kind, 1), dtype, metric == "cosine", kind)
        config, graph, data = (os.path.join(path, name) for name in ("config", "graph", "data"))
        stored = svs.LVQLoader(data) if dtype in _LVQ else svs.VectorDataLoader(data, getattr(svs.DataType, dtype))
        queries = svs.DataType.uint8 if dtype == "uint8" else svs.DataType.float32
        index = svs.Vamana(config, svs.GraphLoader(graph), stored, kind, query_type=queries, num_threads=1)
        return _Graph(svs, index, dtype, metric == "cosine")


def _open_lists(svs: Any, path: str, kind: Any, n_threads: int) -> Any:
    return svs.IVF.load(*(os.path.join(path, name) for name in ("config", "data")), kind, num_threads=n_threads)


def _kind(svs: Any, metric: str) -> Any:
    return svs.DistanceType.L2 if metric in ("euclidean", "sqeuclidean") else svs.DistanceType.MIP


def _is_intel() -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            return any("GenuineIntel" in line for line in file)
    except OSError:
        return False


ADAPTER = Svs()
