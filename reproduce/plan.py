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

PLANS = ("smoke", "laptop", "paper")


@dataclass(frozen=True)
class System:
    """A row of the tables."""

    title: str
    fields: Mapping[str, Any]  # of RunConfig, what makes it this system
    pretrained: bool = True  # here, by its own method
    finetuned: bool = True  # the halves of Table 1 it has a place in
    linear: bool = True
    own_size: Mapping[str, Any] = field(default_factory=dict)  # fields that make it as large as in its own paper


#: In the order of the tables. The first two need no pretraining: a floor for frozen features, a ceiling for trained.
SYSTEMS: dict[str, System] = {
    "random": System("random encoder", {"fusion": "xae"}, pretrained=False),
    "supervised": System("supervised ViT from scratch", {"fusion": "none"}, pretrained=False, linear=False),
    "imagenet": System("ImageNet ViT", {"system": "imagenet"}, pretrained=False),
    "dino": System("DINO-MM", {"system": "dino"}, own_size={"width": 384, "depth": 12, "heads": 6}),  # ViT-S/8
    "satvit": System("SatViT", {"system": "satvit"}),
    "none": System("MultiMAE-style", {"fusion": "none"}),
    "late": System("late fusion", {"system": "late"}),
    "xad": System("Fus-MAE XAD", {"fusion": "xad"}),
    "xae": System("Fus-MAE XAE", {"fusion": "xae"}),
    "both": System("Fus-MAE XAE + XAD", {"fusion": "both"}),
}

#: Changes of one thing, each compared with the system before the hyphen.
ABLATIONS: dict[str, System] = {
    "xae-consistent": System("XAE, consistent masking", {"fusion": "xae", "masking": "consistent"}),
    "xad-consistent": System("XAD, consistent masking", {"fusion": "xad", "masking": "consistent"}),
    "xae-half": System("XAE, 50 % masked", {"fusion": "xae", "mask_ratio": 0.5}),
    "xae-ninety": System("XAE, 90 % masked", {"fusion": "xae", "mask_ratio": 0.9}),
    "xae-normalised": System("XAE, normalised targets", {"fusion": "xae", "normalize_target": True}),
}


@dataclass(frozen=True)
class Plan:
    """Everything the results depend on beside the data."""

    preset: str
    seeds: tuple[int, ...]  # of pretraining, of the labels drawn, of the heads; one of each a seed
    systems: tuple[str, ...]  # keys of SYSTEMS
    ablations: tuple[str, ...]  # keys of ABLATIONS
    fractions: tuple[float, ...]  # of the training labels, for linear evaluation
    sparse: float  # which of them stands in Table 1, 1 % in the paper
    pairs: int  # sizes of the synthetic archives; 0: none is made
    triplets: int
    synthetic_epochs: int  # of pretraining
    real_epochs: int
    supervised_epochs: int
    imagenet: str  # imagenet, random or a checkpoint, as in imagenet_encoder
    redraws: int  # of the test patches and seeds, for an interval
    leakage_redraws: int  # random splits drawn to measure what leaking costs
    run: Mapping[str, Any]  # fields of RunConfig that all systems share
    finetune: FineTuneSettings = field(default_factory=FineTuneSettings)
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of run, by system, whose method asks so
    own_sizes: bool = False  # each system as large as in its own paper, instead of all of one size; for paper
    real: bool = True  # whether the bundled pairs are run as well

    def __post_init__(self) -> None:
        for name, known in (("systems", SYSTEMS), ("ablations", ABLATIONS)):
            unknown = [key for key in getattr(self, name) if key not in known]
            if unknown:
                raise InputError(f"plan: {name} has no {unknown[0]!r}", f"choose from {', '.join(known)}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise InputError(f"plan: seeds {list(self.seeds)}", "give one or more different numbers, 0 or above")
        if self.sparse not in self.fractions or 1.0 not in self.fractions:
            raise InputError(f"plan: fractions {list(self.fractions)}", f"keep {self.sparse} and 1.0 among them")

    def system(self, key: str) -> System:
        """The system or ablation called `key`."""
        return SYSTEMS[key] if key in SYSTEMS else ABLATIONS[key]

    def title(self, key: str) -> str:
        """What tables call it; an ImageNet ViT without ImageNet's weights says so."""
        random = key == "imagenet" and self.imagenet == "random"
        return self.system(key).title + (", random weights" if random else "")

    def config(self, key: str, **changes: Any) -> RunConfig:
        """The run configuration of one system."""
        own = self.system(key).own_size if self.own_sizes else {}
        given = {**self.run, **self.system(key).fields, **own, **self.overrides.get(key, {}), **changes}
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
