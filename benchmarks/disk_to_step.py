"""From disk to the finished optimiser step: this package's LMDB and TorchGeo's BigEarthNet feed the same model.

    python -m pip install torchgeo
    python benchmarks/disk_to_step.py --record benchmarks/disk_to_step.json

The laptop model and its batches, bf16 where the processor has it, no loader processes, files in the page cache. Batches
of both ways alternate in one process; medians and ratios of medians are reported, and the share of a batch that goes by
before the step. What is trained on differs: TorchGeo 0.8 reads Sentinel-1 as whole numbers and gives VH before VV; that
changes no time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from reading import torchgeo_folder
from torch.utils.data import default_collate

from fusmae_lite import FusMAE, PairDataset, load_preset, open_archive
from fusmae_lite.core.config import project_root
from fusmae_lite.core.files import write_text
from fusmae_lite.data.encode import encode
from fusmae_lite.data.pairs import assemble, normalise
from fusmae_lite.train.optimise import autocast, build_optimizer, choose_device, uses_bf16

Batch = dict[str, torch.Tensor]


def package_loader(folder: Path, native: bool) -> Callable[[list[int]], Batch]:
    """Batches from an archive of this package: native bands assembled at once, or images made one by one."""
    dataset = PairDataset(open_archive(folder), "train", native=native)

    def load(rows: list[int]) -> Batch:
        batch = default_collate([dataset[row % len(dataset)] for row in rows])
        return assemble(batch["bands"]) if native else batch["images"]

    return load


def torchgeo_loader(folder: Path) -> Callable[[list[int]], Batch] | None:
    """Batches from TorchGeo's data set, if it is installed."""
    try:
        from torchgeo.datasets import BigEarthNet
    except ImportError as error:
        print(f"TorchGeo left out ({error}); python -m pip install torchgeo")
        return None
    data = BigEarthNet(str(torchgeo_folder(folder)), split="train", bands="all", num_classes=19)

    def load(rows: list[int]) -> Batch:
        images = torch.stack([data[row % len(data)]["image"].float() for row in rows])
        return {"s1": normalise(images[:, :2], "s1"), "s2": normalise(images[:, 2:], "s2")}

    return load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    config, samples = load_preset("laptop", device="cpu", precision="auto"), project_root() / "data_samples"
    device = choose_device(config)
    torch.manual_seed(0)
    model = FusMAE(config.architecture())
    optimizer = build_optimizer(model, config)
    with tempfile.TemporaryDirectory() as scratch:
        encode(open_archive(samples), Path(scratch, "lmdb"))
        ways = {
            "LMDB, native bands": package_loader(Path(scratch, "lmdb"), native=True),
            "GeoTIFF, native bands": package_loader(samples, native=True),
            "TorchGeo": torchgeo_loader(Path(scratch, "torchgeo")),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name, load in ways.items() if load}
        for number in range(given.batches + 1):
            rows = list(range(number * config.batch_size, (number + 1) * config.batch_size))
            for name in times:
                started = time.perf_counter()
                images = ways[name](rows)
                loaded = time.perf_counter()
                optimizer.zero_grad(set_to_none=True)
                with autocast(device, config):
                    loss = model(images).loss
                loss.backward()
                optimizer.step()
                if number:  # the first warms caches up
                    times[name].append((loaded - started, time.perf_counter() - started))
    rows = []
    for name, values in times.items():
        whole, before = (statistics.median(value[i] for value in values) for i in (1, 0))
        rate = config.batch_size / whole
        rows.append(
            {"way": name, "pairs_per_second": round(rate, 2), "share_before_the_step": round(before / whole, 3)}
        )
    for row in rows:
        row["lmdb_is_faster_by"] = round(rows[0]["pairs_per_second"] / row["pairs_per_second"], 2)
    report = {
        "processor": platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": "bf16" if uses_bf16(device, config) else "fp32",
        "batch": config.batch_size,
        "rows": rows,
    }
    print(json.dumps(report, indent=1))
    if given.record:
        write_text(given.record, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
