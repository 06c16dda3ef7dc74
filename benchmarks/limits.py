"""What the machine can do at best in memory and multiply-adds, by two native programs of this repository."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PEAK = re.compile(r"^\s*(\w+) peak on registers: ([0-9.]+) G multiply-adds/s", re.MULTILINE)


def measure(level: str, say: Callable[[str], object] = lambda text: None) -> dict[str, Any]:
    """Stream bandwidth, latency and number of misses, multiply-adds in registers; of one core unless named otherwise.

    Parameters
    ----------
    level : str
        Of the kernels whose instructions are timed: avx2 or avx512.

    Returns
    -------
    dict
        As `crates/nearest-core/examples/limits.rs` prints it, with ``f32_giga_multiply_adds_per_second`` and the like
        for each kind that `crates/nearest-kernels/examples/peak.rs` prints. `missing` says why something is not there.
    """
    say("measuring the machine's limits: memory")
    limits, reason = memory()
    missing = [reason] if reason else []
    say("measuring the machine's limits: multiply-adds")
    text, reason = _example("nearest-kernels", "peak", level)
    missing += [reason] if reason else []
    peaks = {kind: float(rate) for kind, rate in _PEAK.findall(text)}
    limits |= {f"{kind}_giga_multiply_adds_per_second": rate for kind, rate in peaks.items()}
    if not reason:
        missing += [f"no {kind} rate at level {level}" for kind in ("f32", "bf16", "int8") if kind not in peaks]
    return {**limits, "level": level, "missing": missing}


def memory(only: str | None = None) -> tuple[dict[str, Any], str | None]:
    """What limits.rs prints (``only="stream"``: bandwidth alone), or why it could not be run."""
    text, reason = _example("nearest-core", "limits", *([only] if only else []))
    if reason:
        return {}, reason
    measured: dict[str, Any] = json.loads(text.splitlines()[-1])
    return measured, None


def after(limits: dict[str, Any]) -> dict[str, Any]:
    """The limits with the bandwidth measured again, since shared machines drift. Both are kept, their mean is used."""
    again, reason = memory("stream")
    if reason or "missing" not in limits:
        return limits
    both = dict(limits)
    for name, value in again.items():
        if name.startswith("stream_") and name in limits:
            both |= {f"{name}_before": limits[name], f"{name}_after": value, name: (limits[name] + value) / 2}
    return both


def _example(package: str, name: str, *arguments: str) -> tuple[str, str | None]:
    """What an example prints, or why it could not be run."""
    executable, reason = _built(package, name)
    if executable is None:
        return "", reason
    try:
        done = subprocess.run([executable, *arguments], capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        return "", f"{name}: took longer than ten minutes"
    return (done.stdout, None) if done.returncode == 0 else ("", f"{name}: {_last_line(done.stderr)}")


@functools.cache
def _built(package: str, name: str) -> tuple[str | None, str | None]:
    """The program, built once: between measurements nothing is compiled, whatever happens to the sources."""
    if shutil.which("cargo") is None:
        return None, f"{name}: cargo is not installed"
    command = ["cargo", "build", "--release", "--quiet", "--package", package, "--example", name]
    try:
        done = subprocess.run(
            [*command, "--message-format=json"], cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"{name}: took longer than half an hour to build"
    if done.returncode:
        return None, f"{name}: {_last_line(done.stderr)}"
    messages = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    found = [message["executable"] for message in messages if message.get("executable")]
    return (found[-1], None) if found else (None, f"{name}: cargo named no executable")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["failed and said nothing"])[-1]
