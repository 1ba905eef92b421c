"""What is run for the tables: which systems, on which data, how often. One TOML file a preset, checked when loaded."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from typing import Any

from fusmae_lite.core.config import RunConfig, load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.evaluation.finetune import FineTuneSettings
from reproduce import PLANS


@dataclass(frozen=True)
class Entry:
    """A system of the tables, or a change of one."""

    title: str
    fields: Mapping[str, Any]  # of RunConfig, what makes it this system
    own_size: Mapping[str, Any] = field(default_factory=dict)  # fields that make it as large as in its own paper
    base: str = ""  # of a change: the system it changes


#: In the order of the tables.
SYSTEMS: dict[str, Entry] = {
    "imagenet": Entry("ImageNet ViT", {"system": "imagenet"}),
    "dino": Entry("DINO-MM", {"system": "dino"}, {"width": 384, "depth": 12, "heads": 6}),  # ViT-S/8
    "satvit": Entry("SatViT", {"system": "satvit"}),
    "none": Entry("MultiMAE-style", {"fusion": "none"}),
    "late": Entry("late fusion", {"system": "late"}),
    "xad": Entry("Fus-MAE XAD", {"fusion": "xad"}),
    "xae": Entry("Fus-MAE XAE", {"fusion": "xae"}),
    "xae-consistent": Entry("XAE, consistent masking", {"fusion": "xae", "masking": "consistent"}, base="xae"),
    "xad-consistent": Entry("XAD, consistent masking", {"fusion": "xad", "masking": "consistent"}, base="xad"),
    "xae-dropout": Entry("XAE, sensor dropout 0.2", {"fusion": "xae", "sensor_dropout": 0.2}, base="xae"),
    "xae-normalised": Entry("XAE, normalised targets", {"fusion": "xae", "normalize_target": True}, base="xae"),
}


@dataclass(frozen=True)
class Plan:
    """Everything the results depend on beside the data."""

    preset: str
    seeds: tuple[int, ...]  # of pretraining, of the labels drawn, of the heads; one of each a seed
    systems: tuple[str, ...]  # keys of SYSTEMS
    labels: tuple[float, ...]  # labelled training pairs: above 1 their number, else their share
    run: Mapping[str, Any]  # fields of RunConfig that all systems share
    imagenet: str = "random"  # imagenet, random or a checkpoint, as in imagenet_encoder
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of run and steps, by system
    own_sizes: bool = False  # each system as large as in its own paper, instead of all of one size; for paper
    side: int = 0  # pixels of pairs that are held in memory; 0: archives are read as they are
    scenes: tuple[int, int, int] = (0, 0, 0)  # synthetic pairs of train, val and test, if no archive is named
    steps: int = 0  # of pretraining on pairs in memory, whatever their number; 0: the epochs of `run`
    tuned: tuple[str, ...] = ()  # systems that are fine-tuned as well
    tuned_labels: tuple[float, ...] = ()
    finetune: FineTuneSettings = field(default_factory=FineTuneSettings)
    scratch_epochs: int = 10  # of fine-tuning from untrained weights
    curve: tuple[int, ...] = ()  # unlabelled synthetic pairs, of the break-even curve
    real_curve: tuple[int, ...] = ()  # unlabelled real pairs
    curve_seeds: tuple[int, ...] = (0,)
    truth: tuple[int, int, int] = (0, 0, 0)  # synthetic pairs with known truth
    truth_seeds: tuple[int, ...] = ()
    truth_steps: int = 0
    triplets: int = 0  # of a synthetic SEN12MS, if none is named
    factors: tuple[str, ...] = ()  # systems of the variance budget
    redraws: int = 300  # of the test pairs and seeds, for an interval
    leakage_redraws: int = 0  # random splits drawn to measure what leaking costs

    def __post_init__(self) -> None:
        for name in ("systems", "tuned", "factors"):
            unknown = [key for key in getattr(self, name) if key not in SYSTEMS]
            if unknown:
                raise InputError(f"plan: {name} has no {unknown[0]!r}", f"choose from {', '.join(SYSTEMS)}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise InputError(f"plan: seeds {list(self.seeds)}", "give one or more different numbers, 0 or above")
        if not self.labels or min(self.labels) <= 0:
            raise InputError(f"plan: labels {list(self.labels)}", "give shares up to 1, or numbers of pairs")

    def title(self, key: str) -> str:
        """What tables call it; an ImageNet ViT without ImageNet's weights says so."""
        return SYSTEMS[key].title + (", random weights" if key == "imagenet" and self.imagenet == "random" else "")

    def config(self, key: str, pairs: int = 0, **changes: Any) -> RunConfig:
        """The run configuration of one system; with `steps`, as many epochs of `pairs` as come nearest."""
        own = SYSTEMS[key].own_size if self.own_sizes else {}
        given = {**self.run, **SYSTEMS[key].fields, **own, **self.overrides.get(key, {}), **changes}
        steps = round(self.steps * given.pop("share_of_steps", 1))
        if steps and pairs:
            epochs = max(1, round(steps / max(1, -(-pairs // given["batch_size"]))))
            given |= {"epochs": epochs, "warmup_epochs": epochs / 20, "checkpoint_every": epochs}
        return load_preset(given.pop("preset", "smoke"), **given)


def load_plan(preset: str, **changes: Any) -> Plan:
    """The plan of a preset, with single fields replaced, for example ``seeds=(0,)``, ``systems=("xae", "satvit")``.

    Raises:
        InputError: no such plan, system or field.
    """
    if preset not in PLANS:
        raise InputError(f"unknown preset {preset!r}", f"choose one of {', '.join(PLANS)}")
    text = resources.files("reproduce").joinpath(f"plans/{preset}.toml").read_text(encoding="utf-8")
    given = {"preset": preset, **tomllib.loads(text)}
    given["finetune"] = FineTuneSettings(**given.get("finetune", {}))
    plan = Plan(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})
    names = [f.name for f in fields(Plan)]
    unknown = set(changes) - set(names)
    if unknown:
        raise InputError(f"a plan has no {unknown.pop()!r}", f"those that exist: {', '.join(names)}")
    return replace(plan, **changes)
