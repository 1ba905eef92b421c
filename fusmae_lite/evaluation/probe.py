"""Linear evaluation (section 4): only a linear head is trained, on frozen features, from a share of the labels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.seeding import derive, generator
from fusmae_lite.evaluation.converged import converged_probe, nearest_probe
from fusmae_lite.evaluation.features import Features
from fusmae_lite.evaluation.metrics import as_labels, class_numbers

#: The paper says that Table 2's labels are smoothed, not by how much; this is the usual value.
LABEL_SMOOTHING = 0.1


def probe(features: Sequence[Features], rows: NDArray | None, config: RunConfig, seed: int = 0) -> Tensor:
    """Logits (test patches, classes) of the head that ``config.probe`` names.

    `features` are those of train, test and perhaps val, which chooses C of the converged probe; `rows` the positions
    of the labelled training patches (None: all); `seed` is that of the paper's probe, the others are not random.
    """
    train, test, *val = features
    require_alike(train, test)
    labelled = train if rows is None else replace(train, x=train.x[rows], y=train.y[rows])
    if config.probe == "paper":
        return linear_probe(labelled.x, labelled.y, test.x, config, seed)
    if config.probe == "nearest":
        return nearest_probe(labelled.x, labelled.y, test.x)
    return converged_probe(labelled.x, labelled.y, (val[0].x, val[0].y) if val else None).logits(test.x)


def linear_probe(
    train_x: Tensor | Features, train_y: Tensor, test_x: Tensor | Features, config: RunConfig, seed: int = 0
) -> Tensor:
    """Logits (test patches, classes) of a linear classifier trained on frozen features.

    The paper's recipe: multi-label soft margin loss, AdamW, ``probe_epochs`` epochs of ``probe_batch_size``. Our
    choices: features are standardised by the training set's statistics (what MAE's BatchNorm without affine does),
    learning rate ``probe_learning_rate``, no weight decay.

    Args:
        train_x, test_x: (patches, D), or :class:`Features`, which are refused if they do not belong together.
        train_y: (patches, classes), 0 or 1.
        seed: of the head's initial weights and of the order of the batches.
    """
    if isinstance(train_x, Features) and isinstance(test_x, Features):
        require_alike(train_x, test_x)
    train_x, test_x = (part.x if isinstance(part, Features) else part for part in (train_x, test_x))
    train_y = torch.from_numpy(as_labels(train_y)).float()
    return _fit_linear(train_x, train_y, test_x, train_y.shape[1], nn.MultiLabelSoftMarginLoss(), config, seed)


def single_label_probe(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, config: RunConfig, seed: int = 0, epochs: int = 10
) -> Tensor:
    """:func:`linear_probe` for Table 2: one class a patch, cross-entropy with smoothed labels, 10 epochs.

    Patches without a class are not trained on; InputError if one has several. The paper gives neither batch size nor
    learning rate for this table.
    """
    numbers = torch.from_numpy(class_numbers(train_y.numpy()))
    labelled, criterion = numbers >= 0, nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    config = RunConfig(**{**config.model_dump(), "probe_epochs": epochs})
    return _fit_linear(train_x[labelled], numbers[labelled], test_x, train_y.shape[1], criterion, config, seed)


def require_alike(train: Features, test: Features) -> None:
    """InputError unless features, where that is known, are of one encoder and archive, and of splits apart."""
    if not (train.origin and test.origin):
        return
    meant, splits = "or pass their tensors, features.x, if you mean it", (train.origin.split, test.origin.split)
    same = ("sensors", "pooling", "encoder", "classes", "archive")
    test.origin.require(train.origin, same, "the probe's test features", f"use one; {meant}")
    if splits[0] == splits[1] or "all" in splits:
        what = f"training features of split {splits[0]} and test features of split {splits[1]} share patches"
        raise InputError(what, f"test on another split; {meant}")


def _fit_linear(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, classes: int, criterion: nn.Module, config: RunConfig, seed: int
) -> Tensor:
    if train_x.shape[1] != test_x.shape[1]:
        what = f"train features are {train_x.shape[1]} wide, test features {test_x.shape[1]}"
        raise InputError(what, "use one encoder for both")
    if not len(train_x):
        what = "there is no labelled patch to train the probe on"
        raise InputError(what, "use a larger label fraction or another split")
    if len(train_x) != len(train_y):
        raise InputError(f"{len(train_x)} train features, labels of {len(train_y)} patches", "give one row a patch")
    for which, x in (("train", train_x), ("test", test_x)):
        if not torch.isfinite(x).all():
            raise InputError(f"{which} features hold NaN or infinite values", "check the encoder's weights")
    mean, std = train_x.mean(dim=0), train_x.std(dim=0, correction=0).clamp_min(1e-6)
    x, rng = (train_x - mean) / std, generator("probe", config.seed, seed, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("probe", config.seed, seed))
        head = nn.Linear(x.shape[1], classes)
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.probe_learning_rate, weight_decay=0.0)
    for _ in range(config.probe_epochs):
        for rows in torch.randperm(len(x), generator=rng).split(config.probe_batch_size):
            optimizer.zero_grad()
            criterion(head(x[rows]), train_y[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        return head((test_x - mean) / std)


def class_prior(train_y: Tensor, patches: int) -> Tensor:
    """Scores of a predictor that has seen the labels but no image: each class's frequency, (patches, classes)."""
    return train_y.mean(dim=0).expand(patches, -1)


def labelled_subset(labels: NDArray[np.bool_], fraction: float, seed: int, classes: Sequence[str] = ()) -> NDArray:
    """Which training patches are labelled: positions, ascending, each at most once.

    First one patch of each class, the rarest class first, unless one drawn before shows it already; then patches at
    random until round(fraction x patches) are drawn. Rare classes are thus a little more frequent in a small share
    than in the whole; the paper gives no list of its 1 %.

    Args:
        labels: (patches, classes), 0 and 1.
        fraction: above 0, at most 1; InputError if it holds no patch, or too few to show every class.
        classes: names, for messages.
    """
    labels = as_labels(labels)
    if not 0 < fraction <= 1:
        raise InputError(f"label fraction {fraction} is no share", "give a number above 0, at most 1")
    count, total, per_class = round(fraction * len(labels)), len(labels), labels.sum(axis=0)
    order, first = np.random.default_rng([seed, 1]).permutation(total), []
    for column in np.argsort(per_class, kind="stable"):
        if per_class[column] and not labels[first, column].any():
            first.append(int(order[labels[order, column].argmax()]))
    if count < max(len(first), 1):
        what, least = f"{fraction:.2%} of {total} training patches", max(count and len(first), 1) / max(total, 1)
        cure = f"use a fraction of at least {least:.3g}, or an archive with more patches"
        if count == 0:
            raise InputError(f"{what} is none", cure)
        absent = np.flatnonzero((per_class > 0) & ~labels[first[:count]].any(axis=0))[0]
        name, present = classes[absent] if len(classes) else f"class {absent}", (per_class > 0).sum()
        raise InputError(f"{what} are {count}, too few to show all {present} classes ({name})", cure)
    rest = order[~np.isin(order, first)]
    return np.sort(np.concatenate([np.array(first, dtype=np.int64), rest[: count - len(first)]]))
