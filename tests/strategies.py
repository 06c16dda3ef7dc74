"""Vectors of all kinds, for hypothesis."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from oracle import BITS, NUMBERS

ENCODINGS = ("float32", "float16", "bfloat16", "int8", "uint8")
# What refusals say of the metrics that go with lists, graphs and short codes.
METRICS_LISTED = "goes with the metrics euclidean, sqeuclidean, cosine, angular and inner_product, got metric="
KINDS = ("normal", "grid", "duplicates", "offset", "tiny")


class Case(NamedTuple):
    """A set of vectors and queries that an index of `encoding` holds as they are."""

    metric: str
    encoding: str
    dim: int
    vectors: np.ndarray
    queries: np.ndarray


def make_vectors(rng: np.random.Generator, n: int, dim: int, kind: str, encoding: str = "float32") -> np.ndarray:
    """Vectors that `encoding` holds exactly, none of them zero."""
    if encoding == "binary":
        return np.packbits(rng.random((n, dim)) < 0.4, axis=1)
    if encoding in ("int8", "uint8"):
        low, high = (-3, 4) if kind in ("grid", "duplicates") else (-128, 128)
        shift = 0 if encoding == "int8" else -low
        vectors = (rng.integers(low, high, (n, dim)) + shift).astype(encoding)
    elif kind in ("grid", "duplicates"):
        vectors = rng.integers(-2, 3, (n, dim)).astype(np.float32)
    else:
        scale, offset = {"normal": (1, 0), "offset": (0.1, 100), "tiny": (1e-12, 0)}[kind]
        vectors = (offset + scale * rng.standard_normal((n, dim))).astype(np.float32)
        vectors = {"float16": _float16, "bfloat16": _bfloat16}.get(encoding, np.asarray)(vectors)
    if kind == "duplicates" and n:
        vectors = vectors[rng.integers(0, max(1, n // 3), n)]
    vectors[~vectors.any(axis=1), 0] = 1
    return vectors


def _float16(vectors: np.ndarray) -> np.ndarray:
    return vectors.astype(np.float16).astype(np.float32)


def _bfloat16(vectors: np.ndarray) -> np.ndarray:
    return (vectors.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def groups(n: int, dim: int, seed: int, *, n_groups: int = 60, spread: float = 1.0) -> np.ndarray:
    """Vectors about places that are the same for every seed: what lists are made for."""
    places = 1.5 * np.random.default_rng(5).standard_normal((n_groups, dim))
    rng = np.random.default_rng(seed)
    return (places[rng.integers(0, n_groups, n)] + spread * rng.standard_normal((n, dim))).astype(np.float32)


@st.composite
def cases(draw: st.DrawFn, *, min_n: int = 0, max_n: int = 130, encodings: tuple[str, ...] = ENCODINGS) -> Case:
    """Any metric, encoding, size and kind. Arrays come from a drawn seed: quicker than number by number."""
    metric = draw(st.sampled_from(NUMBERS + BITS))
    encoding = "binary" if metric in BITS else draw(st.sampled_from(encodings))
    dim = draw(st.integers(1, 130))
    kind = draw(st.sampled_from(KINDS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, n_queries = draw(st.integers(min_n, max_n)), draw(st.integers(0, 9))
    vectors = make_vectors(rng, n, dim, kind, encoding)
    queries = make_vectors(rng, n_queries, dim, kind, encoding if encoding == "binary" else "float32")
    return Case(metric, encoding, dim, vectors, queries)
