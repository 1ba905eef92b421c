"""Linear evaluation (section 4): only a linear head is trained, on features that do not move."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.seeding import derive, generator
from fusmae_lite.evaluation.features import Features
from fusmae_lite.evaluation.metrics import as_labels


def linear_probe(
    train_x: Tensor | Features, train_y: Tensor, test_x: Tensor | Features, config: RunConfig, seed: int = 0
) -> Tensor:
    """Scores of a linear classifier trained on frozen features.

    The paper's recipe: multi-label soft margin loss, AdamW, ``probe_epochs`` epochs of ``probe_batch_size``. Our
    choices: features are standardised by the training set's statistics (what MAE's BatchNorm without affine does),
    learning rate ``probe_learning_rate``, no weight decay.

    Args:
        train_x: (patches, D), or :class:`Features`, which know where they come from.
        train_y: (patches, classes), 0 or 1.
        test_x: (patches, D), or :class:`Features`.
        config: the ``probe_`` fields.
        seed: of the head's initial weights and of the order of the batches.

    Returns:
        (test patches, classes) logits.

    Raises:
        InputError: train and test features differ in width or, where that is known, in encoder, sensors, pooling,
            classes or archive, or are of one split; features that are not finite, labels of other patches or other
            than 0 and 1, or nothing to train on.
    """
    if isinstance(train_x, Features) and isinstance(test_x, Features) and train_x.origin and test_x.origin:
        test_x.origin.require(train_x.origin, ("sensors", "pooling", "encoder", "classes"), "the probe's test features")
        train_x.origin.require_apart(test_x.origin)
    train_x, test_x = (part.x if isinstance(part, Features) else part for part in (train_x, test_x))
    train_y = torch.from_numpy(as_labels(train_y)).float()
    return fit_linear(train_x, train_y, test_x, train_y.shape[1], nn.MultiLabelSoftMarginLoss(), config, seed)


def fit_linear(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    classes: int,
    criterion: nn.Module,
    config: RunConfig,
    seed: int = 0,
) -> Tensor:
    """:func:`linear_probe` for any loss: logits of the test patches, (test patches, classes).

    Args:
        train_x: (patches, D).
        train_y: (patches, ..), what `criterion` compares the logits with.
        test_x: (patches, D).
        classes: width of the head.
        criterion: loss of logits and targets.
        config: the ``probe_`` fields.
        seed: of the head's initial weights and of the order of the batches.
    """
    if train_x.shape[1] != test_x.shape[1]:
        raise InputError(
            f"train features are {train_x.shape[1]} wide, test features {test_x.shape[1]}", "use one encoder for both"
        )
    if not len(train_x):
        raise InputError(
            "there is no labelled patch to train the probe on", "use a larger label fraction or another split"
        )
    if len(train_x) != len(train_y):
        raise InputError(f"{len(train_x)} train features, labels of {len(train_y)} patches", "give one row a patch")
    for which, x in (("train", train_x), ("test", test_x)):
        if not torch.isfinite(x).all():
            raise InputError(f"{which} features hold NaN or infinite values", "check the encoder's weights")
    mean, std = train_x.mean(dim=0), train_x.std(dim=0, correction=0).clamp_min(1e-6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("probe", config.seed, seed))
        head = nn.Linear(train_x.shape[1], classes)
    _train_head(head, (train_x - mean) / std, train_y, criterion, config, generator("probe", config.seed, seed, 1))
    with torch.no_grad():
        return head((test_x - mean) / std)


def _train_head(
    head: nn.Linear, x: Tensor, y: Tensor, criterion: nn.Module, config: RunConfig, rng: torch.Generator
) -> None:
    """Fit the head to standardised features (patches, D) and targets (patches, ..)."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.probe_learning_rate, weight_decay=0.0)
    for _ in range(config.probe_epochs):
        for rows in torch.randperm(len(x), generator=rng).split(config.probe_batch_size):
            optimizer.zero_grad()
            criterion(head(x[rows]), y[rows]).backward()
            optimizer.step()


def class_prior(train_y: Tensor, patches: int) -> Tensor:
    """Scores of a predictor that has seen the labels but no image: each class's frequency, (patches, classes)."""
    return train_y.mean(dim=0).expand(patches, -1)
