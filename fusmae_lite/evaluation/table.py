"""One system's rows of Table 1 or 2 on whatever archive is given, with the rows a reader needs to judge it by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

import fusmae_lite
from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.locks import only_job
from fusmae_lite.core.progress import line
from fusmae_lite.core.seeding import derive
from fusmae_lite.data.archives import Archive, open_data
from fusmae_lite.data.archives.sen12ms import IGBP10
from fusmae_lite.data.loader import told_when_killed
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation.chosen import Chosen, choose_weights, shorten
from fusmae_lite.evaluation.finetune import FineTuneSettings
from fusmae_lite.evaluation.metrics import accuracy, interval, redraw_scores, redraw_values
from fusmae_lite.evaluation.probe import class_prior
from fusmae_lite.evaluation.score import SPLITS, Scored, labelled_rows, score, sensor_sets
from fusmae_lite.evaluation.single_label import class_numbers, single_label_scores
from fusmae_lite.evaluation.written import About, Table, write_table
from fusmae_lite.systems import System, build_model
from fusmae_lite.train.optimise import choose_device

OVER = "over test patches and seeds"


@dataclass(frozen=True)
class MultiLabelRow:
    """A row of Table 1: a system seen through some sensors; micro and macro AP are means over `seeds`."""

    system: str
    sensors: str  # S1, S2, S1+S2, or none
    micro: float
    macro: float
    low: float  # ends of the 95 % bootstrap interval of micro over test patches and seeds
    high: float
    seeds: int  # how many heads, and random encoders
    train: int  # labelled patches trained on
    test: int  # patches scored
    macro_low: float  # ends of the interval of macro, over the same redraws
    macro_high: float

    columns: ClassVar = {
        "system": "system", "sensors": "sensors", "micro AP": "micro", f"95 % interval of micro, {OVER}": "low high",
        "macro AP": "macro", f"95 % interval of macro, {OVER}": "macro_low macro_high",
        "seeds": "seeds", "train": "train", "test": "test",
    }  # fmt: skip


@dataclass(frozen=True)
class SingleLabelRow:
    """A row of Table 2: a system seen through one sensor; shares, means over `seeds`, see SingleLabelScores."""

    system: str
    sensors: str  # S1 or S2
    top1: float
    low: float  # ends of the 95 % bootstrap interval of top1 over test patches and seeds
    high: float
    top3: float
    precision: float
    recall: float
    f1: float
    seeds: int
    train: int  # patches with a class
    test: int

    columns: ClassVar = {
        "system": "system", "sensor": "sensors", "Top-1": "top1", f"95 % interval of Top-1, {OVER}": "low high",
        "Top-3": "top3", "precision": "precision", "recall": "recall", "F1": "f1",
        "seeds": "seeds", "train": "train", "test": "test",
    }  # fmt: skip


@told_when_killed()
def evaluate(config: RunConfig, archive: Archive | None = None, weights: Path | str | None = None) -> Table:
    """Class prior, random encoder and the pretrained system, Fus-MAE or a baseline, by ``config.protocol``.

    ``linear`` trains a head on frozen features, which are cached; on an archive with one class a patch, such as
    SEN12MS, it gives the columns of Table 2. ``finetune`` trains everything; the random encoder is then a supervised
    model from scratch. With ``label_fraction`` below 1 every seed draws its own labelled patches, the same for all
    systems. ``modalities`` may name some of the sensors of the weights: these alone are read and scored. Writes
    ``evaluation/table-linear.{json,md,csv}`` (or ``table-finetune``, ``table-transfer``) below ``config.folder()``.
    All systems at once: :func:`reproduce.run_results`.

    Args:
        config: preset with its probe settings. Encoders run on its device.
        archive: patches with labels; by default those at ``config.data_dir``, or the bundled ones.
        weights: by default this run's latest checkpoint; else ``xae-lite`` or ``xad-lite``, a file, or the folder of a
            run or a checkpoint. Fields of the model that :func:`load_preset` was given must be those of the weights.

    Raises:
        InputError: no checkpoint, weights of another model than was asked for, an empty split, or nothing to evaluate.
    """
    chosen = choose_weights(config, weights)
    archive = archive or open_data(config)
    if archive.left_out:
        line(f"of {archive.root} {archive.said_left_out}")
    for split in SPLITS:
        if not len(archive.split(split)):
            raise InputError(f"{archive.root} has no patch in the split {split!r}", "add its split files")
    with only_job(config.folder() / "evaluation"):
        return write_table(_table(chosen, archive, config), config.folder() / "evaluation")


def random_encoder(like: System | RunConfig, seed: int) -> System:
    """The same architecture with untrained weights: what the features owe to the architecture alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("initialise", seed, 99))
        return build_model(getattr(like, "config", like)).eval()


