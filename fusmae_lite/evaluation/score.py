"""One system on one archive: logits of every test patch by a protocol; all tables are made of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from numpy.typing import NDArray
from torch import Tensor

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.seeding import derive
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation.converged import converged_probe, nearest_probe
from fusmae_lite.evaluation.features import Features, frozen_features
from fusmae_lite.evaluation.finetune import FineTuneSettings, fine_tune
from fusmae_lite.evaluation.probe import labelled_subset, linear_probe, require_alike
from fusmae_lite.evaluation.single_label import single_label_probe
from fusmae_lite.systems import System

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Scored:
    """What :func:`score` returns."""

    logits: Tensor  # (test patches, classes)
    train: int  # labelled patches trained on
    losses: list[float] = field(default_factory=list)  # of fine-tuning, by epoch


def sensor_sets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Columns of Table 1: each sensor alone, then all together."""
    alone = [(name,) for name in modalities]
    return [*alone, tuple(modalities)] if len(alone) > 1 else alone


def labelled_rows(archive: Archive, config: RunConfig, draw: int, fraction: float | None = None) -> NDArray:
    """Positions in the training split whose labels may be used in draw number `draw`; see :func:`labelled_subset`."""
    fraction = config.label_fraction if fraction is None else fraction
    labels, seed = archive.labels[archive.split("train")], derive("probe", config.seed, draw, 2)
    return labelled_subset(labels, fraction, seed, archive.classes)


def split_features(
    model: System,
    pairs: Mapping[str, PairDataset],
    sensors: Sequence[str],
    config: RunConfig,
    pooling: str = "",
    cache: Path | None = None,
) -> list[Features]:
    """Frozen features of every split in `pairs`, in its order; the system's own pooling by default."""
    how, archive = pooling or model.pooling, pairs["train"].archive
    return [frozen_features(model, archive, s, sensors, cache, how, dataset=part, config=config)
            for s, part in pairs.items()]  # fmt: skip


def probe(features: Sequence[Features], rows: NDArray | None, config: RunConfig, seed: int = 0) -> Tensor:
    """Logits (test patches, classes) of the head that ``config.probe`` names, trained on some rows of the features.

    Args:
        features: of train and test, and of val if there is one, which chooses C of the converged probe.
        rows: positions of the labelled training patches; None: all.
        seed: of the paper's probe; the others have nothing random.
    """
    train, test, *val = features
    labelled = train if rows is None else replace(train, x=train.x[rows], y=train.y[rows])
    require_alike(train, test)
    if config.probe == "paper":
        return linear_probe(labelled.x, labelled.y, test.x, config, seed)
    if config.probe == "nearest":
        return nearest_probe(labelled.x, labelled.y, test.x)
    return converged_probe(labelled.x, labelled.y, (val[0].x, val[0].y) if val else None).logits(test.x)


def score(
    model: System,
    pairs: Mapping[str, PairDataset],
    sensors: Sequence[str],
    protocol: str,
    config: RunConfig,
    seed: int = 0,
    *,
    rows: NDArray | None = None,
    features: Sequence[Features] | None = None,
    settings: FineTuneSettings | None = None,
    cache: Path | None = None,
) -> Scored:
    """Train a head, or everything, on the pairs ``train``, and score the pairs ``test``; ``val`` may choose C.

    Args:
        model: any system; it is left as it is.
        pairs: by split: train, test and perhaps val, in this order, with at least these sensors.
        sensors: what the model sees.
        protocol: ``linear`` and ``finetune`` (Table 1), or ``transfer`` (Table 2).
        config: the ``probe_`` fields, ``workers`` and ``precision``.
        seed: of the head.
        rows: positions of the labelled training pairs; all by default.
        features: of :func:`split_features`, if they are there already.
        settings: of fine-tuning; the pooling is the system's own.
        cache: folder that keeps features.
    """
    if protocol == "finetune":
        settings = replace(settings or FineTuneSettings(), pooling=model.pooling)
        tuned = fine_tune(model, pairs["train"], pairs["test"], sensors, settings, rows, seed, config)
        return Scored(tuned.scores, len(pairs["train"] if rows is None else rows), tuned.losses)
    features = features or split_features(model, pairs, sensors, config, cache=cache)
    if protocol == "linear":
        return Scored(probe(features, rows, config, seed), len(features[0].x if rows is None else rows))
    train, test, *_ = features
    x, y = (train.x, train.y) if rows is None else (train.x[rows], train.y[rows])
    return Scored(single_label_probe(x, y, test.x, config, seed), int(y.any(dim=1).sum()))
