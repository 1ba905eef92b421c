"""Share of test patches that have a training neighbour, official split against random 60/20/20 ones.

    python benchmarks/split_leakage.py path/to/metadata.parquet [further.parquet ...]

Takes reBEN's official tables; prints Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.archives.metadata import read_metadata
from fusmae_lite.data.archives.splits import neighbour_leakage, random_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+", help="metadata.parquet and, for all patches, the snow table")
    parser.add_argument("--seeds", type=int, default=3, help="how many random splits")
    options = parser.parse_args()
    tables = [read_metadata(table, BEN19) for table in options.tables]
    names = [name for table in tables for name in table.names]
    splits = {"official": np.concatenate([table.splits for table in tables])}
    splits |= {f"random, seed {seed}": random_split(names, seed) for seed in range(options.seeds)}
    print(f"{len(names)} patches\n\n| split | train | test | test beside train | same overpass | val beside train |")
    print("|---|--:|--:|--:|--:|--:|")
    for title, split in splits.items():
        shares = [neighbour_leakage(names, split, same_acquisition=same) for same in (False, True)]
        shares.append(neighbour_leakage(names, split, part="val"))
        sizes = [int((split == part).sum()) for part in ("train", "test")]
        print(f"| {title} | {sizes[0]} | {sizes[1]} | {' | '.join(f'{share:.2%}' for share in shares)} |")


if __name__ == "__main__":
    main()
