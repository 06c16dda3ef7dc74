#!/usr/bin/env python3
"""Makes the sample of WordNet embeddings that `nearest demo` carries, from `../shared/data`.

    python scripts/make_demo_sample.py [--data ../shared/data] [--out python/nearest/data]

It takes the synsets of the words people know. There are no word frequencies in these files, so the glosses stand in
for them: a word that many glosses use is a common one (the last words taken occur in a dozen glosses of 116 659). Of
each word at most three senses come in, texts longer than a few lines do not, nor do those that WordNet itself marks
as slurs or obscene.

The embeddings are rounded to multiples of 1/256 and kept as int8: 283 bytes a vector once compressed, where float16
needs 591. It prints how far the rounding moves a vector and how many of the five nearest stay the same. Twice the
same input gives twice the same bytes (with one version of zlib).
"""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

N_BASE = 12_000
N_QUERIES = 500
SENSES = 3
LONGEST_TEXT = 240
STEPS = 256
SEED = 20_061_201

UNWANTED = re.compile(r"slur|offensive|obscene|vulgar|disparag|derogatory|ethnic|profan|coitus|copulat|sexual|racial")


def choose(texts: list[str]) -> NDArray[np.int64]:
    """Positions of the synsets of common words, most common first."""
    glosses: collections.Counter[str] = collections.Counter()
    for text in texts:
        glosses.update(set(re.findall(r"[a-z]+", text.partition(": ")[2].lower())))
    words = [re.split(r", |: ", text, maxsplit=1)[0] for text in texts]
    common = np.array([glosses[word] if re.fullmatch(r"[a-z]{3,}", word) else 0 for word in words])
    senses: collections.Counter[str] = collections.Counter()
    chosen: list[int] = []
    for i in np.argsort(-common, kind="stable"):
        if senses[words[i]] < SENSES and len(texts[i]) <= LONGEST_TEXT and not UNWANTED.search(texts[i]):
            senses[words[i]] += 1
            chosen.append(int(i))
            if len(chosen) == N_BASE + N_QUERIES:
                return np.array(chosen)
    raise SystemExit(f"only {len(chosen)} texts qualify, {N_BASE + N_QUERIES} are wanted")


def agreement(before: NDArray[np.float32], after: NDArray[np.float32], k: int = 5) -> float:
    """How many of the `k` nearest others (by cosine) are the same before and after."""
    same = 0
    rows = np.arange(min(1000, len(before)))
    found = []
    for vectors in (before, after):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        products = unit[rows] @ unit.T
        products[rows, rows] = -np.inf
        found.append(np.argsort(-products, axis=1)[:, :k])
    for one, other in zip(*found, strict=True):
        same += len(set(one) & set(other))
    return same / (k * len(rows))


def write_npz(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """As `numpy.savez_compressed`, with the best compression and no dates."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, member.getvalue())


def main() -> None:
    """Make the sample."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=root.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=root / "python" / "nearest" / "data")
    args = parser.parse_args()

    with np.load(args.data / "wordnet.npz", allow_pickle=False) as arrays:
        base = arrays["base"]
    with gzip.open(args.data / "wordnet.txt.gz", "rt", encoding="utf-8") as lines:
        texts = lines.read().split("\n")[: len(base)]

    # Shuffled, so that the queries, which come last as in the file it is made from, are like the base.
    chosen = np.random.default_rng(SEED).permutation(choose(texts))
    vectors = base[chosen].astype(np.float32)
    steps = np.rint(vectors * STEPS)
    if np.abs(steps).max() > 127:
        raise SystemExit(f"a coordinate of {np.abs(vectors).max()} does not fit in int8 by steps of 1/{STEPS}")
    codes = steps.astype(np.int8)

    args.out.mkdir(parents=True, exist_ok=True)
    write_npz(
        args.out / "wordnet-sample.npz",
        {
            "base": codes[:N_BASE],
            "queries": codes[N_BASE:],
            "metric": np.array("cosine"),
            "scale": np.array(1 / STEPS),
        },
    )
    with open(args.out / "wordnet-sample.txt.gz", "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write("".join(f"{texts[i]}\n" for i in chosen).encode())

    rounded = codes.astype(np.float32) / STEPS
    print(f"{N_BASE} + {N_QUERIES} synsets of {len(base)}, {codes.shape[1]} dimensions")
    print(f"mean length of the rounding error: {np.linalg.norm(rounded - vectors, axis=1).mean():.4f} of 1")
    print(f"of the 5 nearest others, the same after rounding: {agreement(vectors, rounded):.4f}")
    for path in sorted(args.out.iterdir()):
        print(f"{path.stat().st_size:>10} bytes  {path}")


if __name__ == "__main__":
    main()
