"""Milliseconds from a changed control to the new picture, and memory over many changes, of each viewer.

    python benchmarks/viewers.py --record benchmarks/viewers.json

Bundled pairs, the shipped xae-lite, CPU. The controls are moved from Python, so the browser's part is not in it.
Processor milliseconds are counted beside milliseconds: they hold on a machine that others use as well. Anonymous
memory is read from /proc before and after (Linux), after a warm-up that has read every pair used.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch

from fusmae_lite.show import viewers

#: What a reader does, and a function that does it for the n-th time.
Interaction = tuple[str, Callable[[int], None]]


def anonymous_mib() -> float:
    """Memory of this process that no file backs, in MiB; NaN where /proc does not tell."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


def set_to(control: object, values: list) -> Callable[[int], None]:
    """An interaction: update n gives the control another value than update n - 1."""

    def change(number: int) -> None:
        control.value = values[number % len(values)]

    return change


def interactions(folder: Path) -> dict[str, list[Interaction]]:
    """Viewer -> what is done to it."""
    one, two = viewers.ReconstructionViewer(), viewers.ReconstructionViewer(models=("xae-lite",) * 2)
    patch, attention = viewers.PatchViewer(), viewers.AttentionViewer()
    rows = [{"step": 6 * e, "epoch": e, "loss_s1": 1 / e, "loss_s2": 2 / e} for e in range(1, 251)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monitor = viewers.TrainingMonitor(folder)
    grid, seeds = attention.grid**2, list(range(50))
    return {
        "ReconstructionViewer": [
            ("seed", set_to(one.seed, seeds)),
            ("pair", set_to(one.pair, [0, 1])),
            ("stroke", lambda number: one.paint("s1", [number % grid])),
            ("pixel", set_to(one.pointed, [f"{share / 50},0.5" for share in seeds])),
        ],
        "ReconstructionViewer, two models": [("seed", set_to(two.seed, seeds))],
        "PatchViewer": [
            ("band", set_to(patch.band, [band for _, band in patch.band.options])),
            ("pair", set_to(patch.pair, [0, 1])),
        ],
        "AttentionViewer": [
            ("click", lambda number: attention.paint("s1", [number % grid])),
            ("pair", set_to(attention.pair, [0, 1])),
        ],
        "TrainingMonitor": [("leave out", set_to(monitor.skip, [0, 10, 20, 30]))],
    }


def measure(change: Callable[[int], None], repeats: int, updates: int) -> dict[str, float]:
    """Median and worst milliseconds of one update, and MiB more after `updates` of them."""
    for number in range(5):
        change(number)
    wall, cpu = [], []
    for number in range(5, 5 + repeats):
        started, used = time.perf_counter(), time.process_time()
        change(number)
        wall.append(1000 * (time.perf_counter() - started))
        cpu.append(1000 * (time.process_time() - used))
    row = {"ms": statistics.median(wall), "worst_ms": max(wall), "processor_ms": statistics.median(cpu)}
    if updates:
        gc.collect()
        before = anonymous_mib()
        for number in range(updates):
            change(number)
        gc.collect()
        row |= {"updates": updates, "mib_before": before, "mib_more": anonymous_mib() - before}
    return {name: round(value, 1) for name, value in row.items()}


def main() -> None:
    """Measure every interaction and print, and record, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--updates", type=int, default=500, help="for memory, with each viewer's first interaction")
    parser.add_argument("--threads", type=int, default=2, help="1 where other work holds the second core")
    parser.add_argument("--record", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for viewer, rows in interactions(Path(folder)).items():
            for place, (name, change) in enumerate(rows):
                counted = place == 0 and "two models" not in viewer
                row = measure(change, args.repeats, args.updates if counted else 0)
                results[f"{viewer}: {name}"] = row
                print(f"{viewer}: {name:10}", row, flush=True)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    load = [round(value, 1) for value in os.getloadavg()]
    about = {**machine, "threads": args.threads, "load": load, "torch": torch.__version__}
    about["open_figures"] = len(plt.get_fignums())
    if args.record:
        args.record.write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
