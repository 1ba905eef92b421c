"""Seconds that the fingerprint of an archive's content takes: python benchmarks/fingerprint.py [--pairs 6250]

A BigEarthNet v1 archive of small made files, sixteen a pair; by default 100,000 of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from fusmae_lite.core.sensors import S1, S2
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.archives.bigearthnet import S1_FOLDER, S2_FOLDER
from fusmae_lite.data.identity import identity


def make(root: Path, pairs: int) -> int:
    """Write the files; returns how many."""
    files = 0
    lines = []
    for i in range(pairs):
        s2 = f"S2A_MSIL2A_20170613T101031_{i % 100}_{i // 100}"
        s1 = f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{i % 100}_{i // 100}"
        lines.append(f"{s2},{s1}\n")
        for folder, name, sensor in ((S2_FOLDER, s2, S2), (S1_FOLDER, s1, S1)):
            (root / folder / name).mkdir(parents=True)
            label = f'{{"labels": [], "corresponding_s2_patch": "{s2}"}}'
            (root / folder / name / f"{name}_labels_metadata.json").write_text(label)
            for band in sensor.bands:
                (root / folder / name / f"{name}_{band}.tif").write_bytes(bytes(500))
            files += 1 + sensor.channels
    (root / "train.csv").write_text("".join(lines))
    return files


def main() -> None:
    """Print seconds: the first look, and a second one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=6250)
    with tempfile.TemporaryDirectory() as folder:
        files = make(Path(folder), parser.parse_args().pairs)
        archive = open_archive(folder)
        for which in ("first", "second"):
            began, spent = time.perf_counter(), time.process_time()
            identity(archive, range(len(archive)))
            wall, processor = time.perf_counter() - began, time.process_time() - spent
            print(f"{files} files, {which}: {wall:.2f} s, {processor:.2f} s of the processor")


if __name__ == "__main__":
    main()
