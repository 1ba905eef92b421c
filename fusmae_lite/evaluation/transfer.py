"""Table 2's columns for one system: land cover of SEN12MS through one sensor, by a linear classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusmae_lite.core.config import RunConfig
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation.features import frozen_features
from fusmae_lite.evaluation.metrics import redraw_values
from fusmae_lite.evaluation.single_label import class_numbers, single_label_probe, single_label_scores
from fusmae_lite.systems import System


@dataclass(frozen=True)
class TransferRow:
    """One row: a system seen through one sensor; all scores are shares, means over seeds.

    Args:
        system: what produced the features.
        sensors: ``S1`` or ``S2``.
        top1: accuracy.
        low, high: 95 % bootstrap interval of `top1` over test patches and seeds.
        top3, precision, recall, f1: see :class:`~fusmae_lite.evaluation.single_label.SingleLabelScores`.
        seeds: how many heads (and random encoders).
        train, test: patches with a class.
    """

    system: str
    sensors: str
    top1: float
    low: float
    high: float
    top3: float
    precision: float
    recall: float
    f1: float
    seeds: int
    train: int
    test: int


def transfer_rows(
    systems: Mapping[str, Sequence[System]],
    sensor_sets: Sequence[tuple[str, ...]],
    pairs: Mapping[str, PairDataset],
    config: RunConfig,
) -> list[TransferRow]:
    """A row for each system and sensor; `systems` has an encoder a seed."""
    archive, cache = pairs["train"].archive, config.folder() / "evaluation" / "features"
    rows = []
    for sensors in sensor_sets:
        for title, models in systems.items():
            logits: list[np.ndarray] = []
            for seed, model in enumerate(models):
                train, test = (
                    frozen_features(model, archive, s, sensors, cache, model.pooling, dataset=pairs[s], config=config)
                    for s in ("train", "test")
                )
                logits.append(single_label_probe(train.x, train.y, test.x, config, seed).numpy())
            labels = test.y.numpy() > 0
            truth = class_numbers(labels)
            known = truth >= 0
            each = [single_label_scores(truth, one, archive.classes) for one in logits]
            low, high = np.quantile(
                redraw_values(labels[known], np.stack(logits)[:, known], accuracy)[1:], [0.025, 0.975]
            )
            top1, *rest = (
                float(np.mean([getattr(one, name) for one in each]))
                for name in ("top1", "top3", "precision", "recall", "f1")
            )
            counts = int((train.y.sum(dim=1) > 0).sum()), int(known.sum())
            rows.append(
                TransferRow(title, sensors[0].upper(), top1, float(low), float(high), *rest, len(models), *counts)
            )
    return rows


def accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    """Share of patches whose class is scored highest; (patches, classes) each, patches without a class left out."""
    known = labels.any(axis=1)
    return float((scores[known].argmax(axis=1) == labels[known].argmax(axis=1)).mean())


def transfer_markdown(rows: Sequence[TransferRow]) -> str:
    """Table 2 as Markdown, in percent."""
    lines = [
        "| system | sensor | Top-1 | 95 % interval of Top-1, over test patches and seeds "
        "| Top-3 | precision | recall | F1 | seeds | train | test |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        scores = " | ".join(f"{100 * v:.1f}" for v in (r.top3, r.precision, r.recall, r.f1))
        interval = f"{100 * r.low:.1f} - {100 * r.high:.1f}"
        counts = f"{r.seeds} | {r.train} | {r.test}"
        lines.append(f"| {r.system} | {r.sensors} | {100 * r.top1:.1f} | {interval} | {scores} | {counts} |")
    return "\n".join(lines) + "\n"
