"""Annoy. It searches one query at a time, in Python; many queries are a loop on one thread."""

from __future__ import annotations

from typing import Any

from .base import Adapter, Array, Built, ParameterSet, SetInfo, by_loop, float32_rows, powers

_METRICS = {
    "euclidean": "euclidean",
    "sqeuclidean": "euclidean",
    "cosine": "angular",
    "angular": "angular",
    "manhattan": "manhattan",
    "inner_product": "dot",
}


class _Forest(Built):
    def __init__(self, index: Any) -> None:
        self.index = index
        self.search_k = -1

    def prepare(self, queries: Array) -> Any:
        # It reads any sequence item by item; a list is what it reads fastest.
        return float32_rows(queries).tolist()

    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        self.search_k = effort["search_k"]

    def search(self, queries: Any, k: int) -> Any:
        return by_loop(self.search_one, queries, k)

    def search_one(self, query: Any, k: int) -> Any:
        return self.index.get_nns_by_vector(query, k, self.search_k)

    def save(self, path: str) -> None:
        self.index.save(path)


class Annoy(Adapter):
    name = "annoy"
    module = "annoy"
    distributions = ("annoy",)
    searches_with_threads = False

    def refuses(self, info: SetInfo) -> str | None:
        return None if info.metric in _METRICS else f"it knows {', '.join(_METRICS)} of floats"

    def parameters(self, info: SetInfo) -> list[ParameterSet]:
        efforts = tuple({"search_k": search_k} for search_k in powers(200, 51200))
        return [ParameterSet(f"{n_trees} trees", {"n_trees": n_trees}, efforts) for n_trees in (10, 50, 100)]

    def build(self, vectors: Array, metric: str, params: dict[str, Any], n_threads: int, seed: int) -> Built:
        index = self.peer().AnnoyIndex(vectors.shape[1], _METRICS[metric])
        index.set_seed(seed + 1)
        for row, vector in enumerate(float32_rows(vectors)):
            index.add_item(row, vector)
        index.build(params["n_trees"], n_jobs=n_threads)
        return _Forest(index)


ADAPTER = Annoy()
