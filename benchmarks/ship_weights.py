"""From a finished run to a file of fusmae_lite/weights: `make weights` calls it.

    python benchmarks/ship_weights.py runs/weights/xae fusmae_lite/weights/xae-lite.safetensors

The last checkpoint, without its optimiser, with what its card says: command, data, steps, seed, licence, held-out loss.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fusmae_lite.core.config import RunConfig
from fusmae_lite.data.archives import open_data
from fusmae_lite.evaluation import heldout_losses
from fusmae_lite.systems.weights import load_model, save_model
from fusmae_lite.train.checkpoints import latest_checkpoint

LARGEST = 12_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("file", type=Path, help="the file to write")
    given = parser.parse_args()
    checkpoint = latest_checkpoint(given.run / "pretrain" / "checkpoints")
    if checkpoint is None:
        parser.error(f"no checkpoint in {given.run}; train first: make weights")
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    config = RunConfig(**state["config"])
    model, archive = load_model(checkpoint / "model.safetensors"), open_data(config)
    heldout = {name: round(value, 4) for name, value in heldout_losses(model, archive, config).items()}
    extra = {
        "command": f"make weights (fusion={config.fusion})",
        "run": {k: v for k, v in state["config"].items() if v != RunConfig.model_fields[k].default and k != "run_dir"},
        "data": f"the {len(archive.split('train'))} training pairs of data_samples (BigEarthNet-MM v1), and synthetic "
        "scenes drawn from statistics of the same pairs",
        "steps": state["step"],
        "precision": state["precision"],
        "seed": config.seed,
        "licence": "Apache-2.0",
        "heldout": {**heldout, "split": "val"},
    }
    save_model(given.file, model, extra)
    size = given.file.stat().st_size
    print(f"{given.file}: {size / 1e6:.1f} MB, {state['step']} steps, held out {heldout}")
    if size > LARGEST:
        parser.error(f"{given.file} has {size:,} bytes; a shipped file has at most {LARGEST:,}")


if __name__ == "__main__":
    main()
