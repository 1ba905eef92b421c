"""Fine-tuning with and without standardised features before the head, from pretrained and from untrained weights.

fusmae results --preset laptop                     # first: its checkpoints and pairs are used
python benchmarks/head_normalisation.py            # about 10 minutes on one core

XAE on synthetic land-cover pairs, S1+S2; micro AP in percent for each seed, and pretrained minus scratch.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from fusmae_lite.core.config import project_root
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation import average_precision, fine_tune, finetune, random_encoder
from fusmae_lite.evaluation.finetune import prior_head
from fusmae_lite.systems.weights import load_pretrained
from fusmae_lite.train.checkpoints import latest_checkpoint
from reproduce import load_plan
from reproduce.track import BOTH, Track, labelled_sets, open_pairs


def plain_head(x, y, scaled=True):
    """The head of before: features reach it as they are."""
    head = prior_head(x, y, scaled)
    return replace(head, mean=np.zeros_like(head.mean), std=np.ones_like(head.std))


def main() -> None:
    """Every seed, number of labels, start and head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=project_root() / "runs" / "results-laptop")
    parser.add_argument("--labels", type=int, nargs="+", default=[300])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    given, plan = parser.parse_args(), load_plan("laptop")
    for labels in given.labels:
        gains: dict[str, list[float]] = {"standardised": [], "as they are": []}
        for seed in given.seeds:
            track = Track("scenes", "xae", seed)
            archive = open_pairs(plan, track, given.folder)
            rows = labelled_sets((labels,), archive.labels[archive.split("train")], seed)[labels]
            config = plan.config("xae", seed=seed)
            checkpoint = latest_checkpoint(given.folder / "tracks" / "runs" / track.name / "pretrain" / "checkpoints")
            options = {"modalities": config.modalities, "size": config.image_size, "cache": True, "native": True}
            pairs = {split: PairDataset(archive, split, **options) for split in ("train", "test")}
            truth = archive.labels[archive.split("test")]
            for name, head in (("standardised", prior_head), ("as they are", plain_head)):
                scores = []
                for model, epochs, decay in (
                    (load_pretrained(checkpoint), plan.finetune.epochs, plan.finetune.layer_decay),
                    (random_encoder(config, seed), plan.scratch_epochs, 1.0),
                ):
                    settings = replace(plan.finetune, epochs=epochs, layer_decay=decay)
                    with patch.object(finetune, "prior_head", head):
                        tuned = fine_tune(model, pairs["train"], pairs["test"], BOTH, settings, rows, seed, config)
                    scores.append(100 * average_precision(truth, tuned.scores.numpy()).micro)
                gains[name].append(scores[0] - scores[1])
                print(f"{labels} labels, seed {seed}, features {name:12}: pretrained {scores[0]:.1f}, scratch "
                      f"{scores[1]:.1f}, difference {scores[0] - scores[1]:+.1f}", flush=True)  # fmt: skip
        for name, values in gains.items():
            ahead = sum(value > 0 for value in values)
            print(f"{labels} labels, {name}: {np.mean(values):+.1f} on average, ahead in {ahead} of {len(values)}")


if __name__ == "__main__":
    main()
