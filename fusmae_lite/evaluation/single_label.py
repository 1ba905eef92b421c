"""Table 2's protocol: SEN12MS, one land-cover class a scene, a linear layer on frozen features (section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.evaluation.metrics import as_labels, as_scores
from fusmae_lite.evaluation.probe import fit_linear

#: The paper says that labels are smoothed, not by how much; this is the usual value.
LABEL_SMOOTHING = 0.1
EPOCHS = 10


@dataclass(frozen=True)
class SingleLabelScores:
    """The five columns of Table 2, in [0, 1]."""

    top1: float  # share of patches whose class is scored highest; equals recall, as it must when weighted
    top3: float  # share of patches whose class is among the three highest
    precision: float  # means over the classes, weighted by their patches; 0 for a class that is never predicted
    recall: float
    f1: float
    absent: tuple[str, ...]  # classes without a patch in the test set: they have no weight in any of these
    unlabelled: int = 0  # patches left out because they carry no class


def single_label_scores(truth: NDArray, scores: NDArray, classes: Sequence[str]) -> SingleLabelScores:
    """Score logits (patches, classes) against class numbers (patches,), -1 for a patch without a class.

    Raises:
        InputError: shapes that do not fit, a score that is not finite, or no patch with a class.
    """
    truth, scores = np.asarray(truth), as_scores(scores)
    if scores.shape != (len(truth), len(classes)):
        raise InputError(f"scores are {scores.shape}", f"give ({len(truth)}, {len(classes)}), one per patch and class")
    if truth.dtype.kind not in "iu" or not (truth < len(classes)).all():
        what = f"class numbers are {truth.dtype}, up to {truth.max(initial=-1)}"
        raise InputError(what, f"give 0 to {len(classes) - 1}, or -1")
    known = truth >= 0
    if not known.any():
        raise InputError("no test patch carries a class", "choose another split")
    order = np.argsort(-scores[known], axis=1, kind="stable")
    hit = order == truth[known][:, None]
    weighted = precision_recall_fscore_support(
        truth[known], order[:, 0], labels=range(len(classes)), average="weighted", zero_division=0
    )[:3]
    absent = tuple(name for column, name in enumerate(classes) if not (truth == column).any())
    top1, top3 = float(hit[:, 0].mean()), float(hit[:, :3].any(axis=1).mean())
    return SingleLabelScores(top1, top3, *map(float, weighted), absent, int((~known).sum()))


def class_numbers(labels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(patches, classes) with at most one True a row -> (patches,) class numbers, -1 for none; else InputError."""
    labels = as_labels(labels)
    if (labels.sum(axis=1) > 1).any():
        raise InputError("a patch has several labels", "use an archive with one class a patch, such as SEN12MS")
    return np.where(labels.any(axis=1), labels.argmax(axis=1), -1)


def single_label_probe(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, config: RunConfig, seed: int = 0, epochs: int = EPOCHS
) -> Tensor:
    """Logits of a linear classifier on frozen features, by cross-entropy with smoothed labels and AdamW.

    Args:
        train_x, test_x: (patches, D).
        train_y: (patches, classes), one True a row at most; patches without a class are not trained on.
        config: ``probe_batch_size`` and ``probe_learning_rate``; the paper gives neither for this table.
        seed: of the head's initial weights and of the order of the batches.
        epochs: 10 in the paper.

    Raises:
        InputError: features of different widths, several labels a patch, or no labelled patch.
    """
    numbers = torch.from_numpy(class_numbers(train_y.numpy()))
    known = numbers >= 0
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    classes, settings = train_y.shape[1], RunConfig(**{**config.model_dump(), "probe_epochs": epochs})
    return fit_linear(train_x[known], numbers[known], test_x, classes, criterion, settings, seed)
