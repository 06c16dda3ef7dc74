"""Damaged files end in an exception or do no harm: no signal, no panic, no hang, no memory beyond what they justify."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import damage
import nearest
import numpy as np
import pytest

GOLDEN = Path(__file__).resolve().parent / "golden" / "1"


def _campaign(count: int, seed: int, keep: Path) -> dict[str, Any]:
    print(f"seed {seed}: python tests/damage.py --count {count} --seed {seed}")
    command = [sys.executable, damage.__file__, "--count", str(count), "--seed", str(seed), "--keep", str(keep)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.stdout, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    print({key: value for key, value in figures.items() if key != "outcomes"})
    assert not figures["failures"], "\n".join(figures["failures"])
    assert done.returncode == 0
    assert figures["files"] == count
    assert figures["repaired"] == count // 2
    assert figures["unchanged"] < count / 20
    # Otherwise the mutations are too weak or too strong to say anything.
    outcomes = figures["outcomes"]
    assert outcomes["open: ok"] > count / 5
    assert outcomes["open: FormatError"] > count / 2
    assert outcomes["search: ok"] > count / 5
    return figures


def test_500_damaged_files(tmp_path: Path) -> None:
    _campaign(500, 1, tmp_path / "kept")


@pytest.mark.long
def test_20_000_damaged_files(tmp_path: Path) -> None:
    _campaign(20_000, int(os.environ.get("NEAREST_SEED", time.time_ns() % 1_000_000_007)), tmp_path / "kept")


def test_the_container_is_what_docs_format_says(tmp_path: Path) -> None:
    for name, file in [*damage.samples(tmp_path), *((path.name, path.read_bytes()) for path in GOLDEN.iterdir())]:
        assert damage.build(damage.parse(file)) == file, name
        assert damage.repair(file) == file, name
        broken = bytearray(file)
        for at in (60, len(file) - 1, len(file) - 36):
            broken[at] ^= 1
        assert damage.repair(bytes(broken)) == file, name


def test_a_seed_gives_the_same_files(tmp_path: Path) -> None:
    originals = list(damage.samples(tmp_path))
    assert [damage.one(3, i, originals) for i in range(40)] == [damage.one(3, i, originals) for i in range(40)]


def _outcome(action: Any, **options: Any) -> str | None:
    return damage.in_child(lambda step: action() or Counter(), file_bytes=1000, **options).wrong


def test_the_campaign_sees_what_goes_wrong() -> None:
    damage.warm()
    assert _outcome(lambda: None) is None
    assert _outcome(os.abort) == "SIGABRT in the start"
    assert _outcome(lambda: os.kill(os.getpid(), 11)) == "SIGSEGV in the start"
    assert _outcome(lambda: time.sleep(100), hang=1) == "a hang in the start"
    assert _outcome(lambda: {}["x"]) == "KeyError: 'x' in the start"
    assert _outcome(lambda: os._exit(0)) == "ended without a word in the start"
    # Asked for, never touched.
    assert "MemoryError" in str(_outcome(lambda: np.empty(damage.MEMORY_BYTES + (1 << 24), np.uint8)))
    assert _outcome(lambda: np.ones(damage.MEMORY_BYTES // 4, np.uint8).sum() and None) is None

    def stepping(step: Any) -> Counter[str]:
        step("first")
        step("second")
        os.abort()

    assert damage.in_child(stepping, file_bytes=0).wrong == "SIGABRT in second"


@pytest.mark.filterwarnings("ignore::nearest.RecallWarning")
def test_undamaged_samples_are_fine(tmp_path: Path) -> None:
    for name, file in damage.samples(tmp_path):
        path = tmp_path / "x"
        path.write_bytes(file)
        outcomes = damage.examine(str(path), lambda step: None)
        bad = {key for key in outcomes if not key.endswith(": ok")}
        assert not bad, (name, outcomes)
        assert nearest.verify(path)["file_bytes"] == len(file)


def _index(dim: int, n: int, ids: list[damage.Section]) -> bytes:
    """A file of uint8 vectors of zeros, whose checksums are right."""
    numbers = np.array([dim, 1, 4, 0, 0, 0, 1 << 40, 0], np.uint64)
    spec = damage.Section(b"spec", damage.U64, [8], numbers.tobytes(), 1)
    vectors = damage.Section(b"vectors", damage.U8, [n, dim], bytes(n * dim), 1)
    return damage.build(damage.Container(b"index", [spec, vectors, *ids]))


def _colliding(n: int) -> np.ndarray:
    """Ids whose hashes end in the same 20 bits, if the hash is the finaliser of splitmix64 and nothing else."""
    x = np.arange(1, 4 * n, dtype=np.uint64) << np.uint64(20)
    for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, None)):
        y = x
        for _ in range(64 // shift + 1):
            y = x ^ (y >> np.uint64(shift))
        x = y if factor is None else y * np.uint64(pow(factor, -1, 1 << 64))
    x -= np.uint64(0x9E3779B97F4A7C15)
    return x[x >> np.uint64(63) == 0][:n].astype(np.int64)


def _forged() -> dict[str, bytes]:
    n = 200_000
    colliding = _colliding(n)
    assert len(np.unique(colliding)) == n
    texts = damage.Section(b"texts", damage.U8, [1 << 20], b"a" * (1 << 20), 1)

    def ints(ids: np.ndarray) -> list[damage.Section]:
        return [damage.Section(b"ids", damage.I64, [n], ids.astype("<i8").tobytes(), 1)]

    def places(start: np.ndarray, length: np.ndarray) -> list[damage.Section]:
        both = np.stack([start, length], 1).astype("<u4")
        return [damage.Section(b"text_places", damage.U32, [n, 2], both.tobytes(), 1), texts]

    rows = np.arange(n)
    return {
        "the same number": _index(1, n, ints(np.full(n, 7))),
        "two numbers": _index(1, n, ints(rows % 2)),
        "numbers with like hashes": _index(1, n, ints(colliding)),
        "the same empty text": _index(1, n, places(0 * rows, 0 * rows)),
        "the same short text": _index(1, n, places(0 * rows, 0 * rows + 3)),
        "the same long text": _index(1, n, places(0 * rows, 0 * rows + (1 << 16))),
        "the same text of a whole chunk": _index(1, n, places(0 * rows, 0 * rows + (1 << 20))),
        "long texts that overlap": _index(1, n, places(rows, 0 * rows + (1 << 15))),
        "texts outside": _index(1, n, places(0 * rows + 0xFFFF_FFFF, 0 * rows + 0xFFFF_FFFF)),
        "wide and empty": _index(32768, 0, []),
    }


def test_forged_files_take_no_more_than_their_bytes_justify(tmp_path: Path) -> None:
    damage.warm()
    path = tmp_path / "forged.nearest"
    for name, file in _forged().items():
        path.write_bytes(file)
        outcome = damage.in_child(lambda step: damage.examine(str(path), step), file_bytes=len(file))
        assert outcome.wrong is None, name
        assert outcome.counts["open: ok"] + outcome.counts["open: FormatError"] == 2, name
