"""`import nearest` against `import numpy`, in fresh interpreters; the wheel's size; what it depends on.

Each interpreter times its import alone, not its own start. `nearest` imports numpy, so the ratio cannot be below 1.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearest.bench.runner import spread

if TYPE_CHECKING:
    from session import Session

ROOT = Path(__file__).resolve().parents[2]
MOST_RATIO = 1.3
MOST_WHEEL_BYTES = 10_000_000
_PROGRAM = """
import sys, time
before = set(sys.modules)
started = time.perf_counter()
import {name}
seconds = time.perf_counter() - started
import json
new = sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})
print(json.dumps({{"seconds": seconds, "modules": new}}))
"""


def measure(session: Session) -> None:
    rounds = 3 if session.quick else 41
    found: dict[str, list[dict[str, Any]]] = {"numpy": [], "nearest": []}
    for _ in range(rounds):
        for name, runs in found.items():
            runs.append(_imported(name))
    # The first ones read files that the system did not have in memory, and may write their bytecode.
    seconds = {name: [run["seconds"] for run in runs[1:]] for name, runs in found.items()}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [ours / theirs for ours, theirs in zip(seconds["nearest"], seconds["numpy"], strict=True)]
    standard = set(sys.stdlib_module_names)
    session.figures["import"] = {
        "numpy, median_seconds": medians["numpy"],
        "nearest, median_seconds": medians["nearest"],
        "ratio of medians": medians["nearest"] / medians["numpy"],
        "ratio of neighbors, middle half": "{q1:.2f} – {q3:.2f}".format(**spread(ratios)),
        "imported beside the standard library": ", ".join(
            name for name in found["nearest"][-1]["modules"] if name not in standard and not name.startswith("_")
        ),
        "seconds": seconds,
    }
    wheel = _wheel()
    required = _dependencies(wheel) if wheel else []
    session.figures["wheel"] = {
        "file": wheel.name if wheel else "not built: maturin build --release --out dist",
        "wheel_bytes": wheel.stat().st_size if wheel else None,
        "run-time dependencies": ", ".join(required),
        "n_dependencies": len(required),
    }


def _imported(name: str) -> dict[str, Any]:
    package = str(Path(sys.modules["nearest"].__file__ or "").resolve().parents[1])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(name=name)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _wheel() -> Path | None:
    """The newest wheel that was built here."""
    wheels = [path for folder in ("dist", "target/wheels") for path in (ROOT / folder).glob("nearest-*.whl")]
    return max(wheels, key=lambda path: path.stat().st_mtime, default=None)


def _dependencies(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    required = (line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: "))
    return [text for text in required if "extra ==" not in text]


def claims(session: Session) -> None:
    figure, wheel = session.figures["import"], session.figures["wheel"]
    session.claim_most(
        "import nearest / import numpy", figure["ratio of medians"], MOST_RATIO, lambda value: f"{value:.2f} ×"
    )
    session.claim_most(
        "size of the wheel", wheel["wheel_bytes"], MOST_WHEEL_BYTES, lambda value: f"{value / 1e6:.2f} MB"
    )
    names = wheel["run-time dependencies"]
    met = None if wheel["wheel_bytes"] is None else wheel["n_dependencies"] == 1 and names.startswith("numpy")
    session.claim("run-time dependencies", "numpy only", names or "not measured", met)
