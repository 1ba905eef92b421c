"""One system's rows of Table 1 or 2 on whatever archive is given, with the rows a reader needs to judge it by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

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
from fusmae_lite.evaluation.features import frozen_features
from fusmae_lite.evaluation.finetune import FineTuneSettings, fine_tune
from fusmae_lite.evaluation.metrics import average_precision, redraw_both
from fusmae_lite.evaluation.probe import class_prior, linear_probe
from fusmae_lite.evaluation.subsets import labelled_subset
from fusmae_lite.evaluation.transfer import transfer_rows
from fusmae_lite.evaluation.written import About, Row, Table, write_table
from fusmae_lite.systems import System, build_model
from fusmae_lite.train.optimise import choose_device


def sensor_sets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Columns of Table 1: each sensor alone, then all together."""
    alone = [(name,) for name in modalities]
    return [*alone, tuple(modalities)] if len(alone) > 1 else alone


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
    for split in ("train", "test"):
        if not len(archive.split(split)):
            raise InputError(f"{archive.root} has no patch in the split {split!r}", "add its split files")
    with only_job(config.folder() / "evaluation"):
        return write_table(_table(chosen, archive, config), config.folder() / "evaluation")


def _table(chosen: Chosen, archive: Archive, config: RunConfig) -> Table:
    """All rows, by the protocol that fits the archive's labels."""
    device, pretrained = choose_device(config), chosen.model
    random = [random_encoder(pretrained, seed).to(device) for seed in range(config.probe_seeds)]
    systems = {
        "random encoder": random,
        pretrained.title: [pretrained.to(device)] * config.probe_seeds,
    }
    size, options = pretrained.config.image_size, {"cache": config.cache, "native": True}
    pairs = {s: PairDataset(archive, s, modalities=chosen.sensors, size=size, **options) for s in ("train", "test")}
    sets, protocol = sensor_sets(chosen.sensors), config.protocol
    if set(archive.classes) <= set(IGBP10):
        if config.protocol != "linear":
            raise InputError(f"{archive.root} has one class a patch", "Table 2 is linear evaluation: protocol=linear")
        rows, protocol = transfer_rows(systems, [s for s in sets if len(s) == 1], pairs, config), "transfer"
    else:
        row = _row if config.protocol == "linear" else _finetuned_row
        rows = [_prior_row(archive, config)]
        rows += [row(system, models, s, pairs, config) for s in sets for system, models in systems.items()]
    place = f"{archive.kind}, {shorten(Path(archive.root))}"
    scored = chosen.name, pretrained.config.fusion, chosen.digest, place
    about = About(*scored, protocol, config.label_fraction, fusmae_lite.__version__)
    return Table(rows, about)


def random_encoder(like: System, seed: int) -> System:
    """The same architecture with untrained weights: what the features owe to the architecture alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("initialise", seed, 99))
        return build_model(like.config).eval()


def _row(
    system: str, models: list[System], sensors: tuple[str, ...], pairs: dict[str, PairDataset], config: RunConfig
) -> Row:
    """One cell of linear evaluation: a probe a seed on each model's frozen features."""
    archive, cache = pairs["train"].archive, config.folder() / "evaluation" / "features"
    scores = []
    for seed, model in enumerate(models):
        train, test = (
            frozen_features(model, archive, s, sensors, cache, model.pooling, dataset=pairs[s], config=config)
            for s in ("train", "test")
        )
        chosen = labelled_rows(train.y.numpy() > 0, config, seed, archive.classes)
        scores.append(linear_probe(train.x[chosen], train.y[chosen], test.x, config, seed).numpy())
    return _averaged(system, "+".join(sensors).upper(), test.y.numpy() > 0, scores, len(chosen), archive, config)


def _finetuned_row(
    system: str, models: list[System], sensors: tuple[str, ...], pairs: dict[str, PairDataset], config: RunConfig
) -> Row:
    """As :func:`_row`, with the encoder trained as well."""
    archive = pairs["train"].archive
    settings = FineTuneSettings(
        config.finetune_epochs, config.finetune_batch_size, config.finetune_learning_rate,
        augment=config.augment, pooling=models[0].pooling,
    )  # fmt: skip
    truth = {s: archive.labels[archive.split(s)] for s in ("train", "test")}
    scores = []
    for seed, model in enumerate(models):
        chosen = labelled_rows(truth["train"], config, seed, archive.classes)
        tuned = fine_tune(model, pairs["train"], pairs["test"], sensors, settings, chosen, seed, config)
        scores.append(tuned.scores.numpy())
    title = "supervised from scratch" if system == "random encoder" else system
    return _averaged(title, "+".join(sensors).upper(), truth["test"], scores, len(chosen), archive, config)


def _averaged(
    system: str,
    sensors: str,
    labels: np.ndarray,
    scores: list[np.ndarray],
    train: int,
    archive: Archive,
    config: RunConfig,
) -> Row:
    """Means over the seeds' scores (patches, classes), and their intervals over the same redraws."""
    results = [average_precision(labels, one, archive.classes) for one in scores]
    micro, macro = (float(np.mean([getattr(r, which) for r in results])) for which in ("micro", "macro"))
    redraws = redraw_both(labels, np.stack(scores), seed=config.seed)
    (low, macro_low), (high, macro_high) = np.quantile(redraws[1:], [0.025, 0.975], axis=0).tolist()
    counts = len(scores), train, len(labels)
    return Row(system, sensors, micro, macro, low, high, *counts, macro_low, macro_high)


def labelled_rows(labels: np.ndarray, config: RunConfig, seed: int, classes: tuple[str, ...] = ()) -> np.ndarray:
    """Positions of the training patches whose labels seed `seed` of the probe may use; see :func:`labelled_subset`."""
    return labelled_subset(labels, config.label_fraction, derive("probe", config.seed, seed, 2), classes)


def _prior_row(archive: Archive, config: RunConfig) -> Row:
    train, test = (archive.labels[archive.split(split)] for split in ("train", "test"))
    train = train[labelled_rows(train, config, 0, archive.classes)]
    scores = class_prior(torch.from_numpy(train).float(), len(test)).numpy()
    return _averaged("class prior", "none", test, [scores], len(train), archive, config)
