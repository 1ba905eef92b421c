"""One track: one system, one seed, one archive. Pretrain it, then score it by every protocol; keep every score.

Tables, intervals and figures are made of the scores afterwards: nothing is trained again to draw a figure otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import write_text
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Archive, open_archive, open_data
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation.score import SPLITS, Scored, labelled_rows, score, sensor_sets, split_features
from fusmae_lite.evaluation.table import random_encoder
from fusmae_lite.systems import System, imagenet_encoder
from fusmae_lite.systems.weights import save_tensors
from fusmae_lite.train.launch import launch
from fusmae_lite.train.optimise import choose_device
from fusmae_lite.train.pretrain import pretrain
from reproduce.plan import Plan
from reproduce.scores import cell_key

Models = Mapping[tuple[str, ...], System]


@dataclass(frozen=True)
class Track:
    """What to run."""

    data: str  # short name of the archive, part of file names
    root: str  # its folder; empty: the bundled pairs
    key: str  # a system or ablation of the plan
    seed: int  # of everything
    epochs: int  # of pretraining
    transfer: str = ""  # folder of a SEN12MS archive to transfer to; empty: none

    @property
    def name(self) -> str:
        """Stem of its files."""
        return f"{self.data}-{self.key}-seed{self.seed}"


class ZeroFilled:
    """An encoder that is shown zeros, the mean of each band, in place of a sensor that is missing."""

    def __init__(self, encoder: System) -> None:
        self.encoder, self.config = encoder, encoder.config

    def __getattr__(self, name: str) -> object:
        return getattr(self.encoder, name)

    def encode(self, images: Mapping[str, Tensor]) -> object:
        """As the encoder's own, for all sensors."""
        first, side = next(iter(images.values())), self.config.image_size
        zeros = {n: first.new_zeros(len(first), get_modality(n).channels, side, side) for n in self.config.modalities}
        return self.encoder.encode({**zeros, **images})


def run_track(plan: Plan, track: Track, folder: Path) -> Path:
    """Train and score; returns the JSON, which is written last: where it is, the track is complete.

    The scores lie beside it as safetensors: ``labels`` (test patches, classes), and one tensor of logits (test
    patches, classes) for each cell, called ``protocol|sensors|fraction|variant``.
    """
    path = folder / f"{track.name}.json"
    if path.is_file():
        return path
    own = {"data_dir": track.root, "seed": track.seed, "epochs": track.epochs}
    config = plan.config(track.key, **own, run_dir=str(folder / "runs" / track.name))
    archive = open_data(config)
    models, history = _encoders(plan, track, config, archive)
    tensors = {"labels": _labels(archive, "test"), "training labels": _labels(archive, "train")}
    facts = {"data": track.data, "key": track.key, "seed": track.seed, "history": history, "counts": {},
             "classes": {"labels": list(archive.classes)}, "refused": {}, "losses": {}}  # fmt: skip
    cells = _multi_label(plan, track, config, archive, models)
    if track.transfer and plan.system(track.key).linear and track.key not in plan.ablations:
        land_cover = open_archive(track.transfer)
        tensors["land cover"], facts["classes"]["land cover"] = _labels(land_cover, "test"), list(land_cover.classes)
        cells = [*cells, *_transfer(track, config, land_cover, models)]
    for cell, scored in cells:
        if isinstance(scored, InputError):
            facts["refused"][cell] = str(scored)
            continue
        tensors[cell], facts["counts"][cell] = scored.logits, [scored.train, len(scored.logits)]
        if scored.losses:
            facts["losses"][cell] = scored.losses
    save_tensors(path.with_suffix(".safetensors"), tensors, {})
    return write_text(path, json.dumps(facts, indent=1) + "\n")


def _encoders(plan: Plan, track: Track, config: RunConfig, archive: Archive) -> tuple[Models, list[float]]:
    """Sensors -> the encoder that sees them (one for all, but for ImageNet), and the losses of pretraining by epoch."""
    device, sets = choose_device(config), sensor_sets(config.modalities)
    if track.key == "imagenet":
        size = (config.width, config.depth, config.heads) if plan.imagenet == "random" else None
        make = {"weights": plan.imagenet, "image_size": config.image_size, "patch_size": config.patch_size}
        return {s: imagenet_encoder(s, seed=track.seed, size=size, **make).to(device) for s in sets}, []
    if not plan.system(track.key).pretrained:
        return dict.fromkeys(sets, random_encoder(config, track.seed).to(device)), []
    result = pretrain(config, archive, quiet=True) if config.processes == 1 else launch(config, archive)
    return dict.fromkeys(sets, result.model.to(device).eval()), [float(row["loss"]) for row in result.history]


def _multi_label(
    plan: Plan, track: Track, config: RunConfig, archive: Archive, models: Models
) -> Iterator[tuple[str, Scored | InputError]]:
    """Table 1: linear evaluation at every label fraction, fine-tuning with all labels; for XAE, two ablations."""
    pairs, system = _open(archive, config), plan.system(track.key)
    settings = plan.finetune
    if track.key == "supervised":
        settings = replace(settings, epochs=plan.supervised_epochs, layer_decay=1.0)
    for sensors in sensor_sets(config.modalities):
        if system.linear:
            yield from _linear(plan, track, config, pairs, models[sensors], sensors)
        if system.finetuned and track.key not in plan.ablations:
            scored = score(models[sensors], pairs, sensors, "finetune", config, track.seed, settings=settings)
            yield cell_key("finetuned", _title(sensors)), scored
    if track.key == "xae":
        yield from _linear(plan, track, config, pairs, models[config.modalities], config.modalities, "cls", "cls")
        for sensors in [(name,) for name in config.modalities]:
            zero_filled = ZeroFilled(models[sensors])
            yield from _linear(plan, track, config, pairs, zero_filled, sensors, "zero-filled", "mean")


def _linear(
    plan: Plan,
    track: Track,
    config: RunConfig,
    pairs: dict[str, PairDataset],
    model: System,
    sensors: tuple[str, ...],
    variant: str = "",
    pooling: str = "",
) -> Iterator[tuple[str, Scored | InputError]]:
    features = split_features(model, pairs, sensors, config, pooling)
    for fraction in plan.fractions:
        cell = cell_key("linear", _title(sensors), fraction, variant)
        try:
            rows = labelled_rows(pairs["train"].archive, config, 0, fraction)
        except InputError as error:
            yield cell, error
            continue
        yield cell, score(model, pairs, sensors, "linear", config, track.seed, rows=rows, features=features)


def _transfer(track: Track, config: RunConfig, archive: Archive, models: Models) -> Iterator[tuple[str, Scored]]:
    """Table 2: SEN12MS through one sensor."""
    pairs = _open(archive, config)
    for sensors in [(name,) for name in config.modalities]:
        scored = score(models[sensors], pairs, sensors, "transfer", config, track.seed)
        yield cell_key("transfer", _title(sensors)), scored


def _open(archive: Archive, config: RunConfig) -> dict[str, PairDataset]:
    options = {"modalities": config.modalities, "size": config.image_size, "cache": config.cache}
    return {split: PairDataset(archive, split, **options) for split in SPLITS}


def _labels(archive: Archive, split: str) -> Tensor:
    return torch.from_numpy(archive.labels[archive.split(split)]).float()


def _title(sensors: tuple[str, ...]) -> str:
    return "+".join(sensors).upper()
