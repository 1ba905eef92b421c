"""Checkpoints of a training run: a folder a step, whole or absent, holding no pickle.

``checkpoints/step-00000120/`` holds ``model.safetensors`` (loadable on its own), ``optimizer.safetensors`` (AdamW's
moments by parameter name) and ``state.json`` (:class:`Progress`). One process, many and sharded weights write the same.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from fusmae_lite.core.architecture import Free
from fusmae_lite.core.config import RunConfig, fields_that
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.files import write_folder, write_text
from fusmae_lite.data.identity import difference
from fusmae_lite.systems.tensors import check_digest, check_tensors, read_tensors, save_tensors
from fusmae_lite.systems.weights import load_model, save_model_tensors


@dataclass
class Progress:
    """Where a run stands: what state.json holds."""

    step: Annotated[int, Field(ge=0)]  # optimiser steps done; every random choice follows from it and the seed
    sums: dict[str, FiniteFloat]  # of the metrics over the epoch in progress
    precision: Literal["fp32", "bf16"]  # of the steps
    data: str  # identity_of the pairs trained on; a continuation on others is refused
    config: dict[str, Any]  # of the run, as JSON


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, config: RunConfig
) -> Path:
    """Write one checkpoint into the run's ``checkpoints`` folder and drop the oldest ones; returns its own folder.

    Every process must call it, because weights may be sharded; the first one gets them whole and writes. RunError if
    weights or moments are not finite, or the disk is full or fails; the checkpoints before this one are intact.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights, states = get_state_dict(model, optimizer, options=options)
    path = folder / f"step-{progress.step:08d}"
    if not weights:
        return path
    moments = {f"{name}.{kind}": torch.as_tensor(v) for name, s in states["state"].items() for kind, v in s.items()}
    for name, value in [*weights.items(), *moments.items()]:
        if not value.isfinite().all():
            raise RunError(
                f"{name} is no longer finite at step {progress.step}, so it is not saved; {kept(folder)}; lower "
                "learning_rate and choose another run_dir"
            )

    def fill(place: Path) -> None:
        extra = {"step": progress.step, "preset": config.preset}
        save_model_tensors(place / "model.safetensors", weights, config.architecture(), extra)
        save_tensors(place / "optimizer.safetensors", moments, {})
        write_text(place / "state.json", json.dumps(vars(progress), indent=1))

    try:
        for left in folder.glob(".step-*.tmp"):  # by a process that was killed: only this run writes here
            shutil.rmtree(left, ignore_errors=True)
        write_folder(path, fill)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"checkpoint {path} could not be written ({error}); {kept(folder)}; free space on that disk, then the "
            "same command continues"
        ) from None
    for old in list_checkpoints(folder)[: -config.keep_checkpoints]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first. A half-written one carries another name and is never listed."""
    named = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8,18}", path.name)]
    return sorted((path for path in named if (path / "state.json").is_file()), key=_step_of)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a run's ``checkpoints`` folder, if there is one."""
    return next(reversed(list_checkpoints(folder)), None)


def kept(folder: Path) -> str:
    """What a message says of the checkpoints that are there."""
    last = latest_checkpoint(folder)
    return f"{last} is intact" if last else "there is no earlier one"


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _without(path: Path) -> str:
    """How to go on without a damaged checkpoint."""
    before = [other for other in list_checkpoints(path.parent) if _step_of(other) < _step_of(path)]
    return f"remove {path} to " + (f"continue from {before[-1].name}" if before else "start over")


def read_progress(path: Path, now: Progress) -> Progress:
    """Where the run of a checkpoint stood, `now` being where one with this configuration starts.

    InputError if it is damaged or belongs to a run with another configuration, other patches or another precision.
    """
    cure, file = "choose another run_dir, or remove that folder to start over", path / "state.json"
    try:
        before = TypeAdapter(Progress).validate_json(file.read_bytes(), strict=True)
    except (OSError, ValidationError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_input=False)[0]
            reason = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        raise InputError(f"{file} is unreadable ({reason})", _without(path)) from None
    if before.step != _step_of(path):
        raise InputError(f"{file} is of step {before.step}, not {_step_of(path)}", _without(path))
    for name in [name for name in now.config if name not in fields_that(Free)]:
        value = before.config.get(name, RunConfig.model_fields[name].default)  # the run may be older than the field
        if value != now.config[name]:
            raise InputError(f"{path.parent} belongs to a run with {name}={value!r}, not {now.config[name]!r}", cure)
    if changed := difference(before.data, now.data):
        raise InputError(f"{path.parent} belongs to a run on other patches: {changed[0]}", f"{changed[1]}, or {cure}")
    if before.precision != now.precision:
        raise InputError(f"{path.parent} was computed in {before.precision}, this would be {now.precision}", cure)
    return replace(before, config=now.config)


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, config: RunConfig) -> None:
    """Load weights and moments into `model` and `optimizer`, in every process; InputError, before either is changed."""
    loaded = load_model(path / "model.safetensors", config)
    shapes = {name: p.shape for name, p in loaded.named_parameters() if p.requires_grad}
    states = _read_moments(path, shapes)
    moments = {"state": states, "param_groups": get_state_dict(model, optimizer)[1]["param_groups"]}
    options = StateDictOptions(full_state_dict=True)
    set_state_dict(model, optimizer, model_state_dict=loaded.state_dict(), optim_state_dict=moments, options=options)


def _read_moments(path: Path, shapes: Mapping[str, torch.Size]) -> dict[str, dict[str, Tensor]]:
    """AdamW's state by parameter, compared with the parameters first: its fused kernel does not ask for sizes."""
    file, cure = path / "optimizer.safetensors", _without(path)
    tensors, metadata = read_tensors(file)
    wanted = {f"{name}.{kind}": shape for name, shape in shapes.items() for kind in ("exp_avg", "exp_avg_sq")}
    wanted |= {f"{name}.step": torch.Size() for name in shapes}
    check_tensors(file, tensors, wanted, cure)
    step = min(_step_of(path), 2**24)  # where counting by one in float32 ends
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, kind = key.rpartition(".")
        if kind == "exp_avg_sq" and (value < 0).any():
            raise InputError(f"{file}: {key} holds negative values", cure)
        if kind == "step" and value != step:
            raise InputError(f"{file}: {key} is {value:g}, not {step}", cure)
        states.setdefault(name, {})[kind] = value
    check_digest(file, tensors, metadata)
    return states
