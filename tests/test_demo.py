"""`nearest demo` shows what it promises, and its sample is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import nearest
import numpy as np
import pytest
from nearest import cli, demo


@pytest.fixture(scope="module")
def result() -> dict[str, object]:
    return demo.run(seconds=0.0)


def test_sample() -> None:
    sample = demo.load()
    assert sample.vectors.shape == (12_000, 384)
    assert sample.queries.shape == (500, 384)
    assert sample.vectors.dtype == np.float32
    assert len(sample.texts) == 12_500
    assert all(": " in text for text in sample.texts)
    # Unit vectors, up to their rounding.
    np.testing.assert_allclose(np.linalg.norm(sample.vectors, axis=1), 1, atol=0.02)


def test_sample_is_small_and_names_its_source() -> None:
    folder = Path(nearest.__file__).parent / "data"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000
    licence = (folder / "LICENSE-WordNet.txt").read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in licence
    assert "all-MiniLM-L6-v2" in licence


def test_sample_comes_from_the_shared_data(shared_data: object) -> None:
    """Every tenth vector is one of WordNet's, rounded."""
    base = shared_data("wordnet")["base"].astype(np.float32)  # type: ignore[operator]
    some = demo.load().vectors[::600]
    nearest_ones = base[np.argmax(some @ base.T, axis=1)]
    assert np.abs(nearest_ones - some).max() <= 0.5 / 256 + 1e-6


def test_recall_is_that_of_brute_force(result: dict[str, object]) -> None:
    assert result["recall"] == 1.0
    assert result["count"] == 12_000
    assert result["n_queries"] == 500
    assert result["same_after_opening"] is True


def test_neighbors_make_sense(result: dict[str, object]) -> None:
    examples = {example["text"].split(":")[0]: example["neighbors"] for example in result["examples"]}  # type: ignore
    assert len(examples) == len(demo.SHOWN)
    for near in examples.values():
        assert len(near) == 5
        assert [entry["distance"] for entry in near] == sorted(entry["distance"] for entry in near)
    assert examples["winter, wintertime"][0]["text"].startswith("summer, summertime:")
    assert all("chess" in entry["text"] for entry in examples["king"][:2])


def test_text(result: dict[str, object]) -> None:
    text = demo.text_of(result)
    assert max(map(len, text.splitlines())) <= 92
    for part in ("volcano: ", "one query", "500 queries at once", "queries/s", "recall@10", "1.0000", "memory"):
        assert part in text
    for part in ("save, open", "the same answers", "Try next", "nearest build", "Princeton University"):
        assert part in text


def test_command(
    result: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "run", lambda *, n_threads: {**result, "n_threads": n_threads})
    assert cli.main(["demo", "--json", "--n-threads", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["n_threads"] == 1
    assert cli.main(["demo", "--n-threads", "2"]) == 0
    assert "Measured here and now" in capsys.readouterr().out
