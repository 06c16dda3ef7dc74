"""ScaNN: brute force, and trees with anisotropic hashing, reordered."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from .base import Adapter, Array, Built, ParameterSet, SetInfo, float32_rows, list_counts, powers

# With more blocks than these it cannot keep the best of all leaves in one heap, and is slower.
_MOST_BLOCKS = 256


class _Searcher(Built):
    def __init__(self, searcher: Any, normalised: bool, scanned: int | None) -> None:
        self.searcher, self.normalised, self.scanned = searcher, normalised, scanned
        self.effort: dict[str, Any] = {}
        self.n_threads = 1

    def prepare(self, queries: Array) -> Any:
        return float32_rows(queries, normalised=self.normalised)

    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        self.effort, self.n_threads = effort, n_threads
        if n_threads > 1:
            self.searcher.set_num_threads(n_threads)

    def search(self, queries: Any, k: int) -> Any:
        if self.n_threads > 1:
            return self.searcher.search_batched_parallel(queries, final_num_neighbors=k, **self.effort)[0]
        return self.searcher.search_batched(queries, final_num_neighbors=k, **self.effort)[0]

    def search_one(self, query: Any, k: int) -> Any:
        return self.searcher.search(query, final_num_neighbors=k, **self.effort)[0]

    def scanned_bytes(self) -> int | None:
        return self.scanned

    def save(self, path: str) -> None:
        os.mkdir(path)
        self.searcher.serialize(path, relative_path=True)


class Scann(Adapter):
    name = "scann"
    module = "scann"
    distributions = ("scann",)
    keeps = True

    def refuses(self, info: SetInfo) -> str | None:
        known = ("euclidean", "sqeuclidean", "cosine", "inner_product")
        return None if info.metric in known else f"it knows {', '.join(known)}"

    def parameters(self, info: SetInfo) -> list[ParameterSet]:
        sets = [ParameterSet("brute force", {}, exhaustive=True, exact=True)]
        leaves = max(1, round(math.sqrt(info.n)))
        if info.n < 2000:
            return sets
        for reorder in (100, 300):
            efforts = tuple(
                {"leaves_to_search": n_leaves, "pre_reorder_num_neighbors": reorder}
                for n_leaves in powers(2, min(leaves, 512))
            )
            params = {"leaves": leaves, "reorder": reorder}
            sets.append(ParameterSet(f"{leaves} leaves, reorder {reorder}", params, efforts))
        return sets

    def sweep_parameters(self, info: SetInfo) -> list[ParameterSet]:
        counts = list_counts(info.n)
        middle = counts[len(counts) // 2]
        dims = max(2, math.ceil(info.dim / _MOST_BLOCKS))
        choices: list[dict[str, Any]] = [{"leaves": leaves, "dims_per_block": dims} for leaves in counts]
        choices.append({"leaves": middle, "dims_per_block": 2 * dims})
        choices.append({"leaves": middle, "dims_per_block": dims, "reorder_as": "bfloat16"})
        if info.metric in ("cosine", "inner_product"):
            # It has it for products only.
            choices.append({"leaves": middle, "dims_per_block": dims, "soar_lambda": 1.5})
        sets = []
        for one in choices:
            efforts = tuple(
                {"leaves_to_search": n_leaves, "pre_reorder_num_neighbors": reorder}
                for reorder in (20, 40, 100, 250, 600)
                for n_leaves in powers(1, one["leaves"])
            )
            names = [f"{one['leaves']} leaves", f"{one['dims_per_block']} dims a block"]
            names += [one["reorder_as"]] if "reorder_as" in one else []
            names += ["SOAR"] if "soar_lambda" in one else []
            sets.append(ParameterSet(", ".join(names), one, efforts))
        return sets

    def build(self, vectors: Array, metric: str, params: dict[str, Any], n_threads: int, seed: int) -> Built:
        scann = self.peer()
        rows = float32_rows(vectors, normalised=metric == "cosine")
        kind = "squared_l2" if metric in ("euclidean", "sqeuclidean") else "dot_product"
        builder = scann.scann_ops_pybind.builder(rows, 10, kind)
        builder.set_n_training_threads(n_threads)
        if "leaves" not in params:
            return _Searcher(builder.score_brute_force().build(), metric == "cosine", int(rows.nbytes))
        builder = builder.tree(
            num_leaves=params["leaves"],
            num_leaves_to_search=max(1, params["leaves"] // 10),
            training_sample_size=min(len(rows), 250_000),
            soar_lambda=params.get("soar_lambda"),
        )
        threshold = 0.2 if kind == "dot_product" else np.nan
        builder = builder.score_ah(params.get("dims_per_block", 2), anisotropic_quantization_threshold=threshold)
        kinds = scann.scann_ops_pybind.scann_builder.ReorderType
        reorder_as = kinds.BFLOAT16 if params.get("reorder_as") == "bfloat16" else kinds.FLOAT32
        builder = builder.reorder(params.get("reorder", 100), quantize=reorder_as)
        return _Searcher(builder.build(), metric == "cosine", None)

    def open(self, folder: str, vectors: Array, metric: str, params: dict[str, Any]) -> Built:
        searcher = self.peer().scann_ops_pybind.load_searcher(os.path.join(folder, "index"))
        return _Searcher(searcher, metric == "cosine", None)


ADAPTER = Scann()