def _table(chosen: Chosen, archive: Archive, config: RunConfig) -> Table:
    """All rows, by the protocol that fits the archive's labels."""
    device, pretrained, seeds = choose_device(config), chosen.model, range(config.probe_seeds)
    single, protocol = set(archive.classes) <= set(IGBP10), config.protocol
    if single and protocol != "linear":
        raise InputError(f"{archive.root} has one class a patch", "Table 2 is linear evaluation: protocol=linear")
    protocol = "transfer" if single else protocol
    untrained = "supervised from scratch" if protocol == "finetune" else "random encoder"
    systems = {
        untrained: [random_encoder(pretrained, seed).to(device) for seed in seeds],
        pretrained.title: [pretrained.to(device)] * len(seeds),
    }
    size, options = pretrained.config.image_size, {"cache": config.cache, "native": True}
    pairs = {s: PairDataset(archive, s, modalities=chosen.sensors, size=size, **options) for s in SPLITS}
    settings = FineTuneSettings(
        config.finetune_epochs, config.finetune_batch_size, config.finetune_learning_rate, augment=config.augment
    )
    options = {"settings": settings, "cache": config.folder() / "evaluation" / "features"}
    labelled = [None if single else labelled_rows(archive, config, seed) for seed in seeds]
    rows = [] if single else [_prior_row(archive, labelled[0], config)]
    for sensors in sensor_sets(chosen.sensors):
        if single and len(sensors) > 1:
            continue
        for system, models in systems.items():
            scored = [
                score(model, pairs, sensors, protocol, config, seed, rows=labelled[seed], **options)
                for seed, model in enumerate(models)
            ]
            make = _single_label_row if single else _multi_label_row
            rows.append(make(system, "+".join(sensors).upper(), scored, archive, config))
    place = f"{archive.kind}, {shorten(Path(archive.root))}"
    weights = chosen.name, pretrained.config.fusion, chosen.digest
    return Table(rows, About(*weights, place, protocol, config.label_fraction, fusmae_lite.__version__))


def _prior_row(archive: Archive, labelled: NDArray, config: RunConfig) -> MultiLabelRow:
    train, test = (archive.labels[archive.split(split)] for split in SPLITS)
    prior = class_prior(torch.from_numpy(train[labelled]).float(), len(test))
    return _multi_label_row("class prior", "none", [Scored(prior, len(labelled))], archive, config)


def _multi_label_row(
    system: str, sensors: str, scored: Sequence[Scored], archive: Archive, config: RunConfig
) -> MultiLabelRow:
    labels, logits = archive.labels[archive.split("test")], np.stack([one.logits.numpy() for one in scored])
    micro, macro = (redraw_scores(labels, logits, which, seed=config.seed) for which in ("micro", "macro"))
    counts = len(scored), scored[-1].train, len(labels)
    both = float(micro[0]), float(macro[0]), *interval(micro)
    return MultiLabelRow(system, sensors, *both, *counts, *interval(macro))


def _single_label_row(
    system: str, sensors: str, scored: Sequence[Scored], archive: Archive, config: RunConfig
) -> SingleLabelRow:
    labels, logits = archive.labels[archive.split("test")], np.stack([one.logits.numpy() for one in scored])
    truth = class_numbers(labels)
    known = truth >= 0
    each = [single_label_scores(truth, one, archive.classes) for one in logits]
    names = ("top1", "top3", "precision", "recall", "f1")
    top1, *rest = (float(np.mean([getattr(one, name) for one in each])) for name in names)
    low, high = interval(redraw_values(labels[known], logits[:, known], accuracy))
    counts = len(scored), scored[-1].train, int(known.sum())
    return SingleLabelRow(system, sensors, top1, low, high, *rest, *counts)
