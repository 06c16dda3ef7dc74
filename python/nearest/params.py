"""What an index is made of: its structure and its encoding, as values that can be compared and printed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError

if TYPE_CHECKING:
    from typing import TypeAlias

METRICS = (
    "euclidean",
    "sqeuclidean",
    "cosine",
    "angular",
    "inner_product",
    "manhattan",
    "hamming",
    "jaccard",
)
BINARY_METRICS = ("hamming", "jaccard")
ENCODINGS = ("float32", "float16", "bfloat16", "int8", "uint8", "binary")
SHORT_ENCODINGS = ("scalar8", "scalar4", "product(m, bits)", "rabitq(bits)")
SHADOWS = ("scalar8",)

# Named in DESIGN.md and not there yet: asking for one is no mistake in spelling.
_PLANNED_STRUCTURES = ("forest",)

_SHORT = re.compile(r"scalar8|scalar4|product\(\s*([0-9]{1,5})\s*,\s*([48])\s*\)|rabitq\(\s*([1-8])\s*\)")


class Exact:
    """Compare the query with every vector: always the true neighbors.

    Parameters
    ----------
    shadow : {None, "scalar8"}
        ``"scalar8"`` keeps a second copy of the vectors in 8 bits a dimension, with a proved bound on its error. Only
        vectors that the bound cannot rule out are compared in full, so the answer is the same to the last bit; a
        single query reads about a third of the memory, for a quarter more of it (float32). Goes with the encodings
        float32, float16 and bfloat16, and with every metric on numbers but manhattan.

    Notes
    -----
    There is nothing to tune: ``effort`` and ``rerank_k`` are refused, and any ``recall`` is met, since it is 1.

    Examples
    --------
    >>> import nearest
    >>> nearest.Exact(shadow="scalar8")
    Exact(shadow='scalar8')
    >>> nearest.Exact() == nearest.Exact(shadow=None)
    True
    """

    # By hand rather than a frozen dataclass: `import dataclasses` costs more than all the rest of this package.
    __slots__ = ("_shadow",)
    _shadow: str | None

    def __init__(self, shadow: str | None = None) -> None:
        if shadow is not None and shadow not in SHADOWS:
            raise ArgumentError(f"shadow must be None or 'scalar8', got {shadow!r}")
        self._shadow = shadow

    @property
    def shadow(self) -> str | None:
        """The second, smaller copy that single queries read first."""
        return self._shadow

    def __repr__(self) -> str:
        return "Exact()" if self._shadow is None else f"Exact(shadow={self._shadow!r})"

    def __eq__(self, other: object) -> bool:
        return self._shadow == other._shadow if isinstance(other, Exact) else NotImplemented

    def __hash__(self) -> int:
        return hash((Exact, self._shadow))


class Lists:
    """Look only at the lists of vectors whose centroids are nearest to the query: the fastest way to answer batches.

    Parameters
    ----------
    n_lists : int, optional
        How many lists, at most 1 048 576. None chooses about 2.5 times the root of the number of vectors (1.75 for
        batches in `nearest.build`), once there are enough of them.
    spill : float
        The share of the vectors, from 0 to 1, that are put in a second list because the first covers them badly. More
        takes more memory and finds more at the same effort.

    Notes
    -----
    ``effort`` is the number of lists looked at. Until there are enough vectors to make lists from (32 a list, at least
    1 024; 16 384 where `n_lists` is None), or `nearest.build` makes them, all vectors are looked at. Goes with the
    metrics euclidean, sqeuclidean, cosine, angular and inner_product, and with every encoding but binary. Vectors of
    the encodings float32, float16 and bfloat16 are kept as they are and have a shadow of 8 bits in the lists; int8 and
    uint8 are kept in the lists alone, without loss.

    The second lists are those of SOAR (Sun et al. 2023).

    Examples
    --------
    >>> import nearest
    >>> nearest.Lists(1024)
    Lists(1024)
    >>> nearest.Lists(n_lists=256, spill=1.0)
    Lists(256, spill=1.0)
    """

    __slots__ = ("_n_lists", "_spill")
    _n_lists: int | None
    _spill: float

    def __init__(self, n_lists: int | None = None, *, spill: float = 0.4) -> None:
        if n_lists is not None:
            n_lists = _whole(n_lists, "n_lists", 1, 1 << 20, ", or None")
        if isinstance(spill, (bool, str)) or not hasattr(spill, "__float__") or not 0 <= float(spill) <= 1:
            raise ArgumentError(f"spill must be a number from 0 to 1, got {spill!r}")
        self._n_lists, self._spill = n_lists, round(float(spill), 2)

    @property
    def n_lists(self) -> int | None:
        """How many lists; None: chosen when they are made."""
        return self._n_lists

    @property
    def spill(self) -> float:
        """The share of the vectors that are put in a second list, in hundredths."""
        return self._spill

    def __repr__(self) -> str:
        n_lists = "" if self._n_lists is None else str(self._n_lists)
        spill = "" if self._spill == 0.4 else f"spill={self._spill}"
        return f"Lists({', '.join(part for part in (n_lists, spill) if part)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lists):
            return NotImplemented
        return (self._n_lists, self._spill) == (other._n_lists, other._spill)

    def __hash__(self) -> int:
        return hash((Lists, self._n_lists, self._spill))


class Graph:
    """Walk from neighbor to neighbor towards the query: the fastest way to answer one query, while vectors come and go.

    Parameters
    ----------
    degree : int
        Links of a vector, from 2 to 256. More take more memory (4 bytes each) and find more at the same effort; fewer
        are faster at low recall.
    ef_build : int
        Vectors near a vector that its links are chosen from, from 2 to 1 024. More take longer to build and find a
        little more.

    Notes
    -----
    ``effort`` is about how many candidates a walk keeps, at least `k`. The walk goes on as long as there are candidates
    hardly farther than the k-th (the tenth, where `k` is smaller): few where the nearest stand out, many where they do
    not, eight times the effort at most. Under inner_product, where no distance says what is near, and up to an effort
    of 10, exactly as many are kept as the effort says.

    Until there are 1 024 vectors, or `nearest.build` makes the graph, all vectors are looked at. Vectors that are added
    later wait for links until they are 1 024, and are compared with every query meanwhile; of removed ones, links are
    mended when they are a 64th of all. When an eighth was removed since all links were chosen, or a fifth is added at
    once, all are chosen anew, which takes as long as it did at first. Goes with the metrics euclidean, sqeuclidean,
    cosine, angular and inner_product, and with every encoding but binary, product and rabitq. A walk compares 4-bit
    codes of vectors of the encodings float32, float16 and bfloat16, which are kept beside and compared again; int8 and
    uint8 are kept once, without loss.

    One level of links, chosen as HNSW does (Malkov and Yashunin 2016) with the factor of Vamana (Subramanya and others
    2019).

    Examples
    --------
    >>> import nearest
    >>> nearest.Graph()
    Graph()
    >>> nearest.Graph(16, ef_build=96)
    Graph(16, ef_build=96)
    """

    __slots__ = ("_degree", "_ef_build")
    _degree: int
    _ef_build: int

    def __init__(self, degree: int = 32, *, ef_build: int = 48) -> None:
        self._degree = _whole(degree, "degree", 2, 256)
        self._ef_build = _whole(ef_build, "ef_build", 2, 1024)

    @property
    def degree(self) -> int:
        """Links of a vector, at most."""
        return self._degree

    @property
    def ef_build(self) -> int:
        """Vectors near a vector that its links are chosen from."""
        return self._ef_build

    def __repr__(self) -> str:
        degree = "" if self._degree == 32 else str(self._degree)
        ef_build = "" if self._ef_build == 48 else f"ef_build={self._ef_build}"
        return f"Graph({', '.join(part for part in (degree, ef_build) if part)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        return (self._degree, self._ef_build) == (other._degree, other._ef_build)

    def __hash__(self) -> int:
        return hash((Graph, self._degree, self._ef_build))


Structure: TypeAlias = "Exact | Lists | Graph"


def _whole(value: Any, name: str, least: int, most: int, or_else: str = "") -> int:
    if not hasattr(value, "__index__") or isinstance(value, bool) or not least <= value <= most:
        raise ArgumentError(f"{name} must be an integer from {least} to {most}{or_else}, got {value!r}")
    number: int = value.__index__()
    return number


def one_of(name: str, value: object, choices: tuple[str, ...]) -> str:
    """`value` if it is one of `choices`; else an error that lists them."""
    if isinstance(value, str) and value in choices:
        return str(value)
    raise ArgumentError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def metric_named(metric: object) -> str:
    """The name of a metric, checked."""
    return one_of("metric", metric, METRICS)


def encoding_named(encoding: object, name: str = "encoding") -> str:
    """The name of an encoding that exists, checked and written as it is everywhere: ``product(96, 4)``."""
    if isinstance(encoding, str):
        found = _SHORT.fullmatch(encoding.strip())
        if found is not None:
            m, bits, rabitq_bits = found.groups()
            if m is not None:
                return f"product({int(m)}, {bits})"
            return encoding.strip() if rabitq_bits is None else f"rabitq({rabitq_bits})"
    return one_of(name, encoding, ENCODINGS + SHORT_ENCODINGS)


def is_short(encoding: str) -> bool:
    """Whether an encoding keeps less than the vectors: it is trained on some of them."""
    return encoding not in ENCODINGS


def structure_of(structure: Any, unset: tuple[object, ...] = (None,)) -> Structure | None:
    """The structure asked for, or None where it was left open (`unset`)."""
    if isinstance(structure, (Exact, Lists, Graph)):
        return structure
    if any(structure is value or (isinstance(value, str) and structure == value) for value in unset):
        return None
    name = structure if isinstance(structure, str) else getattr(structure, "__name__", type(structure).__name__)
    if name.lower() in _PLANNED_STRUCTURES:
        raise NotImplementedError(
            f"structure {name!r} is not there yet; what works: nearest.Exact(), nearest.Lists(), nearest.Graph()"
        )
    raise ArgumentError(
        f"structure must be a value such as nearest.Exact(), nearest.Lists(1024) or nearest.Graph(), got {structure!r}"
    )


def check_pair(metric: str, encoding: str) -> None:
    """Bits go with bits: everything else raises, naming what works."""
    if metric in BINARY_METRICS and encoding != "binary":
        raise NotImplementedError(
            f"metric {metric!r} compares bits and works with encoding='binary', got encoding={encoding!r}"
        )
    if encoding == "binary" and metric not in BINARY_METRICS:
        raise NotImplementedError(f"encoding 'binary' works with metric 'hamming' or 'jaccard', got metric={metric!r}")
