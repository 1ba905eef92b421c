"""One track: one system, one seed, one archive. Pretrain it, then score it by every protocol; keep every score.

Tables, intervals and figures are made of the scores afterwards: nothing is trained again to draw a figure otherwise.
A row of the long table is a score; its logits lie beside it, so that differences can be paired.
"""

from __future__ import annotations

import copy
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.files import write_text
from fusmae_lite.core.seeding import derive
from fusmae_lite.data.archives import Archive, open_archive
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation.converged import converged_probe
from fusmae_lite.evaluation.features import Features, batches, precision
from fusmae_lite.evaluation.finetune import fine_tune
from fusmae_lite.evaluation.floors import floors
from fusmae_lite.evaluation.metrics import average_precision, class_numbers, single_label_scores
from fusmae_lite.evaluation.probe import labelled_subset, probe, single_label_probe
from fusmae_lite.evaluation.table import random_encoder, sensor_sets
from fusmae_lite.model.blocks import Blocks
from fusmae_lite.systems import System, imagenet_encoder
from fusmae_lite.systems.tensors import save_tensors
from fusmae_lite.train.launch import launch
from fusmae_lite.train.optimise import choose_device
from fusmae_lite.train.pretrain import pretrain
from reproduce.plan import SYSTEMS, Plan
from reproduce.scenes import TRUTH, Pairs, load_pairs, make_scenes

BOTH = ("s1", "s2")
#: Probes of the second table: the paper's, one that has converged, nearest neighbours.
PROBES = ("converged", "paper", "nearest")


@dataclass(frozen=True)
class Track:
    """What to run."""

    data: str  # scenes, given, truth, or curve and real-curve: what is trained on
    key: str  # a system of the plan, or floors
    seed: int  # of everything
    root: str = ""  # folder of a given archive
    transfer: str = ""  # folder of a SEN12MS archive to transfer to; empty: none
    pairs: int = 0  # unlabelled pairs; 0: the whole training split

    @property
    def name(self) -> str:
        """Stem of its files."""
        return f"{self.data}-{self.key}-{f'{self.pairs}-' if self.pairs else ''}seed{self.seed}"


class Results:
    """Rows of the long table and the logits behind them, as they come."""

    def __init__(self, track: Track, archive: Archive) -> None:
        self.rows: list[dict[str, Any]] = []
        self.labels = {split: archive.labels[archive.split(split)] for split in ("train", "test")}
        self.tensors = {"labels": torch.from_numpy(self.labels["test"]).float()}
        self.transfer: dict[str, Any] = {"rows": []}
        self._facts = {"data": track.data, "system": track.key, "seed": track.seed, "unlabelled": track.pairs}

    def add(self, logits: Tensor, **facts: Any) -> None:
        """One score of the test pairs; `facts` name its row."""
        truth = self.labels["test"]
        scored = average_precision(truth, logits.numpy())
        cell = f"{len(self.rows):03d}"
        self.tensors[cell] = logits.contiguous()
        numbers = {"micro": scored.micro, "macro": scored.macro, "test": len(truth), "cell": cell}
        self.rows.append({**self._facts, **facts, **numbers})


def run_track(plan: Plan, track: Track, folder: Path) -> Path:
    """Train and score; returns the JSON, which is written last: where it is, the track is complete."""
    path = folder / f"{track.name}.json"
    if path.is_file():
        return path
    began = time.process_time()
    archive = open_pairs(plan, track, folder.parent)
    results, facts = Results(track, archive), {}
    if track.key == "floors":
        _score_floors(plan, track, archive, results)
    else:
        facts = _score_system(plan, track, archive, results, folder)
    save_tensors(path.with_suffix(".safetensors"), results.tensors, {})
    facts |= {"rows": results.rows, "classes": list(archive.classes), "seconds": time.process_time() - began}
    return write_text(path, json.dumps(facts) + "\n")


@lru_cache(maxsize=2)
def _held(data: str, sizes: tuple[int, int, int], side: int, folder: Path) -> Pairs:
    if data == "real":
        return load_pairs(open_archive(), side)
    truth = TRUTH if data == "truth" else None
    return make_scenes(folder / "data" / f"{data}.safetensors", sizes, side, 5, truth)


def open_pairs(plan: Plan, track: Track, folder: Path) -> Archive:
    """The archive whose labels score the track."""
    if track.root:
        return open_archive(track.root)
    data = "truth" if track.data == "truth" else "scenes"
    return _held(data, plan.truth if data == "truth" else plan.scenes, plan.side, folder)


