"""hnswlib."""

from __future__ import annotations

import os
from typing import Any

from .base import Adapter, Array, Built, ParameterSet, SetInfo, float32_rows, powers

# Its own cosine is the inner product of rows that it normalises, and queries too, at every search.
_SPACES = {"euclidean": "l2", "sqeuclidean": "l2", "cosine": "ip", "inner_product": "ip"}


class _Graph(Built):
    def __init__(self, index: Any, normalised: bool) -> None:
        self.index, self.normalised = index, normalised

    def prepare(self, queries: Array) -> Any:
        return float32_rows(queries, normalised=self.normalised)

    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        self.index.set_num_threads(n_threads)
        self.index.set_ef(effort["ef"])

    def search(self, queries: Any, k: int) -> Any:
        return self.index.knn_query(queries, k)[0]

    def search_one(self, query: Any, k: int) -> Any:
        return self.index.knn_query(query, k)[0][0]

    def save(self, path: str) -> None:
        self.index.save_index(path)


class Hnswlib(Adapter):
    name = "hnswlib"
    module = "hnswlib"
    distributions = ("hnswlib",)
    keeps = True

    def refuses(self, info: SetInfo) -> str | None:
        return None if info.metric in _SPACES else f"it knows {', '.join(_SPACES)}"

    def parameters(self, info: SetInfo) -> list[ParameterSet]:
        efs = tuple({"ef": ef} for ef in powers(16, 1024))
        return [
            ParameterSet(f"degree {degree}, ef_build {ef}", {"degree": degree, "ef_build": ef}, efs)
            for degree, ef in ((12, 200), (16, 200), (32, 400))
        ]

    def sweep_parameters(self, info: SetInfo) -> list[ParameterSet]:
        efs = tuple({"ef": ef} for ef in powers(10, 1280))
        return [
            ParameterSet(f"degree {degree}, ef_build {ef}", {"degree": degree, "ef_build": ef}, efs)
            for degree, ef in ((16, 100), (16, 200), (24, 200), (32, 300))
        ]

    def build(self, vectors: Array, metric: str, params: dict[str, Any], n_threads: int, seed: int) -> Built:
        index = self.peer().Index(space=_SPACES[metric], dim=vectors.shape[1])
        index.init_index(
            max_elements=len(vectors), ef_construction=params["ef_build"], M=params["degree"], random_seed=seed + 1
        )
        index.add_items(float32_rows(vectors, normalised=metric == "cosine"), num_threads=n_threads)
        return _Graph(index, metric == "cosine")

    def open(self, folder: str, vectors: Array, metric: str, params: dict[str, Any]) -> Built:
        index = self.peer().Index(space=_SPACES[metric], dim=vectors.shape[1])
        index.load_index(os.path.join(folder, "index"), max_elements=len(vectors))
        return _Graph(index, metric == "cosine")


ADAPTER = Hnswlib()
