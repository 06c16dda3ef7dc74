"""What an adapter is."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Ids = NDArray[np.int64]


class SetInfo(NamedTuple):
    """What an adapter is told of a set of vectors when it is asked for parameters."""

    n: int
    dim: int
    dtype: str
    metric: str


@dataclass(frozen=True)
class ParameterSet:
    """One way to build an index, and the efforts to search it with.

    Attributes
    ----------
    label : str
        How tables call it.
    build : dict
        What `Adapter.build` is given; JSON.
    efforts : tuple of dict
        What `Built.set_effort` is given, one after another: a curve of recall and speed comes of one build. The first
        knob rises, and does so anew for each choice of the others: a sweep may stop early, and halves steps of it.
    exhaustive : bool
        Every query is compared with every vector: speed is a fraction of what the machine can read or multiply.
    exact : bool
        It claims the true neighbors.
    environment : dict
        Environment variables of its process, where a library can be told things only so.
    family : str
        What it competes as, where that is not simply the library: two kinds of index of one library are two peers.
    asked : float, optional
        The recall that it was asked for when it was built: it has no knob to turn, and is compared at that recall.
    """

    label: str
    build: dict[str, Any] = field(default_factory=dict)
    efforts: tuple[dict[str, Any], ...] = field(default=({},))
    exhaustive: bool = False
    exact: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    family: str = ""
    asked: float | None = None


class Built(ABC):
    """An index that was built, in the process that is measured.

    What is timed is `search` and `search_one` alone, so they do nothing but hand over; `prepare` brings queries into
    the form that the library likes best, and is not timed: a caller may have them so.
    """

    def prepare(self, queries: Array) -> Any:
        """Queries as `search` takes them; `search_one` takes a row of it. C-contiguous float32."""
        return np.ascontiguousarray(queries, dtype=np.float32)

    @abstractmethod
    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        """Before a turn, not timed."""

    @abstractmethod
    def search(self, queries: Any, k: int) -> Any:
        """Ids of the neighbors of many queries, (n_queries, k); -1 or anything out of range in empty places."""

    @abstractmethod
    def search_one(self, query: Any, k: int) -> Any:
        """Ids of the neighbors of one query, (up to k,)."""

    def prepare_graph(self, rows: Array) -> None:
        """Before `knn_graph`, not timed. `rows`: the members whose neighbors are asked for, all of them or a sample."""
        raise NotImplementedError("no search of all pairs")

    def knn_graph(self, k: int) -> Any:
        """Ids of the `k` nearest others of each member that `prepare_graph` named; may hold the member itself, too."""
        raise NotImplementedError("no search of all pairs")

    def memory_bytes(self) -> int | None:
        """What the index takes, by its own account; None if it does not tell."""
        return None

    def scanned_bytes(self) -> int | None:
        """Bytes that one query cannot but read, for exhaustive search; None if nobody knows."""
        return None

    def save(self, path: str) -> None:
        """Write the index to a file (or to several that begin with `path`)."""
        raise NotImplementedError("cannot be saved")

    def file_bytes(self) -> int | None:
        """What it takes on disk; None if it cannot be saved."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                self.save(os.path.join(folder, "index"))
            except NotImplementedError:
                return None
            return folder_bytes(folder)

    def keep(self, folder: str) -> None:
        """Write into an empty folder what `Adapter.open` needs beside the vectors."""
        self.save(os.path.join(folder, "index"))


class AllPairs(Built):
    """What has `knn_graph` and nothing else."""

    def search(self, queries: Any, k: int) -> Any:
        raise NotImplementedError("all pairs only")

    def search_one(self, query: Any, k: int) -> Any:
        raise NotImplementedError("all pairs only")


