"""What an index is made of: its structure and its encoding, as values that can be compared and printed."""

from __future__ import annotations

from typing import Any

from .errors import ArgumentError

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
SHADOWS = ("scalar8",)

# Named in DESIGN.md and not there yet: asking for one is no mistake in spelling.
_PLANNED_STRUCTURES = ("graph", "lists", "forest")
_PLANNED_ENCODINGS = ("scalar8", "scalar4", "product", "rabitq")


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


def one_of(name: str, value: object, choices: tuple[str, ...]) -> str:
    """`value` if it is one of `choices`; else an error that lists them."""
    if isinstance(value, str) and value in choices:
        return str(value)
    raise ArgumentError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def metric_named(metric: object) -> str:
    """The name of a metric, checked."""
    return one_of("metric", metric, METRICS)


def encoding_named(encoding: object) -> str:
    """The name of an encoding that exists, checked."""
    if isinstance(encoding, str) and encoding in _PLANNED_ENCODINGS:
        raise NotImplementedError(f"encoding {encoding!r} is not there yet; what works: {', '.join(ENCODINGS)}")
    return one_of("encoding", encoding, ENCODINGS)


def structure_of(structure: Any, unset: tuple[object, ...] = (None,)) -> Exact | None:
    """The structure asked for, or None where it was left open (`unset`)."""
    if isinstance(structure, Exact):
        return structure
    if any(structure is value or (isinstance(value, str) and structure == value) for value in unset):
        return None
    name = structure if isinstance(structure, str) else type(structure).__name__
    if structure is Exact or name.lower() == "exact":
        raise ArgumentError(f"structure must be a value such as nearest.Exact(), got {structure!r}")
    if name.lower() in _PLANNED_STRUCTURES:
        raise NotImplementedError(f"structure {name!r} is not there yet; what works: nearest.Exact()")
    raise ArgumentError(f"structure must be nearest.Exact(), got {structure!r}")


def check_pair(metric: str, encoding: str) -> None:
    """Bits go with bits: everything else raises, naming what works."""
    if metric in BINARY_METRICS and encoding != "binary":
        raise NotImplementedError(
            f"metric {metric!r} compares bits and works with encoding='binary', got encoding={encoding!r}"
        )
    if encoding == "binary" and metric not in BINARY_METRICS:
        raise NotImplementedError(f"encoding 'binary' works with metric 'hamming' or 'jaccard', got metric={metric!r}")
