"""Shared by all tests. They never time anything: speed is measured by `make bench`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("NEAREST_DATA", ROOT.parent / "shared" / "data"))

# The same examples each time; `make test-long` draws new ones, and more.
_CALM = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("default", derandomize=True, max_examples=60, **_CALM)
settings.register_profile("long", max_examples=1000, **_CALM)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261120)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], dict[str, np.ndarray]]:
    """Loads one of the real data sets, or skips."""
    loaded: dict[str, dict[str, np.ndarray]] = {}

    def load(name: str) -> dict[str, np.ndarray]:
        path = SHARED_DATA / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"{path} is not there")
        if name not in loaded:
            with np.load(path) as arrays:
                loaded[name] = {key: arrays[key] for key in arrays.files}
        return loaded[name]

    return load


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program in a process of its own, in an empty folder; fails with its output if it fails or hangs."""

    def run(program: str, *, timeout: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **env},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run
