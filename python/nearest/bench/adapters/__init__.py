"""The methods that are compared, one file a library.

A library that is not installed is skipped, with the reason. Each says which parameters are worth a try: those that its
documentation recommends and those that a careful user would find, so that its best is what counts.
"""

from __future__ import annotations

from importlib import import_module

from ...errors import ArgumentError
from .base import Adapter, Built, ParameterSet, SetInfo

__all__ = ["NAMES", "Adapter", "Built", "ParameterSet", "SetInfo", "load"]

NAMES = ("nearest", "numpy", "sklearn", "faiss", "hnswlib", "annoy", "usearch", "scann", "svs")


def load(name: str) -> Adapter:
    """The adapter of a library, which need not be installed.

    Examples
    --------
    >>> load("nearest").missing() is None
    True
    """
    if name not in NAMES:
        raise ArgumentError(f"adapter must be one of {', '.join(NAMES)}, got {name!r}")
    adapter: Adapter = import_module(f".{name}", __name__).ADAPTER
    return adapter
