"""What is installed, and what an import brings in. How long it takes is a benchmark's business."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nearest
import pytest
from conftest import ROOT


def test_an_import_brings_in_numpy_and_nothing_else(run_python: Callable[..., Any]) -> None:
    program = """
import sys
import numpy
before = set(sys.modules)
import nearest
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    brought = set(run_python(program).stdout.split())
    assert "nearest" in brought
    assert brought - {"nearest"} <= sys.stdlib_module_names
    # What is slow to import waits until it is needed.
    assert not brought & {"argparse", "dataclasses", "importlib", "json", "logging", "shutil", "tempfile", "uuid"}


def test_ordinary_use_brings_in_nothing_of_others(run_python: Callable[..., Any], tmp_path: Path) -> None:
    program = """
import json, sys, sysconfig
import numpy as np, nearest
index = nearest.build(np.eye(4), ids=list("abcd"), progress=False)
index.search(np.eye(4), filter=["a"], explain=True)
index.save("x"); nearest.open("x"); nearest.verify("x")
repr(index), index._repr_html_(), index.stats()
table = nearest.knn_graph(np.eye(4)); table.save("y"); nearest.open("y")
nearest.pairwise_distances(np.eye(4), metric="cosine", out="z.npy")
nearest.recall([[1]], [[1]])
site = sysconfig.get_path("purelib")
others = {name.partition(".")[0] for name, module in sys.modules.items()
          if str(getattr(module, "__file__", None)).startswith(site)}
print(json.dumps(sorted(others - {"nearest", "_virtualenv", "_distutils_hack"})))
"""
    assert json.loads(run_python(program).stdout) == ["numpy"]


def test_numpy_is_the_only_requirement() -> None:
    required = importlib.metadata.requires("nearest") or []
    assert [each for each in required if "extra ==" not in each] == ["numpy>=1.24"]
    extras = {match[1] for each in required if (match := re.search(r"extra == ['\"](\w+)['\"]", each))}
    assert extras == {"io", "report", "sklearn", "ray", "peers", "dev"}


def test_metadata() -> None:
    metadata = importlib.metadata.metadata("nearest")
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)
    assert version is not None
    assert nearest.__version__ == metadata["Version"] == version[1]
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="nearest")
    assert script.value == "nearest.cli:main"


def test_what_belongs_to_the_package() -> None:
    folder = Path(nearest.__file__).parent
    assert (folder / "py.typed").exists()
    assert (folder / "_native.pyi").exists()


def test_public_names() -> None:
    assert nearest.__all__ == sorted(nearest.__all__)
    for name in nearest.__all__:
        assert getattr(nearest, name).__doc__, name
        assert getattr(nearest, name).__module__.startswith("nearest")
    with pytest.raises(AttributeError, match="no attribute 'Forest'"):
        nearest.Forest  # noqa: B018


def test_errors_are_what_callers_catch() -> None:
    for error in (nearest.ArgumentError, nearest.FormatError, nearest.ReadOnlyError):
        assert issubclass(error, ValueError)
        assert issubclass(error, nearest.NearestError)
    assert issubclass(nearest.UnknownIdError, KeyError)
    assert issubclass(nearest.UnknownIdError, nearest.ArgumentError)
    assert str(nearest.UnknownIdError("no id 5")) == "no id 5"
