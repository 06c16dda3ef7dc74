"""Nearest-neighbor search: exact where fast enough, approximate where it must be, with a recall that it can state."""

from .calibration import Calibration, CalibrationPoint, RecallWarning
from .clusters import Assigned, KMeans, kmeans
from .distances import knn, knn_graph, pairwise_distances
from .errors import ArgumentError, FormatError, NearestError, ReadOnlyError, UnknownIdError
from .evaluation import recall
from .index import Index, open, verify
from .neighbors import Neighbors
from .params import Exact, Graph, Lists
from .table import NeighborTable
from .tune import build

__all__ = [
    "ArgumentError",
    "Assigned",
    "Calibration",
    "CalibrationPoint",
    "Exact",
    "FormatError",
    "Graph",
    "Index",
    "KMeans",
    "Lists",
    "NearestError",
    "NeighborTable",
    "Neighbors",
    "ReadOnlyError",
    "RecallWarning",
    "UnknownIdError",
    "build",
    "kmeans",
    "knn",
    "knn_graph",
    "open",
    "pairwise_distances",
    "recall",
    "verify",
]


def __getattr__(name: str) -> str:
    # importlib.metadata costs more than all the rest of this package, and few ask for the version.
    if name == "__version__":
        from importlib.metadata import version

        return version("nearest")
    raise AttributeError(f"module 'nearest' has no attribute {name!r}")