def _encoders(
    plan: Plan, track: Track, archive: Archive, folder: Path
) -> Iterator[tuple[str, Mapping[tuple[str, ...], System], list[float]]]:
    """``pretrained`` and ``untrained``: sensors -> the encoder that sees them, and the losses by epoch."""
    unlabelled = _unlabelled(plan, track, archive, folder.parent)
    plan = replace(plan, steps=plan.truth_steps) if track.data == "truth" else plan
    config = plan.config(track.key, len(unlabelled.split("train")), data_dir=track.root, seed=track.seed,
                         run_dir=str(folder / "runs" / track.name))  # fmt: skip
    device, sets = choose_device(config), sensor_sets(config.modalities)
    if track.key == "imagenet":
        size = (config.width, config.depth, config.heads) if plan.imagenet == "random" else None
        make = {"image_size": config.image_size, "patch_size": config.patch_size, "seed": track.seed}
        if plan.imagenet != "random":
            yield "pretrained", {s: imagenet_encoder(s, weights=plan.imagenet, **make).to(device) for s in sets}, []
        yield "untrained", {s: imagenet_encoder(s, weights="random", size=size, **make).to(device) for s in sets}, []
        return
    result = pretrain(config, unlabelled, quiet=True) if config.processes == 1 else launch(config, unlabelled)
    losses = [float(row["loss"]) for row in result.history]
    yield "pretrained", dict.fromkeys(sets, result.model.to(device).eval()), losses
    yield "untrained", dict.fromkeys(sets, random_encoder(config, track.seed).to(device)), []


def _unlabelled(plan: Plan, track: Track, archive: Archive, folder: Path) -> Archive:
    """What is pretrained on."""
    if track.data == "real-curve":
        archive = _held("real", plan.scenes, plan.side, folder)
    return archive.only(track.pairs) if track.pairs and isinstance(archive, Pairs) else archive


