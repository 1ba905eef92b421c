"""One track: one system, one seed, one archive. Pretrain it, then score it by every protocol; keep every score.

Tables, intervals and figures are made of the scores afterwards: nothing is trained again to draw a figure otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import write_text
from fusmae_lite.core.seeding import derive
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Archive, open_archive, open_data
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation.features import frozen_features
from fusmae_lite.evaluation.finetune import fine_tune
from fusmae_lite.evaluation.probe import linear_probe
from fusmae_lite.evaluation.single_label import single_label_probe
from fusmae_lite.evaluation.table import labelled_rows, sensor_sets
from fusmae_lite.systems import System, build_model, imagenet_encoder
from fusmae_lite.systems.weights import save_tensors
from fusmae_lite.train.launch import launch
from fusmae_lite.train.optimise import choose_device
from fusmae_lite.train.pretrain import pretrain
from reproduce.plan import Plan

Pairs = dict[str, PairDataset]


@dataclass(frozen=True)
class Track:
    """What to run.

    Args:
        data: short name of the archive, part of file names.
        root: its folder; empty: the bundled pairs.
        key: a system or ablation of the plan.
        seed: of everything.
        epochs: of pretraining.
        transfer: folder of a SEN12MS archive to transfer to; empty: none.
    """

    data: str
    root: str
    key: str
    seed: int
    epochs: int
    transfer: str = ""

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
        first = next(iter(images.values()))
        side = self.config.image_size
        filled = {n: images.get(n, first.new_zeros(len(first), get_modality(n).channels, side, side))
                  for n in self.config.modalities}  # fmt: skip
        return self.encoder.encode(filled)


def run_track(plan: Plan, track: Track, folder: Path) -> Path:
    """Train and score; returns the JSON, which is written last: where it is, the track is complete.

    The scores lie beside it as safetensors: ``labels`` (test patches, classes), and one tensor of logits (test
    patches, classes) for each cell, called ``protocol|sensors|fraction|variant``.
    """
    path = folder / f"{track.name}.json"
    if path.is_file():
        return path
    config = plan.config(track.key, data_dir=track.root, seed=track.seed, epochs=track.epochs,
                         run_dir=str(folder / "runs" / track.name))  # fmt: skip
    archive = open_data(config)
    models, history = _encoders(plan, track, config, archive)
    scorer = _Scorer(plan, track, config, models)
    scorer.multi_label(archive)
    if track.transfer:
        scorer.transfer(open_archive(track.transfer))
    save_tensors(path.with_suffix(".safetensors"), scorer.scores, {})
    facts = {"data": track.data, "key": track.key, "seed": track.seed, "history": history, "counts": scorer.counts,
             "classes": scorer.classes, "refused": scorer.refused, "losses": scorer.losses}  # fmt: skip
    return write_text(path, json.dumps(facts, indent=1) + "\n")


def _encoders(
    plan: Plan, track: Track, config: RunConfig, archive: Archive
) -> tuple[dict[tuple[str, ...], System], list[float]]:
    """Sensors -> the encoder that sees them (one for all, but for ImageNet), and the losses of pretraining by epoch."""
    device = choose_device(config)
    if track.key == "imagenet":
        size = (config.width, config.depth, config.heads) if plan.imagenet == "random" else None
        make = {"weights": plan.imagenet, "image_size": config.image_size, "patch_size": config.patch_size}
        sets = sensor_sets(config.modalities)
        return {s: imagenet_encoder(s, seed=track.seed, size=size, **make).to(device) for s in sets}, []
    history: list[float] = []
    if plan.system(track.key).pretrained:
        result = pretrain(config, archive, quiet=True) if config.processes == 1 else launch(config, archive)
        model, history = result.model, [float(row["loss"]) for row in result.history]
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive("initialise", track.seed, 99))
            model = build_model(config)
    return dict.fromkeys(sensor_sets(config.modalities), model.to(device).eval()), history


class _Scorer:
    """Scores of one track's encoders by every protocol that its system has a place in."""

    def __init__(self, plan: Plan, track: Track, config: RunConfig, models: Mapping[tuple[str, ...], System]) -> None:
        self.plan, self.track, self.config, self.models = plan, track, config, models
        self.system = plan.system(track.key)
        self.scores: dict[str, Tensor] = {}
        self.counts: dict[str, list[int]] = {}
        self.losses: dict[str, list[float]] = {}
        self.refused: dict[str, str] = {}
        self.classes: dict[str, list[str]] = {}

    def multi_label(self, archive: Archive) -> None:
        """Table 1: linear evaluation at every label fraction, fine-tuning with all labels."""
        pairs = self._open(archive)
        self.scores["labels"] = torch.from_numpy(archive.labels[archive.split("test")]).float()
        self.scores["training labels"] = torch.from_numpy(archive.labels[archive.split("train")]).float()
        self.classes["labels"] = list(archive.classes)
        ablation = self.track.key in self.plan.ablations
        for sensors in sensor_sets(self.config.modalities):
            if self.system.linear:
                self._linear(pairs, sensors, "", self._pooling())
            if self.system.finetuned and not ablation:
                self._finetuned(pairs, sensors)
        if self.track.key == "xae":
            self._linear(pairs, self.config.modalities, "cls", "cls")
            for sensors in [(name,) for name in self.config.modalities]:
                self._linear(pairs, sensors, "zero-filled", "mean")

    def _pooling(self) -> str:
        return next(iter(self.models.values())).pooling

    def transfer(self, archive: Archive) -> None:
        """Table 2: SEN12MS through one sensor."""
        if not self.system.linear or self.track.key in self.plan.ablations:
            return
        pairs = self._open(archive)
        self.scores["land cover"] = torch.from_numpy(archive.labels[archive.split("test")]).float()
        self.classes["land cover"] = list(archive.classes)
        for sensors in [(name,) for name in self.config.modalities]:
            train, test = self._features(pairs, sensors, self._pooling())
            self._keep("transfer", sensors, 1.0, "", len(train.x),
                       single_label_probe(train.x, train.y, test.x, self.config, self.track.seed))  # fmt: skip

    def _linear(self, pairs: Pairs, sensors: tuple[str, ...], variant: str, pooling: str) -> None:
        train, test = self._features(pairs, sensors, pooling, variant == "zero-filled")
        for fraction in self.plan.fractions:
            config = self.config.model_copy(update={"label_fraction": fraction})
            try:
                rows = labelled_rows(train.y.numpy() > 0, config, 0, pairs["train"].archive.classes)
            except InputError as error:
                self.refused[_cell("linear", sensors, fraction, variant)] = str(error)
                continue
            scores = linear_probe(train.x[rows], train.y[rows], test.x, config, self.track.seed)
            self._keep("linear", sensors, fraction, variant, len(rows), scores)

    def _finetuned(self, pairs: Pairs, sensors: tuple[str, ...]) -> None:
        settings = self.plan.finetune
        if self.track.key == "supervised":
            settings = replace(settings, epochs=self.plan.supervised_epochs, layer_decay=1.0)
        settings = replace(settings, pooling=self._pooling())
        result = fine_tune(self.models[sensors], pairs["train"], pairs["test"], sensors, settings, seed=self.track.seed)
        self.losses[_cell("finetuned", sensors, 1.0, "")] = result.losses
        self._keep("finetuned", sensors, 1.0, "", len(pairs["train"]), result.scores)

    def _features(self, pairs: Pairs, sensors: Sequence[str], pooling: str, zeros: bool = False) -> list:
        model = self.models[tuple(sensors)]
        model = ZeroFilled(model) if zeros else model
        archive = pairs["train"].archive
        return [
            frozen_features(model, archive, s, sensors, pooling=pooling, dataset=pairs[s]) for s in ("train", "test")
        ]

    def _open(self, archive: Archive) -> Pairs:
        size, names = self.config.image_size, self.config.modalities
        return {
            s: PairDataset(archive, s, modalities=names, size=size, cache=self.config.cache) for s in ("train", "test")
        }

    def _keep(
        self, protocol: str, sensors: Sequence[str], fraction: float, variant: str, train: int, scores: Tensor
    ) -> None:
        key = _cell(protocol, sensors, fraction, variant)
        self.scores[key], self.counts[key] = scores, [train, len(scores)]


def _cell(protocol: str, sensors: Sequence[str], fraction: float, variant: str) -> str:
    return "|".join([protocol, "+".join(sensors).upper(), f"{fraction:g}", variant])