class Adapter(ABC):
    """A library."""

    name: ClassVar[str]
    module: ClassVar[str]
    """What is imported, and the first of `distributions` that pip knows."""
    distributions: ClassVar[tuple[str, ...]]
    threads_by_environment: ClassVar[bool] = False
    """Whether the number of threads is fixed when the process starts (OMP_NUM_THREADS and the like)."""
    searches_with_threads: ClassVar[bool] = True
    """Whether many queries at once run on several threads; False where a batch is a loop in Python."""
    keeps: ClassVar[bool] = False
    """Whether what was built may be kept on disk for later runs, and read back by `open`."""

    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        # Not imported: that would start its threads in this process.
        if importlib.util.find_spec(self.module) is None:
            return f"{self.name} is not installed (pip install {self.distributions[0]})"
        return None

    def versions(self) -> dict[str, str]:
        """Versions of what it is made of."""
        return {name: importlib.metadata.version(name) for name in self.distributions}

    def details(self) -> dict[str, Any]:
        """What else should be known of it, such as instruction sets; called in the process that is measured."""
        return {}

    def refuses(self, info: SetInfo) -> str | None:
        """Why it cannot search this set, or None."""
        return None

    @abstractmethod
    def parameters(self, info: SetInfo) -> list[ParameterSet]:
        """What is worth a try, exact methods first."""

    def sweep_parameters(self, info: SetInfo) -> list[ParameterSet]:
        """Many approximate ones, as somebody would try who tunes for these vectors: of each family, the one that is
        best at a recall is measured with care."""
        return [one for one in self.parameters(info) if not one.exact]

    def graph_parameters(self, info: SetInfo) -> list[ParameterSet]:
        """Ways to find the neighbors of all members at once; none if it has no such way."""
        return []

    @abstractmethod
    def build(self, vectors: Array, metric: str, params: dict[str, Any], n_threads: int, seed: int) -> Built:
        """Builds an index. `vectors` are mapped from a file and read-only."""

    def open(self, folder: str, vectors: Array, metric: str, params: dict[str, Any]) -> Built:
        """What `Built.keep` left in a folder; as good as built anew."""
        raise NotImplementedError("is not kept on disk")

    def peer(self) -> Any:
        """The library, imported."""
        return importlib.import_module(self.module)


def float32_rows(vectors: Array, *, normalised: bool = False) -> NDArray[np.float32]:
    """A copy in memory, as most libraries take vectors; rows of length 1 for cosine."""
    rows = np.array(vectors, dtype=np.float32, order="C")
    if normalised:
        # In place, block by block: the copy is what the library is charged with.
        for start in range(0, len(rows), 1 << 16):
            block = rows[start : start + (1 << 16)]
            block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return rows


def folder_bytes(folder: str | os.PathLike[str]) -> int:
    """Size of all files in a folder and in those below it."""
    return sum(
        os.stat(os.path.join(place, name), follow_symlinks=False).st_size
        for place, _, names in os.walk(folder)
        for name in names
    )


def list_counts(n: int) -> list[int]:
    """How many lists are worth a try for `n` vectors: three powers of two from about the root of n on, but never fewer
    than 39 vectors a list, of which Faiss would complain.

    Examples
    --------
    >>> list_counts(116_659), list_counts(1_356_381), list_counts(3000)
    ([256, 512, 1024], [1024, 2048, 4096], [64, 76])
    """
    first = 1 << math.ceil(math.log2(max(1.0, 0.7 * math.sqrt(n))))
    return sorted({min(first << step, max(1, n // 39)) for step in range(3)})


def by_loop(search_one: Callable[[Any, int], Any], queries: Any, k: int) -> Ids:
    """Answers one by one, for libraries that have no other way."""
    found = np.full((len(queries), k), -1, np.int64)
    for row, query in enumerate(queries):
        ids = search_one(query, k)
        found[row, : len(ids)] = ids
    return found


def powers(first: int, last: int) -> list[int]:
    """first, 2 first, 4 first, … up to last."""
    values = []
    while first <= last:
        values.append(first)
        first *= 2
    return values


def blas_environments() -> list[tuple[str, dict[str, str]]]:
    """How OpenBLAS is best told which CPU this is: as it finds out itself and, with AVX-512, as it does not.

    OpenBLAS takes newer AMD processors for older ones without AVX-512, at half the speed. A peer is measured both ways;
    its best counts.
    """
    environments: list[tuple[str, dict[str, str]]] = [("", {})]
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        flags = ""
    if " avx512f " in flags:
        environments.append((", OpenBLAS as SkylakeX", {"OPENBLAS_CORETYPE": "SkylakeX"}))
    return environments
