"""Linear evaluation on features kept once, against running the frozen encoder again in every epoch.

    python benchmarks/linear_evaluation.py --record benchmarks/linear_evaluation.json

xae-lite on both sensors, 20 epochs of the probe, one seed; the bundled pairs, and an archive of synthetic pairs made
for this. Both ways train the same head on the same batches in the same order, and score the test patches once at the
end or after every epoch. Images lie in memory before the clock starts, which favours running again: it would read them
every epoch. Ways alternate; medians are reported. Exit status 1 where the scores of the two ways differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fusmae_lite import FusMAE, PairDataset, RunConfig, load_preset, load_pretrained, open_archive
from fusmae_lite.core.config import project_root
from fusmae_lite.core.files import write_text
from fusmae_lite.core.seeding import derive, generator
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.synthetic import synthesise
from fusmae_lite.evaluation import average_precision, frozen_features, linear_probe

SENSORS = ("s1", "s2")
Pairs = dict[str, PairDataset]


def kept(model: FusMAE, archive: Archive, pairs: Pairs, config: RunConfig, every: bool) -> Tensor:
    """This package's way: the encoder once over each split, then only the head. Logits of the test patches."""
    with tempfile.TemporaryDirectory() as cache:  # writing the features belongs to it
        train, test = (
            frozen_features(model, archive, split, SENSORS, Path(cache), dataset=pairs[split])
            for split in ("train", "test")
        )
    scores = linear_probe(train.x, train.y, test.x, config)
    for _ in range(config.probe_epochs - 1 if every else 0):  # as many scorings as the other way does
        average_precision(test.y.numpy(), (test.x @ torch.zeros(test.x.shape[1], test.y.shape[1])).numpy())
    return scores


def again(model: FusMAE, archive: Archive, pairs: Pairs, config: RunConfig, every: bool) -> Tensor:
    """The encoder over the training split in each epoch, and over the test split at the end or in each epoch, too."""
    rng, optimizer = generator("probe", config.seed, 0, 1), None
    criterion = nn.MultiLabelSoftMarginLoss()
    for epoch in range(config.probe_epochs):
        train = frozen_features(model, archive, "train", SENSORS, dataset=pairs["train"])
        mean, std = train.x.mean(dim=0), train.x.std(dim=0, correction=0).clamp_min(1e-6)
        if optimizer is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive("probe", config.seed, 0))
                head = nn.Linear(train.x.shape[1], train.y.shape[1])
            optimizer = torch.optim.AdamW(head.parameters(), lr=config.probe_learning_rate, weight_decay=0.0)
        x = (train.x - mean) / std
        for rows in torch.randperm(len(x), generator=rng).split(config.probe_batch_size):
            optimizer.zero_grad()
            criterion(head(x[rows]), train.y[rows]).backward()
            optimizer.step()
        if every or epoch == config.probe_epochs - 1:
            test = frozen_features(model, archive, "test", SENSORS, dataset=pairs["test"])
            with torch.no_grad():
                scores = head((test.x - mean) / std)
            if every:
                average_precision(test.y.numpy(), scores.numpy())
    return scores


def measure(archive: Archive, repeats: int, config: RunConfig) -> dict[str, object]:
    """Seconds of both ways, their ratio and how far their results lie apart."""
    model = load_pretrained("xae-lite")
    pairs = {split: PairDataset(archive, split, modalities=SENSORS, cache=True) for split in ("train", "test")}
    labels = np.asarray(archive.labels[archive.split("test")], dtype=bool)
    for part in pairs.values():  # into memory
        for number in range(len(part)):
            part[number]
    row: dict[str, object] = {"archive": archive.kind, **{split: len(part) for split, part in pairs.items()}}
    for name, every in (("scored_at_the_end", False), ("scored_every_epoch", True)):
        times: dict[str, list[float]] = {"kept": [], "again": []}
        for _ in range(repeats):
            results = {}
            for way in (kept, again):
                started = time.perf_counter()
                results[way.__name__] = way(model, archive, pairs, config, every)
                times[way.__name__].append(time.perf_counter() - started)
        gap = float((results["kept"] - results["again"]).abs().max())
        micro = {way: average_precision(labels, scores.numpy()).micro for way, scores in results.items()}
        seconds = {way: statistics.median(values) for way, values in times.items()}
        row[name] = {
            "seconds_kept": round(seconds["kept"], 3),
            "seconds_again": round(seconds["again"], 3),
            "faster_by": round(seconds["again"] / seconds["kept"], 2),
            "largest_difference_of_logits": gap,
            "micro_ap": {way: round(value, 6) for way, value in micro.items()},
            "equal": gap < 1e-4 and abs(micro["kept"] - micro["again"]) < 1e-6,
        }
        print(json.dumps({"archive": row["archive"], name: row[name]}), flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=300, help="synthetic pairs of the second archive")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    config = load_preset("laptop", probe_epochs=20)
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(open_archive(project_root() / "data_samples"), given.repeats, config) | {"synthetic": False}]
        made = synthesise(Path(folder, "archive"), given.pairs, seed=0)
        rows.append(measure(open_archive(made), given.repeats, config) | {"synthetic": True})
    report = {
        "machine": {"processor": platform.machine(), "processors": os.cpu_count(), "threads": torch.get_num_threads()},
        "torch": torch.__version__,
        "epochs": config.probe_epochs,
        "repeats": given.repeats,
        "rows": rows,
    }
    if given.record:
        write_text(given.record, json.dumps(report, indent=1) + "\n")
    equal = all(row[name]["equal"] for row in rows for name in ("scored_at_the_end", "scored_every_epoch"))
    print("results equal" if equal else "results DIFFER")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
