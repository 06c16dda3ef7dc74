"""Records of measurements: JSON files that say what was measured, on what, and what came out."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

FORMAT = 1


def plain(value: Any) -> Any:
    """The same as what JSON has: no NaN, no infinity, no numpy numbers.

    Examples
    --------
    >>> plain({"a": float("inf"), "b": (1, 2.5)})
    {'a': None, 'b': [1, 2.5]}
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, float):
        return number if math.isfinite(number) else None
    return number if isinstance(number, (int, bool, str)) else str(number)


def without_paths(value: Any, places: dict[str, str]) -> Any:
    """The same, with names in place of folders of this machine: a record says nothing of whose it is.

    Examples
    --------
    >>> without_paths({"error": ["no file /tmp/x/y"]}, {"/tmp": "<temporary>", "/tmp/x": "<out>"})
    {'error': ['no file <out>/y']}
    """
    if isinstance(value, dict):
        return {without_paths(key, places): without_paths(item, places) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(item, places) for item in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        # The longest first: what lies in one folder may have a name of its own.
        for place in sorted(filter(lambda place: len(place) > 1, places), key=len, reverse=True):
            value = value.replace(place, places[place])
    return value


def new_path(folder: str | os.PathLike[str], date: str, name: str) -> Path:
    """``<date>-<name>.json``, or with a number where that is there: records are never overwritten."""
    path = Path(folder) / f"{date}-{name}.json"
    number = 2
    while path.exists():
        path = Path(folder) / f"{date}-{name}-{number}.json"
        number += 1
    return path


def write(path: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """Writes a record, complete or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_text(json.dumps(plain({"format": FORMAT, **record}), indent=1, ensure_ascii=False) + "\n")
    beside.replace(path)
