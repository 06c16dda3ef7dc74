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
