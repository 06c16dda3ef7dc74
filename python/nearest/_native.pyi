"""Types of the native module. Arrays are C-contiguous; shapes and dtypes are checked by `nearest.arrays` before."""

from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

Progress = Callable[[int, int, str], object] | None
Ids = NDArray[np.int64] | list[str]
Knobs = tuple[int | None, int | None]
"""(effort, rerank_k): None where a default is to be taken."""
Found = tuple[NDArray[Any], NDArray[np.float32], NDArray[np.int64]]
"""(ids, distances, counts): ids are int64, or an object array of str; shapes (n, k), (n, k), (n,). For a 1-D query:
exactly what was found, shapes (found,), (found,), and counts of shape (1,)."""

def kernels() -> dict[str, Any]:
    """`level`: the one in use; `available`: all, weakest first; `warning`: text or None."""

def default_n_threads() -> int:
    """How many threads `n_threads=None` means."""

def available_bytes() -> int:
    """How much memory this process may still use."""

def knn(
    vectors: NDArray[Any],
    queries: NDArray[Any],
    k: int,
    metric: str,
    n_threads: int | None,
    progress: Progress,
) -> Found:
    """Exact neighbors by position. `vectors`: float32, float16, int8, uint8 (n, dim); packed bits for hamming and
    jaccard. `queries`: float32 (n, dim) or (dim,), or packed bits."""

