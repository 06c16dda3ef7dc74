"""A process that is killed while it saves leaves what was there, or what it saved, whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import nearest
import numpy as np
import pytest

# Saves two indexes in turns, of which one has twice the rows of the other, until somebody kills it.
SAVING = """
import sys
import numpy as np, nearest
path, structure, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(seed)
options = {"exact": {}, "lists": {"structure": nearest.Lists(16)}, "graph": {"structure": nearest.Graph()}}[structure]
turns = []
for n in (3000, 6000):
    index = nearest.Index(24, **options)
    index.add(rng.standard_normal((n, 24)).astype(np.float32))
    turns.append(index)
turns[0].save(path)
print("saved", flush=True)
while True:
    for index in reversed(turns):
        index.save(path)
"""


def killed(folder: Path, structure: str, n_kills: int) -> set[int]:
    """How many rows were found after each of so many kills; every time they were all there."""
    random = np.random.default_rng(1)
    path, sizes = folder / "index.nearest", set()
    for seed in range(n_kills):
        command = [sys.executable, "-c", SAVING, str(path), structure, str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"saved\n"
            time.sleep(random.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        rng = np.random.default_rng(seed)
        vectors = {n: rng.standard_normal((n, 24)).astype(np.float32) for n in (3000, 6000)}
        index = nearest.open(path)
        assert len(index) in vectors
        assert np.array_equal(index.get(index.ids), vectors[len(index)][index.ids])
        found = index.search(vectors[len(index)][:100], 1, effort=None if structure == "exact" else 64)
        assert (found.ids[:, 0] == np.arange(100)).mean() > 0.9
        assert index.stats().get("unreachable", 0) == 0
        sizes.add(len(index))
        # What is there can be saved over.
        index.save(path)
    return sizes


@pytest.mark.parametrize("structure", ["exact", "lists", "graph"])
def test_a_killed_save_leaves_a_whole_index(tmp_path: Path, structure: str) -> None:
    assert killed(tmp_path, structure, 3) <= {3000, 6000}


@pytest.mark.long
@pytest.mark.parametrize("structure", ["exact", "lists", "graph"])
def test_a_hundred_killed_saves(tmp_path: Path, structure: str) -> None:
    assert killed(tmp_path, structure, 100) == {3000, 6000}
    assert [path.name for path in tmp_path.iterdir()] == ["index.nearest"]
