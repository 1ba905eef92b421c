"""Checkpoints of a training run: a folder a step, whole or absent, holding no pickle.

``checkpoints/step-00000120/`` holds ``model.safetensors`` (loadable on its own), ``optimizer.safetensors`` (AdamW's
moments) and ``state.json`` (the step, the metrics of the epoch in progress, the configuration).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from fusmae_lite.config import RunConfig
from fusmae_lite.errors import InputError
from fusmae_lite.model import FusMAE
from fusmae_lite.weights import load_model, read_tensors, save_model, save_tensors

#: Fields that may differ between a run and its continuation, because no number depends on them.
FREE_TO_CHANGE = {
    "preset", "data_dir", "run_dir", "max_steps", "device", "workers", "cache", "checkpoint_every", "keep_checkpoints",
    "probe_epochs", "probe_batch_size", "probe_learning_rate", "probe_seeds",
}  # fmt: skip


@dataclass
class Progress:
    """Where a run stands: optimiser steps done, and sums of the metrics over the epoch in progress."""

    step: int
    sums: dict[str, float]


def save_checkpoint(
    folder: Path, model: FusMAE, optimizer: torch.optim.Optimizer, progress: Progress, config: RunConfig, data: str
) -> Path:
    """Write one checkpoint beside the others and drop the oldest ones; returns its folder.

    Args:
        folder: the run's ``checkpoints`` folder.
        data: fingerprint of the patches trained on; a continuation on other patches is refused.
    """
    final = folder / f"step-{progress.step:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        save_model(temporary / "model.safetensors", model, {"step": progress.step, "preset": config.preset})
        save_tensors(temporary / "optimizer.safetensors", _moments(optimizer), {})
        state = {"step": progress.step, "sums": progress.sums, "config": config.model_dump(mode="json"), "data": data}
        (temporary / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in list_checkpoints(folder)[: -config.keep_checkpoints]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first. A half-written one carries another name and is never listed."""
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").is_file())


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a run's ``checkpoints`` folder, if there is one."""
    found = list_checkpoints(folder)
    return found[-1] if found else None


def resume(path: Path, model: FusMAE, optimizer: torch.optim.Optimizer, config: RunConfig, data: str) -> Progress:
    """Load a checkpoint into `model` and `optimizer`; returns where the run stood.

    Raises:
        InputError: it belongs to a run with another configuration or other patches.
    """
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    now = config.model_dump(mode="json")
    cure = "choose another run_dir, or remove that folder to start over"
    for name, value in now.items():
        if name not in FREE_TO_CHANGE and state["config"].get(name) != value:
            raise InputError(
                f"{path.parent} belongs to a run with {name}={state['config'].get(name)!r}, not {value!r}", cure
            )
    if state["data"] != data:
        raise InputError(f"{path.parent} belongs to a run on other patches", cure)
    model.load_state_dict(load_model(path / "model.safetensors", config).state_dict())
    _restore_moments(optimizer, read_tensors(path / "optimizer.safetensors")[0])
    return Progress(state["step"], state["sums"])


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    states = optimizer.state_dict()["state"]
    return {f"{index}.{name}": torch.as_tensor(value) for index, s in states.items() for name, value in s.items()}


def _restore_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        states.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
