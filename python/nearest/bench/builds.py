"""What other libraries built, kept on disk between runs: graphs take minutes.

A build is found again by everything that made it: library and version, parameters, vectors, seed, threads. This
library's own are never kept: what is measured is what the present code builds. With a build lie what a coarse sweep of
it found (`sweep`), and what it took to build it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .adapters import Adapter
from .adapters.base import Built, folder_bytes
from .data import DataSet

_FORMAT = 1
# No more is kept than this; what does not fit is built again each time.
_MOST_BYTES = int(float(os.environ.get("NEAREST_BENCH_KEPT_GB", "40")) * 1e9)


def place(
    cache: str | os.PathLike[str] | None,
    data: DataSet,
    adapter: Adapter,
    params: dict[str, Any],
    n_threads: int,
    seed: int,
) -> Path | None:
    """The folder of one build, which need not be there; None for a library whose builds are not kept."""
    if cache is None or not adapter.keeps:
        return None
    marks = [_FORMAT, adapter.name, adapter.versions(), params, n_threads, seed]
    marks += [data.about["vectors_sha256"], str(data.vectors.dtype), data.metric]
    digest = hashlib.sha256(json.dumps(marks, sort_keys=True).encode()).hexdigest()[:16]
    return Path(cache) / f"{adapter.name}-{digest}"


def is_kept(folder: Path | None) -> bool:
    """Whether there is something to be read back."""
    return folder is not None and (folder / "built.json").exists()


def keep(folder: Path, built: Built, about: dict[str, Any]) -> bool:
    """Writes a build, complete or not at all; whether it did: not beyond what may be kept in all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        built.keep(str(beside))
        if folder_bytes(folder.parent) > _MOST_BYTES:
            return False
        (beside / "built.json").write_text(json.dumps(about, indent=1) + "\n")
        # What a run that was interrupted left there is not complete.
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return True


def about(folder: Path) -> dict[str, Any]:
    """What building it took, and its sizes."""
    found: dict[str, Any] = json.loads((folder / "built.json").read_text())
    return found


def remembered(folder: Path | None, name: str, make: Callable[[], Any]) -> Any:
    """What lies beside a kept build under a name, or what `make` gives, which is then put there."""
    path = None if folder is None else folder / f"{name}.json"
    if path is not None and is_kept(folder) and path.exists():
        return json.loads(path.read_text())
    made = make()
    if path is not None and is_kept(folder):
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        beside.write_text(json.dumps(made) + "\n")
        beside.replace(path)
    return made
