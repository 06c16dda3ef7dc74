"""Runs a benchmark and keeps its record: ``python benchmarks/run.py exact-batch``.

``--list`` names them all. A record goes to ``benchmarks/record/<machine>/<date>-<name>.json``, its table beside it
(.md) and to standard output. Nothing else should run on the machine meanwhile; the record says how busy it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="which definition to run")
    parser.add_argument("--list", action="store_true", help="name the definitions and end")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works; no record is kept")
    parser.add_argument("--adapters", help="only these libraries, separated by commas")
    parser.add_argument(
        "--families",
        help="of others' methods in a sweep only these families, separated by commas; where only ours is measured, "
        "lists or graph",
    )
    parser.add_argument("--sets", help="these data sets, separated by commas (by ; if one has options)")
    parser.add_argument("--threads", help="these numbers of threads, separated by commas")
    parser.add_argument("--rounds", type=int, help="turns of each method in a session")
    parser.add_argument("--turn-seconds", type=float, help="a turn lasts at least so long")
    parser.add_argument("--sessions", type=int, help="how often all is done again in fresh processes")
    parser.add_argument("--no-limits", action="store_true", help="do not measure what the machine can do at best")
    parser.add_argument("--out", type=Path, help="folder for data sets that were made (benchmarks/out)")
    parser.add_argument("--records", type=Path, help="folder for the record")
    parser.add_argument("--check", action="store_true", help="exit with 1 if something that was to be shown was not")
    args = parser.parse_args(arguments)

    sys.path[:0] = [str(HERE)]
    try:
        import nearest  # noqa: F401
    except ModuleNotFoundError:
        # Not installed: the sources, with the native module that `maturin develop` put there.
        sys.path.insert(0, str(HERE.parent / "python"))
    try:
        import session
    except ImportError as error:
        print(
            f"the native module is not built ({error}): run `make demo` or `maturin develop --release`", file=sys.stderr
        )
        return 2
    from dataclasses import replace

    from nearest.bench.runner import Settings

    if args.list or not args.name:
        for name in session.definitions():
            about = (session.load_definition(name).__doc__ or "").strip().splitlines()[0]
            print(f"{name:14} {about}")
        return 0 if args.list else 2
    settings = Settings.quick() if args.quick else Settings()
    chosen = {name: getattr(args, name) for name in ("rounds", "turn_seconds", "sessions")}
    settings = replace(settings, **{name: value for name, value in chosen.items() if value is not None})
    one = session.Session(
        args.name,
        quick=args.quick,
        settings=settings,
        adapters=args.adapters.split(",") if args.adapters else None,
        families=args.families.split(",") if args.families else None,
        sets=args.sets.split(";" if ":" in args.sets else ",") if args.sets else None,
        threads=[int(number) for number in args.threads.split(",")] if args.threads else None,
        with_limits=not args.no_limits,
        out=args.out,
        records=args.records,
    )
    path = one.run()
    print(path.with_suffix(".md").read_text())
    print(f"record: {path}", file=sys.stderr)
    return 1 if args.check and any(claim["met"] is not True for claim in one.claims) else 0


if __name__ == "__main__":
    sys.exit(main())
