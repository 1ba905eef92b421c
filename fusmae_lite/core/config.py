"""One typed, flat configuration. Presets are TOML files of it; notebooks and the console override single fields."""

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, ValidationInfo, field_validator, model_validator

from fusmae_lite.core.architecture import (
    SYSTEM_DEFAULTS,
    Chance,
    Count,
    DinoConfig,
    Folder,
    Free,
    ModelConfig,  # noqa: F401  where everyone looks for it
    Rate,
    RateOrZero,
    Share,
    as_tuple,
    setting,
    shown,
)
from fusmae_lite.core.errors import InputError, choose

PRESETS = ("smoke", "laptop", "paper", "paper-small", "paper-large")
#: In a notebook's parameters cell these mean "as the preset says".
UNSET = ("", -1, "-1", None)


def _none(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() in ("none", "null") else value


class RunConfig(DinoConfig):
    """Everything a run depends on: the architecture and what is done with it. Load one with :func:`load_preset`."""

    preset: Free[str] = setting("smoke", "which preset the run started from")
    data_dir: Free[Folder] = setting("", "folder of an archive; empty: the bundled patches")
    split: Free[Literal["official", "random"]] = setting("official", "random: 60/20/20 of all pairs, by the seed")
    partial: Free[bool] = setting(False, "leave out what is missing or damaged instead of refusing it; first reads all")
    snow_and_clouds: Free[bool] = setting(False, "also the patches set apart for snow, clouds or their shadow")
    run_dir: Free[Folder] = setting("", "where results go; empty: runs/<preset> in the project")
    seed: int = setting(0, "every random choice follows from it", ge=0, le=2**63 - 1)

    epochs: Count = setting(100, "passes over the training split")
    batch_size: Count = setting(200, "pairs per optimiser step, on all devices together")
    accumulate: Free[Count] = setting(1, "pieces each device's share of a batch is cut into, for memory")
    learning_rate: Rate = setting(1.5625e-4, "peak of the schedule")
    min_learning_rate: RateOrZero = setting(0.0, "end of the cosine")
    warmup_epochs: float = setting(5.0, "epochs of linear warm-up; fractions are legal", ge=0, le=1e6)
    weight_decay: RateOrZero = setting(0.05, "on matrices only, never on norms, biases, positions, tokens")
    weight_decay_end: Annotated[RateOrZero | None, BeforeValidator(_none)] = setting(
        None, "where a cosine takes weight_decay; none: constant"
    )
    betas: Annotated[tuple[Share, Share], BeforeValidator(as_tuple)] = setting((0.9, 0.95), "of AdamW")
    clip_grad: float = setting(0.0, "largest gradient norm; 0: no clipping", ge=0, le=1e6)
    augment: Literal["none", "flips", "crops"] = setting("flips", "applied to both sensors alike")
    jitter: RateOrZero = setting(0.0, "strength of a random gain, offset and offset of each band; 1: usual")
    synthetic: bool = setting(False, "half of each batch are synthetic scenes, each seen once")
    sensor_dropout: Chance = setting(0.0, "chance that a step shows each sensor alone (not dino)")
    loss_weights: dict[str, RateOrZero] = setting(
        {}, "of sensors' losses, as in s1=0.5,s2=2; 1 unless named (not dino, satvit)"
    )
    precision: Literal["auto", "fp32", "bf16"] = setting("auto", "auto: bf16 where the hardware has it")
    device: Free[Literal["auto", "cpu", "cuda", "mps"]] = setting("auto", "auto: cuda, then mps, then cpu")
    compile: Free[Literal["auto", "on", "off"]] = setting("auto", "torch.compile each block; auto: on CUDA")
    recompute: Free[bool] = setting(False, "recompute activations in the backward pass: less memory, more time")
    fsdp: Free[bool] = setting(False, "shard weights and moments over the devices, for models larger than one")
    processes: Free[int] = setting(1, "processes that share each batch, one for each GPU", gt=0, le=64)
    workers: Free[int] = setting(0, "processes that read data, per device; 0: in the training process", ge=0, le=256)
    cache: Free[bool] = setting(False, "keep decoded patches in memory (small archives)")
    max_steps: Free[int] = setting(0, "stop after so many optimiser steps; 0: run every epoch", ge=0, le=10**12)
    checkpoint_every: Free[Count] = setting(1, "epochs between checkpoints")
    keep_checkpoints: Free[Count] = setting(2, "how many of the latest checkpoints stay on disk")

    validate_every: Free[int] = setting(
        0, "epochs between losses on the validation split; 0: at the end", ge=0, le=10**6
    )
    tensorboard: Free[bool] = setting(False, "also write the metrics for TensorBoard, to pretrain/tensorboard")

    probe: Free[Literal["converged", "paper", "nearest"]] = setting(
        "converged", "head on frozen features: to its minimum; the paper's epochs; 5 nearest neighbours"
    )
    probe_epochs: Free[Count] = setting(20, "epochs of the paper's probe")
    probe_batch_size: Free[Count] = setting(128, "batch of the paper's probe")
    probe_learning_rate: Free[Rate] = setting(1e-3, "of the paper's probe (the paper is silent)")
    label_fraction: Free[float] = setting(1.0, "share of the training labels the probe may use", gt=0, le=1)
    probe_seeds: Free[int] = setting(3, "label draws and head initialisations a figure is averaged over", gt=0, le=1000)
    protocol: Free[Literal["linear", "finetune"]] = setting("linear", "of evaluation: train the head, or everything")
    finetune_epochs: Free[Count] = setting(10, "epochs of fine-tuning")
    finetune_batch_size: Free[Count] = setting(128, "patches per step of fine-tuning")
    finetune_learning_rate: Free[Rate] = setting(5e-4, "peak, of the head; deeper layers learn slower")

    def folder(self) -> Path:
        """Folder of this run: `run_dir`, or ``runs/<preset>`` beside the notebooks. Not created here."""
        return Path(self.run_dir).expanduser() if self.run_dir else project_root() / "runs" / self.preset

    @field_validator("loss_weights", mode="before")
    @classmethod
    def _as_weights(cls, value: Any) -> Any:
        """``s1=0.5,s2=2``, or a dict as it is printed, as a dict."""
        if isinstance(value, dict):
            return value
        text = re.sub(r"[\s{}'\"]", "", str(value)).replace(":", "=")
        pairs = [part.split("=") for part in text.split(",") if text]
        if any(len(pair) != 2 for pair in pairs) or len({name for name, *_ in pairs}) != len(pairs):
            raise ValueError("write sensor=weight,sensor=weight, each sensor once")
        return dict(pairs)

    @field_validator("loss_weights", mode="after")
    @classmethod
    def _of_known_sensors(cls, weights: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        """Weights of 1 are left out, so that one run has one configuration."""
        names = info.data.get("modalities", tuple(weights))
        if unknown := [name for name in weights if name not in names]:
            raise ValueError(f"no sensor {shown(unknown[0])} in modalities {', '.join(names)}")
        if not any(weights.get(name, 1.0) for name in names):
            raise ValueError("all are 0, and nothing would be learned")
        return {name: weight for name, weight in sorted(weights.items()) if weight != 1}

    @model_validator(mode="after")
    def _run_is_possible(self) -> Self:
        if self.system in ("dino", "satvit") and self.loss_weights:
            raise ValueError(f"system {self.system} has one loss for all sensors; leave loss_weights out")
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}")
        if self.system == "dino" and self.sensor_dropout:
            raise ValueError("system dino drops sensors from its views; set sensor_drop instead of sensor_dropout")
        return self


def fields_that(role: Any) -> set[str]:
    """Fields of a :class:`RunConfig` annotated as `role`: :data:`Free`, :data:`LossOnly` or :data:`Folder`."""
    (mark,) = role.__metadata__
    return {name for name, field in RunConfig.model_fields.items() if mark in field.metadata}


def load_preset(preset: str = "smoke", **overrides: Any) -> RunConfig:
    """The configuration called `preset`, one of :data:`PRESETS`, with single fields replaced.

    An override of ``""``, ``-1`` or ``None`` means "as the preset says", so that a notebook's parameters cell can name
    a field without deciding it. What a baseline's method sets (``SYSTEM_DEFAULTS``) comes before the preset, an
    override before both. ``model_fields_set`` of the result names the overridden fields alone. Raises
    :class:`InputError` for an unknown preset, field or value.
    """
    if preset not in PRESETS:
        raise InputError(f"unknown preset {shown(preset)}", choose(shown(preset), PRESETS, "choose one of"))
    overridden = {name: value for name, value in overrides.items() if value not in UNSET}
    method = SYSTEM_DEFAULTS.get(str(overridden.get("system")), {})
    config = RunConfig(**{**_read_preset(preset), **method, "preset": preset, **overridden})
    return RunConfig.model_construct(set(overridden), **dict(config))


def _read_preset(name: str) -> dict[str, Any]:
    """Fields of a preset; ``paper-small`` is ``paper`` with some changed."""
    text = resources.files("fusmae_lite.core").joinpath(f"presets/{name}.toml").read_text(encoding="utf-8")
    larger = name.partition("-")[0]
    return {**(_read_preset(larger) if larger != name else {}), **tomllib.loads(text)}


def project_root() -> Path:
    """Folder that holds ``notebooks/`` and ``data_samples/``; raises :class:`InputError` outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "data_samples").is_dir():
        cure = "work in a clone of the repository (pip install -e .), or pass data_dir and run_dir"
        raise InputError(f"no data_samples folder in {root}", cure)
    return root


def describe_fields() -> str:
    """Fields by subject, a line each: the paper's value, other presets' where they differ, meaning and choices."""
    presets, paper = {name: _read_preset(name) for name in ("smoke", "laptop")}, _read_preset("paper")
    lines: dict[str, list[str]] = {group: [] for group in ("data", "model", "pretraining", "evaluation", "machine")}
    for name, field in RunConfig.model_fields.items():
        others = ", ".join(f"{preset} {shown(v[name])}" for preset, v in presets.items() if name in v)
        choices = [part for part in get_args(field.annotation) if isinstance(part, str)]
        values = f"; one of {', '.join(choices)}" if choices else ""
        value = f"{paper.get(name, field.default)!r}{f' ({others})' if others else ''}"
        lines[_group(name)].append(f"  {name} = {value}  {field.description}{values}")
    return "\n\n".join("\n".join([f"{group}:", *part]) for group, part in lines.items())


def _group(name: str) -> str:
    """Which part of ``--help`` a field stands in."""
    if name in DinoConfig.model_fields:
        return "model"
    if name in ("data_dir", "split", "partial", "snow_and_clouds", "synthetic", "augment", "jitter"):
        return "data"
    if name.startswith(("probe", "finetune", "label_", "protocol")):
        return "evaluation"
    about_the_machine = "preset run_dir precision device compile recompute fsdp processes workers cache accumulate"
    return "machine" if name in about_the_machine.split() else "pretraining"
