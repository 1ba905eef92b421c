"""How a run learned: held-out loss of each checkpoint that it kept, beside the best untrained interpolation.

    python benchmarks/learning_curve.py runs/weights/xae runs/weights/xad --record benchmarks/learning_curve.json

Mean squared error over hidden patches of the bundled validation pairs, one draw of masks, as `fusmae pretrain` prints
it at its end. The training loss is a mean over the steps between two checkpoints; it is measured on augmented crops and
on synthetic scenes, some of them seen by one sensor only, so its height says little.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from weights import model_error

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.files import write_text
from fusmae_lite.data.archives import open_archive
from fusmae_lite.systems.weights import load_model
from fusmae_lite.train.checkpoints import list_checkpoints
from fusmae_lite.train.heldout import IMAGE_MEAN, Hidden, choose_interpolations, hidden_pairs


def curve(run: Path, val: list[Hidden]) -> dict[str, object]:
    """Steps of the checkpoints, training and held-out loss of each sensor at them."""
    metrics = [
        json.loads(line) for line in (run / "pretrain" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    steps: list[int] = []
    heldout: dict[str, list[float]] = {}
    training: dict[str, list[float]] = {}
    for checkpoint in list_checkpoints(run / "pretrain" / "checkpoints"):
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        config, since = RunConfig(**state["config"]), steps[-1] if steps else 0
        steps.append(state["step"])
        model = load_model(checkpoint / "model.safetensors")
        for name in config.modalities:
            errors = torch.cat([model_error(model, hidden, name) for hidden in val])
            heldout.setdefault(name, []).append(round(float(errors.mean()), 4))
            seen = [row[f"loss_{name}"] for row in metrics if since < row["step"] <= steps[-1]]
            training.setdefault(name, []).append(round(float(np.mean(seen)), 4))
        print(run, steps[-1], {name: values[-1] for name, values in heldout.items()}, flush=True)
    return {"fusion": config.fusion, "steps": steps, "heldout": heldout, "training": training}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs that kept their checkpoints")
    parser.add_argument("--record", type=Path, help="also write the figures to this JSON file")
    options = parser.parse_args()
    archive = open_archive()
    last = list_checkpoints(options.runs[0] / "pretrain" / "checkpoints")[-1]
    config = RunConfig(**json.loads((last / "state.json").read_text(encoding="utf-8"))["config"])
    train, val = (list(hidden_pairs(archive, config, archive.split(split))) for split in ("train", "val"))
    report: dict[str, object] = {"pairs": "the bundled validation pairs", "interpolation": {}, "image_mean": {}}
    for name in config.modalities:
        losses = {way: chosen.loss(val, name) for way, chosen in choose_interpolations(train, name).items()}
        best = min(losses, key=losses.__getitem__)
        report["interpolation"][name] = {"way": best, "loss": round(losses[best], 4)}
        report["image_mean"][name] = round(IMAGE_MEAN.loss(val, name), 4)
    report["runs"] = {run.name: curve(run, val) for run in options.runs}
    text = json.dumps(report, indent=1)
    print(text)
    if options.record:
        write_text(options.record, text + "\n")


if __name__ == "__main__":
    main()