def knn_graph(
    vectors: NDArray[Any], k: int, metric: str, n_threads: int | None, progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k nearest others of every vector, each pair computed once; (n, k) padded with -1 and inf."""

def pairwise(
    vectors: NDArray[Any],
    other: NDArray[Any],
    metric: str,
    out: NDArray[np.float32],
    n_threads: int | None,
    progress: Progress,
) -> None:
    """Canonical distances of all pairs into `out` (n, m), which may be part of a memory map."""

def kmeans(
    vectors: NDArray[Any],
    k: int,
    n_iterations: int,
    spherical: bool,
    balanced: bool,
    hierarchical: bool | None,
    weights: NDArray[np.float32] | None,
    max_points_per_centroid: int,
    seed: int,
    n_threads: int | None,
    progress: Progress,
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    """Centroids (k, dim), the mean squared distance in each iteration, and how many vectors each centroid had last."""

def kmeans_rows(n: int, k: int, max_points_per_centroid: int, seed: int) -> NDArray[np.int64] | None:
    """Which of `n` vectors `kmeans` would use, in ascending order; None where it uses all."""

def assign(
    vectors: NDArray[Any], centroids: NDArray[np.float32], n_threads: int | None, progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest centroid of every vector, and the squared distance from it."""

def write_file(path: str, kind: str, meta: str, arrays: dict[str, NDArray[Any]]) -> None:
    """Writes a checked file of named arrays: beside, synced, renamed."""

def read_file(path: str, kind: str, memory_map: bool) -> tuple[str, dict[str, NDArray[Any]]]:
    """The meta text and the arrays (read-only; views of the map if asked for)."""

def verify(path: str) -> dict[str, Any]:
    """Checks every byte; a FormatError names what is wrong. Returns what `describe` does."""

def describe(path: str) -> dict[str, Any]:
    """What a file says of itself, from its table alone.

    `kind`, `version`, `file_bytes`, `meta`, `spec` (of an index) and `sections` (name, dtype, shape, bytes)."""

@final
class Index:
    def __new__(
        cls,
        dim: int,
        metric: str,
        structure: tuple[str, int, int] | None,
        encoding: str,
        rerank: str | None,
        shadow: str | None,
        seed: int,
    ) -> Index: ...
    @staticmethod
    def open(path: str, memory_map: bool) -> Index: ...
    @staticmethod
    def from_bytes(data: bytes) -> Index: ...
    def to_bytes(self) -> bytes: ...
    def save(self, path: str) -> None: ...
    def snapshot(self) -> Snapshot: ...
    def stage(self) -> Stage: ...
    def train(
        self,
        n: int,
        vectors: NDArray[Any],
        rows: NDArray[np.int64] | None,
        n_threads: int | None,
        progress: Progress,
    ) -> None:
        """Makes the lists or codes of an index that is to hold `n` vectors like these, or like some rows of them."""
    def empty_copy(self) -> Index:
        """An empty index whose lists or codes were made as this one's."""
    def link(self, n_threads: int | None, progress: Progress) -> None:
        """Links the vectors of a graph that wait."""
    def set_calibration(self, text: str) -> None:
        """Keeps text with the index; an empty one is forgotten."""
    def remove(self, ids: Ids, progress: Progress) -> int:
        """Removes those that are there, atomically; returns how many."""
    @property
    def dim(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def encoding(self) -> str: ...
    @property
    def rerank(self) -> str | None: ...
    @property
    def structure(self) -> tuple[str, int, int] | None:
        """None: exact; "lists", how many (0: not chosen yet) and hundredths of the vectors in a second one; "graph",
        degree and ef_build."""
    @property
    def shadow(self) -> str | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def read_only(self) -> bool: ...

@final
class Stage:
    """One atomic change: appended blocks are unseen until `commit`, and gone if it is dropped before."""
    def append(self, vectors: NDArray[Any], ids: Ids | None, n_threads: int | None, progress: Progress) -> None:
        """`vectors`: (n, dim) float32, or the dtype of the encoding; packed bits for binary. Refuses NaN, infinity,
        values the encoding cannot hold, zero vectors under cosine and angular, ids that are there (unless `commit`
        replaces them), repeated ids, negative ids, the wrong kind of ids."""
    def append_from(self, snapshot: Snapshot) -> bool:
        """All vectors of another index with their ids, codes as they are; False, and nothing is staged, where its lists
        were not made as those of this one."""
    def hold(self, places: NDArray[np.int64]) -> None:
        """Those of the vectors appended so far that a graph is not to link yet: `Index.link` does."""
    def commit(self, replace: bool, n_threads: int | None, progress: Progress) -> Ids:
        """Publishes all blocks at once; `replace`: rows that have these ids go in the same instant. Returns the ids."""

@final
class Snapshot:
    """The index at one moment; later changes do not show."""
    def __len__(self) -> int: ...
    def contains(self, id: int | str) -> bool: ...
    @property
    def id_kind(self) -> str:
        """`none` (nothing was added yet), `implicit` (0, 1, 2, …), `int` or `text`."""
    def ids(self) -> Ids:
        """Ids of all live rows, in row order."""
    def get(self, ids: Ids) -> NDArray[Any]:
        """Vectors in the order asked for: float32 for float encodings and bfloat16, else the encoding's own dtype."""
    def search(
        self,
        queries: NDArray[Any],
        k: int,
        knobs: Knobs,
        filter: NDArray[np.bool_] | Ids | None,
        n_threads: int | None,
        progress: Progress,
    ) -> Found:
        """`filter`: a mask in the order of `ids()`, or allowed ids (unknown ones are ignored)."""
    def looked(
        self,
        queries: NDArray[Any],
        k: int,
        knobs: Knobs,
        filter: NDArray[np.bool_] | Ids | None,
        n_threads: int | None,
    ) -> dict[str, int] | None:
        """How that search goes, all queries together: `n_walks`, `n_scans`, `n_rounds`, `n_followed`, `n_compared` and
        `n_reranked`; None where no graph is walked along."""
    def neighbors_of(
        self,
        ids: Ids,
        k: int,
        knobs: Knobs,
        filter: NDArray[np.bool_] | Ids | None,
        n_threads: int | None,
        progress: Progress,
    ) -> Found: ...
    def search_radius(
        self,
        queries: NDArray[Any],
        radius: float,
        knobs: Knobs,
        filter: NDArray[np.bool_] | Ids | None,
        n_threads: int | None,
        progress: Progress,
    ) -> list[tuple[NDArray[Any], NDArray[np.float32]]]: ...
    def without(self, ids: Ids, progress: Progress) -> Snapshot:
        """The same without the vectors of those ids that are there; seen by nobody else."""
    @property
    def calibration(self) -> str | None: ...
    @property
    def is_trained(self) -> bool:
        """Whether its codes, and lists or links, were made."""
    def stats(self) -> dict[str, Any]:
        """Counts and bytes, by part."""
