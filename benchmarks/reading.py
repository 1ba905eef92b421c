"""Pairs a second from disk: GeoTIFF, LMDB and, if it is installed, TorchGeo's BigEarthNet data set.

    python benchmarks/reading.py --record benchmarks/reading.json
    python benchmarks/reading.py --torchgeo-python ~/envs/torchgeo/bin/python

The bundled patches are encoded into a temporary folder first. One process, one thread, files in the page cache. The
ways to read alternate, so that a machine whose speed drifts slows all of them; medians are reported, and ratios of
medians to GeoTIFF. Processor seconds are counted beside seconds: they hold on a machine that others use as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fusmae_lite.core.config import project_root
from fusmae_lite.core.files import write_text
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.encode import encode
from fusmae_lite.data.pairs import PairDataset

# Runs in an environment of its own, which need not have this package: prints pairs a second and processor seconds.
TORCHGEO = """
import sys, time
from torchgeo.datasets import BigEarthNet
root, pairs = sys.argv[1], int(sys.argv[2])
data = BigEarthNet(root, split="train", bands="all", num_classes=19)
data[0]
started, cpu = time.perf_counter(), time.process_time()
for i in range(pairs):
    data[i % len(data)]
print(pairs / (time.perf_counter() - started), pairs / (time.process_time() - cpu))
"""


def rate(read: Callable[[int], object], pairs: int, length: int) -> tuple[float, float]:
    """Pairs a second, and a processor second, of `pairs` reads that go round the archive."""
    started, cpu = time.perf_counter(), time.process_time()
    for number in range(pairs):
        read(number % length)
    return pairs / (time.perf_counter() - started), pairs / (time.process_time() - cpu)


def torchgeo_rate(python: str, root: Path, pairs: int) -> tuple[float, float] | str:
    """The same of TorchGeo, in its own process; or why not."""
    done = subprocess.run([python, "-c", TORCHGEO, str(root), str(pairs)], capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    wall, cpu = map(float, done.stdout.split()[-2:])
    return wall, cpu


def torchgeo_folder(root: Path) -> Path:
    """The bundled patches as TorchGeo wants to find them: links and its three split lists."""
    root.mkdir()
    samples = project_root() / "data_samples"
    for folder in ("BigEarthNet-v1.0", "BigEarthNet-S1-v1.0"):
        (root / folder).symlink_to(samples / folder)
    for split in ("train", "val", "test"):
        (root / f"bigearthnet-{split}.csv").symlink_to(samples / "splits" / f"{split}.csv")
    return root


def measure(folder: Path, repeats: int, torchgeo: str) -> dict[str, list[tuple[float, float]]]:
    """Way to read -> (pairs a second, pairs a processor second) of each repetition."""
    files, store = open_archive(project_root() / "data_samples"), open_archive(folder / "lmdb")
    images = {name: PairDataset(archive, "all") for name, archive in (("GeoTIFF", files), ("LMDB", store))}
    ways: dict[str, tuple[Callable[[int], object], int]] = {
        "GeoTIFF, native bands": (files.read, len(files)),
        "LMDB, native bands": (store.read, 40 * len(files)),
        "GeoTIFF, 120 px tensors": (images["GeoTIFF"].__getitem__, len(files)),
        "LMDB, 120 px tensors": (images["LMDB"].__getitem__, 10 * len(files)),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    other = torchgeo_folder(folder / "torchgeo")
    for read, _ in ways.values():  # into the page cache
        rate(read, len(files), len(files))
    for _ in range(repeats):
        for name, (read, pairs) in ways.items():
            rates[name].append(rate(read, pairs, len(files)))
        if not torchgeo:
            continue
        found = torchgeo_rate(torchgeo, other, len(files))
        if isinstance(found, str):
            print(f"TorchGeo left out: {found}", flush=True)
            torchgeo = ""
        else:
            rates.setdefault("TorchGeo, 120 px tensors", []).append(found)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--torchgeo-python", default=sys.executable, help="an interpreter that has torchgeo")
    parser.add_argument("--record", type=Path, help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        done = encode(open_archive(project_root() / "data_samples"), Path(folder) / "lmdb", workers=0)
        rates = measure(Path(folder), arguments.repeats, arguments.torchgeo_python)
    medians = {
        name: [statistics.median(column) for column in zip(*found, strict=True)] for name, found in rates.items()
    }
    rows = []
    for name, (wall, cpu) in medians.items():
        base = medians[f"GeoTIFF, {name.partition(', ')[2]}"]
        row = {"way": name, "pairs_per_second": round(wall, 1), "pairs_per_processor_second": round(cpu, 1)}
        rows.append(
            row | {"times_geotiff": round(wall / base[0], 1), "times_geotiff_processor": round(cpu / base[1], 1)}
        )
        print(json.dumps(rows[-1]), flush=True)
    machine = {"processor": platform.processor() or platform.machine(), "processors": os.cpu_count(), "threads": 1}
    summary = {
        "machine": machine,
        "repeats": arguments.repeats,
        "encode_pairs_per_second": round(done.pairs / done.seconds, 1),
    }
    print(json.dumps(summary))
    if arguments.record:
        write_text(arguments.record, json.dumps({**summary, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