def _score_system(plan: Plan, track: Track, archive: Archive, results: Results, folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for weights, models, losses in _encoders(plan, track, archive, folder):
        facts |= {"losses": losses} if weights == "pretrained" else {}
        for sensors, model in models.items():
            if track.data.endswith("curve") and sensors != BOTH:
                continue
            _probe_all(plan, track, archive, model, sensors, results, weights)
        if track.key in plan.tuned and track.data in ("scenes", "given"):
            _fine_tune(plan, track, archive, models, results, weights)
        if track.key in plan.factors and track.data == "scenes" and track.seed in plan.seeds[:2]:
            _factors(plan, track, archive, models[BOTH], results, weights)
        if track.transfer and not SYSTEMS[track.key].base:
            facts |= _transfer(plan, track, models, results, weights)
    return facts


def _probe_all(
    plan: Plan, track: Track, archive: Archive, model: System, sensors: tuple[str, ...], results: Results, weights: str
) -> None:
    """Every probe at every number of labels; side by side and with deviations where both sensors are seen."""
    full = track.data in ("scenes", "given") and sensors == BOTH
    poolings = ("sensors", "moments") if full else ("sensors",)
    sets = labelled_sets(plan.labels, results.labels["train"], track.seed)
    pool = max(sets.values(), key=len)
    configs = {how: plan.config("xae", probe=how, seed=track.seed) for how in PROBES}
    for pooling, features in extract(model, archive, sensors, poolings, pool, model.config).items():
        for (labels, rows), how in itertools.product(
            sets.items(), PROBES if full and pooling == "sensors" else PROBES[:1]
        ):
            logits = probe(features, np.searchsorted(pool, rows), configs[how], track.seed)
            results.add(logits, weights=weights, protocol=how, sensors="+".join(sensors).upper(), pooling=pooling,
                        labels=labels, train=len(rows), width=features[0].x.shape[1])  # fmt: skip


def labelled_sets(wanted: Sequence[float], labels: NDArray[np.bool_], seed: int) -> dict[float, NDArray]:
    """Numbers or shares of labels -> positions in the training split, each set within the larger ones."""
    sets, pool = {}, np.arange(len(labels))
    for size in sorted(wanted, reverse=True):
        count = size if size > 1 else round(size * len(labels))
        pool = pool[labelled_subset(labels[pool], min(1.0, count / len(pool)), derive("probe", seed, 0, 2))]
        sets[size] = pool
    return sets


@torch.no_grad()
def extract(
    model: System, archive: Archive, sensors: Sequence[str], poolings: Sequence[str], rows: NDArray, config: RunConfig
) -> dict[str, list[Features]]:
    """Pooling -> frozen features of some training pairs, of test and of val; one pass for all poolings.

    A method with a pooling of its own, as DINO-MM's CLS tokens, keeps it instead of the mean of each sensor.
    """
    device, parts = next(model.parameters()).device, {pooling: [] for pooling in poolings}
    for split in ("train", "test", "val"):
        chosen = archive.split(split)[rows] if split == "train" else archive.split(split)
        if not len(chosen):  # SEN12MS has no validation scenes
            continue
        xs: dict[str, list[Tensor]] = {pooling: [] for pooling in poolings}
        for images in _images(archive, chosen, sensors, config.image_size, device):
            with precision(device, None):
                latents = model.eval().encode(images)
            for pooling, made in xs.items():
                own = pooling == "own" or (pooling == "sensors" and model.pooling != "mean")
                made.append(latents.pooled(model.pooling if own else pooling).float().cpu())
        y = torch.from_numpy(archive.labels[chosen]).float()
        for pooling, made in xs.items():
            parts[pooling].append(Features(torch.cat(made), y))
    return parts


def _images(
    archive: Archive, rows: NDArray, sensors: Sequence[str], size: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    if isinstance(archive, Pairs):
        for part in torch.from_numpy(rows).split(128):
            yield {name: archive.images[name][part].to(device) for name in sensors}
        return
    pairs = PairDataset(archive, indices=rows, modalities=tuple(sensors), size=size, native=True)
    for images, _ in batches(pairs, 128, sensors, device):
        yield images


def _score_floors(plan: Plan, track: Track, archive: Archive, results: Results) -> None:
    """Floors of every set of sensors, by the converged probe. Texture and statistics have no seed but the labels'."""
    config, sets = plan.config("xae"), labelled_sets(plan.labels, results.labels["train"], track.seed)
    rows = max(sets.values(), key=len)
    for sensors in sensor_sets(config.modalities):
        for name, floor in floors(config, sensors, track.seed).items():
            (features,) = extract(floor, archive, sensors, ("mean",), rows, config).values()
            for labels, chosen in sets.items():
                logits = probe(features, np.searchsorted(rows, chosen), config, track.seed)
                seen = {"sensors": "+".join(sensors).upper(), "pooling": "sensors", "width": features[0].x.shape[1]}
                results.add(logits, weights=name, protocol="converged", labels=labels, train=len(chosen), **seen)


def _fine_tune(plan: Plan, track: Track, archive: Archive, models: Mapping, results: Results, weights: str) -> None:
    """From pretrained weights, with both ways to start the head; and from scratch, for longer."""
    sets = labelled_sets(plan.tuned_labels, results.labels["train"], track.seed)
    config = plan.config(track.key, seed=track.seed)
    options = {"modalities": config.modalities, "size": config.image_size, "cache": True, "native": True}
    pairs = {split: PairDataset(archive, split, **options) for split in ("train", "test")}
    for labels, rows in sets.items():
        for start in ("prior", "probe") if weights == "pretrained" else ("prior",):
            model, epochs = models[BOTH], plan.finetune.epochs if weights == "pretrained" else plan.scratch_epochs
            decay = plan.finetune.layer_decay if weights == "pretrained" else 1.0
            settings = replace(plan.finetune, epochs=epochs, layer_decay=decay, pooling=model.pooling, start=start)
            tuned = fine_tune(model, pairs["train"], pairs["test"], BOTH, settings, rows, track.seed, config)
            results.add(tuned.scores, weights=weights, protocol=f"fine-tuned, {start}", sensors="S1+S2",
                        pooling=model.pooling, labels=labels, train=len(rows), width=0)  # fmt: skip


def _factors(plan: Plan, track: Track, archive: Archive, model: System, results: Results, weights: str) -> None:
    """The same encoder read otherwise: layer, pooling and normalisation, for the variance budget."""
    sets = labelled_sets(plan.labels, results.labels["train"], track.seed)
    labels, rows = min(sets.items(), key=lambda item: abs(len(item[1]) - 100))
    middle = copy.deepcopy(model)
    for module in middle.modules():
        if isinstance(module, Blocks):
            del module[len(module) // 2 :]
    for layer, reader in (("last", model), ("middle", middle)):
        pooled = extract(reader, archive, BOTH, ("mean", "sensors", "moments"), rows, model.config)
        for (pooling, (train, test, val)), scaled in itertools.product(pooled.items(), (True, False)):
            head = converged_probe(train.x, train.y, (val.x, val.y), scaled)
            results.add(head.logits(test.x), weights=weights, protocol="factors", sensors="S1+S2", pooling=pooling,
                        labels=labels, train=len(rows), width=train.x.shape[1], layer=layer, scaled=scaled)  # fmt: skip


def _transfer(plan: Plan, track: Track, models: Mapping, results: Results, weights: str) -> dict[str, Any]:
    """Table 2: SEN12MS through one sensor. Its rows and labels stand apart, because its pairs are others."""
    archive = _triplets(track.transfer, plan.side) if plan.side else open_archive(track.transfer)
    truth, rows = class_numbers(archive.labels[archive.split("test")]), np.arange(len(archive.split("train")))
    made = results.transfer
    made["truth"] = truth.tolist()
    made["classes"] = list(archive.classes)
    for sensors, model in models.items():
        if len(sensors) > 1:
            continue
        ((train, test, *_),) = extract(model, archive, sensors, ("own",), rows, model.config).values()
        logits = single_label_probe(train.x, train.y, test.x, plan.config("xae"), track.seed)
        scores = asdict(single_label_scores(truth, logits.numpy(), archive.classes))
        made["rows"].append({"system": track.key, "seed": track.seed, "weights": weights, "sensors": sensors[0].upper(),
                             "test": int((truth >= 0).sum()), **scores})  # fmt: skip
        results.tensors[f"transfer {weights} {sensors[0]}"] = logits.contiguous()
    return {"transfer": made}


@lru_cache(maxsize=1)
def _triplets(root: str, side: int) -> Pairs:
    return load_pairs(open_archive(root), side)
