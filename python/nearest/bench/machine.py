"""What a measurement ran on, so that a record explains itself."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


def describe() -> dict[str, Any]:
    """The machine: CPU, caches, memory, system. Nothing that tells whose it is."""
    fields = _cpu_fields()
    return {
        "cpu": fields.get("model name", platform.processor() or platform.machine()),
        "cpu_family": fields.get("cpu family"),
        "cpu_model": fields.get("model"),
        "cpu_mhz": fields.get("cpu MHz"),
        "cpu_flags": sorted(flag for flag in fields.get("flags", "").split() if re.match("avx|fma|f16c|amx", flag)),
        "virtual": "hypervisor" in fields.get("flags", "").split(),
        "n_cpus": os.cpu_count(),
        "n_cpus_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "caches": _caches(),
        "memory_bytes": _memory_bytes(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "boost": _read("/sys/devices/system/cpu/cpufreq/boost"),
        "transparent_huge_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def slug(machine: dict[str, Any]) -> str:
    """The machine's name as a folder.

    Examples
    --------
    >>> slug({"cpu": "AMD EPYC 9R45 (TM)", "cpu_family": "26", "cpu_model": "2", "n_cpus_usable": 2})
    'amd-epyc-9r45-family-26-model-2-2-cpus'
    """
    parts = [re.sub(r"\((?:r|tm)\)", "", str(machine["cpu"]), flags=re.IGNORECASE)]
    parts += [f"family {machine['cpu_family']} model {machine['cpu_model']}"] if machine.get("cpu_family") else []
    parts.append(f"{machine['n_cpus_usable']} cpus")
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


def native_module() -> dict[str, str]:
    """Which build of this library is measured."""
    from .. import _native

    versions = {"nearest": _version("nearest"), "kernels": str(_native.kernels()["level"])}
    file = getattr(_native, "__file__", None)
    if file:
        # The commit does not tell whether the module was built from it; this tells two builds apart.
        versions["native_module_sha256"] = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    return versions


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a distribution"


def commit(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The commit checked out in `folder` and whether tracked files differ from it; None outside of a repository."""

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    name = git("rev-parse", "HEAD")
    if name is None:
        return None
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)benchmarks/record")
    files = [line[3:] for line in (changed or "").splitlines()]
    return {"commit": name.strip(), "dirty": bool(files), "dirty_files": files[:20]}


class Load:
    """How much of the machine others used while something was measured.

    Examples
    --------
    >>> load = Load()
    >>> sorted(load.so_far())
    ['busy_cpus_of_others', 'load_average_before', 'seconds', 'stolen_share']
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._before = _cpu_ticks()
        self._own_before = _own_seconds()
        self._average = _load_average()

    def so_far(self) -> dict[str, Any]:
        """`busy_cpus_of_others`: CPUs that processes other than ours and our children's kept busy, on average. Children
        count once they ended and were waited for."""
        seconds = time.monotonic() - self._started
        before, now = self._before, _cpu_ticks()
        others = stolen = None
        if before and now and seconds > 0:
            tick = 1 / os.sysconf("SC_CLK_TCK")
            busy = (now[0] - before[0]) * tick
            others = round(max(0.0, busy - (_own_seconds() - self._own_before)) / seconds, 2)
            stolen = round((now[1] - before[1]) * tick / seconds / (os.cpu_count() or 1), 3)
        return {
            "seconds": round(seconds, 1),
            "load_average_before": self._average,
            "busy_cpus_of_others": others,
            "stolen_share": stolen,
        }


def _cpu_ticks() -> tuple[int, int] | None:
    """(busy, stolen) ticks of all CPUs since the system started."""
    try:
        first = (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _wait, interrupts, soft, stolen = (int(field) for field in first[:8])
    return user + nice + system + interrupts + soft, stolen


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def memory_now() -> dict[str, int]:
    """Memory of this process in bytes, from the system: `resident`, `anonymous`, `peak`.

    Where there is no /proc, only `peak` is known, and since the start.
    """
    try:
        lines = (_PROC / "self/status").read_text().splitlines()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"peak": peak * (1 if sys.platform == "darwin" else 1024)}
    names = {"VmRSS": "resident", "RssAnon": "anonymous", "VmHWM": "peak"}
    fields = (line.split() for line in lines)
    return {names[name]: int(parts[0]) << 10 for head, *parts in fields if (name := head.rstrip(":")) in names}


def reset_peak() -> bool:
    """Starts `peak` anew; whether the system allowed it."""
    try:
        (_PROC / "self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def trim() -> None:
    """Gives memory that was freed back to the system, where that can be asked for."""
    import ctypes

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return


def _cpu_fields() -> dict[str, str]:
    try:
        first = (_PROC / "cpuinfo").read_text().split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _caches() -> dict[str, str]:
    caches = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind = _read(folder / "level"), _read(folder / "type")
        if kind != "Instruction":
            caches[f"L{level}"] = f"{_read(folder / 'size')}, shared by cpus {_read(folder / 'shared_cpu_list')}"
    return caches


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
