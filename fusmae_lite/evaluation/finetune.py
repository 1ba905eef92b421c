"""Fine-tuning (section 4): a linear head on the encoder, and both are trained with all labels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from timm.layers import DropPath
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.seeding import derive, generator
from fusmae_lite.data.augment import augment
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation.features import batches, in_bf16
from fusmae_lite.systems import System


@dataclass(frozen=True)
class FineTuneSettings:
    """The paper gives epochs, loss and optimiser; the rest is ours, after MAE's own recipe for fine-tuning.

    Args:
        epochs: 10 in the paper.
        batch_size: patches a step.
        learning_rate: peak, of the head; one epoch of warm-up, then half a cosine to 0.
        layer_decay: each layer below the head learns this much slower than the one above it; 1: all alike.
        drop_path: stochastic depth of the last block; grows linearly from the first.
        weight_decay: on matrices only.
        augment: none, flips or crops, as in pretraining.
        pooling: ``mean`` of the patch tokens, ``cls``, or what else the system offers.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 5e-4
    layer_decay: float = 0.65
    drop_path: float = 0.1
    weight_decay: float = 0.05
    augment: str = "flips"
    pooling: str = "mean"


@dataclass(frozen=True)
class _How:
    """How batches come and are computed."""

    sensors: tuple[str, ...]
    device: torch.device
    config: RunConfig | None

    def batches(self, data: Dataset, batch_size: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        return batches(data, batch_size, self.sensors, self.device, self.config.workers if self.config else 0)

    def autocast(self) -> AbstractContextManager[object]:
        bf16 = self.config is not None and in_bf16(self.device, self.config)
        return torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext()


@dataclass
class FineTuned:
    """What :func:`fine_tune` returns.

    Args:
        scores: (test patches, classes) logits.
        losses: mean training loss of each epoch.
        model: encoder, a trained copy, and head.
    """

    scores: Tensor
    losses: list[float]
    model: Classifier


class Classifier(nn.Module):
    """An encoder with a linear layer on its pooled features."""

    def __init__(self, encoder: nn.Module, features: int, classes: int, pooling: str) -> None:
        super().__init__()
        self.encoder, self.head, self.pooling = encoder, nn.Linear(features, classes), pooling

    def forward(self, images: dict[str, Tensor]) -> Tensor:
        """Modality -> (B, C, H, W) becomes logits (B, classes)."""
        features, wide = self.encoder.encode(images).pooled(self.pooling), self.head.in_features
        if features.shape[1] != wide:
            what = f"the encoder gives {features.shape[1]} features for {', '.join(images)}, the head takes {wide}"
            raise InputError(what, "use the encoder, the sensors and the pooling the head was trained with")
        return self.head(features)


def fine_tune(
    encoder: System,
    train: PairDataset,
    test: PairDataset,
    sensors: Sequence[str],
    settings: FineTuneSettings | None = None,
    rows: Sequence[int] | None = None,
    seed: int = 0,
    config: RunConfig | None = None,
) -> FineTuned:
    """Train a copy of `encoder` and a new head by multi-label soft margin loss and AdamW; score the test patches.

    Args:
        encoder: any system; it is left as it is. It stays on its device.
        train, test: pairs with at least these sensors.
        sensors: what the classifier sees: S1, S2, or both.
        settings: see :class:`FineTuneSettings`.
        rows: positions in `train` that are labelled, for example of ``labelled_subset``; all by default.
        seed: of the head, the order, the augmentation and the stochastic depth.
        config: its ``workers`` and ``precision``, as for :func:`~fusmae_lite.evaluation.frozen_features`.

    Raises:
        InputError: nothing to train on or to score.
        RunError: the loss is no longer finite.
    """
    settings = settings or FineTuneSettings()
    chosen = list(range(len(train))) if rows is None else [int(row) for row in rows]
    if not chosen or not len(test):
        raise InputError(f"{len(chosen)} patches to train on, {len(test)} to score", "use a larger fraction or split")
    device = next(encoder.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("probe", seed, 7))
        model = _classifier(encoder, train, sensors, settings, device)
        optimizer = torch.optim.AdamW(layer_groups(model, settings))
        how = _How(tuple(sensors), device, config)
        losses = [
            _epoch(model, optimizer, Subset(train, chosen), how, settings, seed, epoch)
            for epoch in range(settings.epochs)
        ]
    model.eval()
    scores = []
    with torch.no_grad():
        for images, _ in how.batches(test, settings.batch_size):
            with how.autocast():
                scores.append(model(images).float().cpu())
    return FineTuned(torch.cat(scores), losses, model)


def _classifier(
    encoder: System, train: PairDataset, sensors: Sequence[str], settings: FineTuneSettings, device: torch.device
) -> Classifier:
    copied = encoder.to_fine_tune()
    copied.train()
    with torch.no_grad():
        images, labels = next(batches(Subset(train, [0]), 1, sensors, device))
        features = copied.encode(images).pooled(settings.pooling).shape[1]
    set_drop_path(copied, settings.drop_path)
    return Classifier(copied, features, labels.shape[1], settings.pooling).to(device)


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Stochastic depth in the encoder's blocks, from 0 in the first to `rate` in the last."""
    depth = 1 + max((layer for name, _ in model.named_modules() if (layer := _block(name)) is not None), default=0)
    for name, module in model.named_modules():
        layer = _block(name)
        if isinstance(module, Block) and layer is not None:
            share = rate * layer / max(depth - 1, 1)
            module.drop_path1, module.drop_path2 = DropPath(share), DropPath(share)


def layer_groups(model: Classifier, settings: FineTuneSettings) -> list[dict[str, object]]:
    """AdamW's groups: learning rate by layer, weight decay by kind; ``scale`` is the layer's share of the peak.

    Layer 0 is whatever comes before the blocks (projections, tokens, positions, XAttnEncoder), the head and the last
    norm are on top. Decoders are left out: nothing here reads them.
    """
    blocks = [layer for name, _ in model.named_parameters() if (layer := _block(name)) is not None]
    top = max(blocks, default=-1) + 2
    groups: dict[tuple[float, float], dict[str, object]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or "decoder" in name:
            continue
        layer = _block(name)
        number = layer + 1 if layer is not None else top if re.search(r"^head\.|(^|\.)norm\.", name) else 0
        number = 0 if "xattn_encoder" in name else number
        plain = parameter.ndim < 2 or name.endswith(("cls_token", "pos_embed", "positions.table"))
        key = (settings.layer_decay ** (top - number), 0.0 if plain else settings.weight_decay)
        group = groups.setdefault(key, {"params": [], "scale": key[0], "weight_decay": key[1], "lr": 0.0})
        group["params"].append(parameter)  # type: ignore[attr-defined]
    return list(groups.values())


def _block(name: str) -> int | None:
    """Number of the encoder block a module or parameter belongs to; None outside them and in decoders."""
    found = re.search(r"(?:^|\.)blocks\.(\d+)(?:\.|$)", name)
    return int(found[1]) if found and "decoder" not in name else None


def _epoch(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    data: Subset,
    how: _How,
    settings: FineTuneSettings,
    seed: int,
    epoch: int,
) -> float:
    """One pass in an order of its own; returns the mean loss."""
    criterion, total = nn.MultiLabelSoftMarginLoss(), 0.0
    order = torch.randperm(len(data), generator=generator("probe", seed, 8, epoch)).tolist()
    flips, steps = generator("augment", seed, 8, epoch), math.ceil(len(data) / settings.batch_size)
    for number, (images, labels) in enumerate(how.batches(Subset(data, order), settings.batch_size)):
        share = rate_at(epoch + number / steps, settings.epochs)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * share * group["scale"]
        images = augment(images, settings.augment, flips)
        optimizer.zero_grad()
        with how.autocast():
            logits = model(images)
        loss = criterion(logits.float(), labels.to(how.device))
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(labels)
        if not math.isfinite(total):
            raise RunError(f"fine-tuning loss is {float(loss)} in epoch {epoch + 1}; lower learning_rate")
    return total / len(data)


def rate_at(epoch: float, epochs: int) -> float:
    """Share of the peak learning rate at a fractional epoch: a tenth of the epochs up, at most one, then a cosine."""
    warmup = min(1.0, epochs / 10)
    if epoch < warmup:
        return max(epoch, 0.1 * warmup) / warmup
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))
