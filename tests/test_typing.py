"""The types: of the package, of the native module, and as users see them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

pytest.importorskip("mypy")


def check(*command: str, cwd: Path = ROOT) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if " note: " not in line]
    assert done.returncode == 0, "\n".join(said)


def test_the_package_is_clean_under_strict(tmp_path: Path) -> None:
    check("mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache"))


def test_the_stub_says_what_the_native_module_has(tmp_path: Path) -> None:
    # Names of types, and what PyO3 adds by itself.
    allowed = tmp_path / "allowed"
    allowed.write_text(
        "".join(f"nearest._native.{name}\n" for name in ("Found", "Ids", "Knobs", "Progress", "__all__"))
    )
    config = ["--mypy-config-file", str(ROOT / "pyproject.toml"), "--allowlist", str(allowed)]
    check("mypy.stubtest", "nearest._native", *config)


USER = """
import uuid
from pathlib import Path
from typing_extensions import assert_type
import numpy as np
from numpy.typing import NDArray
from typing import Any
import nearest

vectors = np.ones((10, 4), np.float32)
found = nearest.knn(vectors, vectors[0], 3, metric="cosine")
assert_type(found, nearest.Neighbors)
ids, distances = found
assert_type(distances, NDArray[np.float32])
index = nearest.build([[1.0, 2.0]], ids=["a"], progress=lambda done, total, stage: print(done))
assert_type(index.add(vectors, [uuid.uuid4()]), NDArray[Any])
index.add(vectors, range(10))
index.add(vectors[0], 5)
index.upsert(vectors, np.arange(10))
index.search(vectors, filter=[True, False])
index.search(vectors, filter=lambda given: given > 5)
index.search(vectors, filter={"a", "b"}, explain=True)
assert_type(index.search_radius(vectors, 0.5), list[nearest.Neighbors])
table = nearest.knn_graph(vectors)
assert_type(table[0], nearest.Neighbors)
for row in table:
    print(row.counts)
index.save(Path("x"))
opened: nearest.Index = nearest.open(Path("x"))
again: nearest.NeighborTable = nearest.open("x", memory_map=False)
nearest.Index(4, structure=nearest.Exact(shadow="scalar8"))
listed = nearest.build(vectors, structure=nearest.Lists(2, spill=0.5), encoding="scalar4", workload="batch")
assert_type(listed.structure, nearest.Exact | nearest.Lists | nearest.Graph)
assert_type(listed.search(vectors, recall=0.9, rerank_k=20), nearest.Neighbors)
nearest.Index(4, structure=nearest.Lists(), encoding="product(2, 8)", rerank="float16")
nearest.Index(4, structure=nearest.Graph(16, ef_build=64), encoding="scalar4", rerank="scalar8")
assert_type(listed.calibrate(vectors, k=5), nearest.Calibration)
assert_type(nearest.recall(found, np.arange(3)), float)
nearest.pairwise_distances(vectors, metric="euclidean", out=Path("x.npy"))
index.search(vectors, "five")  # type: ignore[arg-type]
index.dim = 5  # type: ignore[misc]
"""


def test_the_api_as_users_write_it(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    config = ["--strict", "--config-file", os.devnull, "--cache-dir", str(tmp_path / "cache")]
    check("mypy", *config, "user.py", cwd=tmp_path)
