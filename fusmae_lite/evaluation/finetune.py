"""Fine-tuning (section 4): a linear head on the encoder, and both are trained."""

import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from timm.layers import DropPath
from timm.models.vision_transformer import Block
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.schedule import cosine
from fusmae_lite.core.seeding import derive, generator
from fusmae_lite.data.augment import augment
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation.converged import Linear, converged_probe, prior_head
from fusmae_lite.evaluation.features import batches, precision
from fusmae_lite.systems import System

Batches = Iterable[tuple[dict[str, Tensor], Tensor]]  # images by modality, and labels


@dataclass(frozen=True)
class FineTuneSettings:
    """The paper gives epochs, loss and optimiser; the rest is ours, after MAE's own recipe for fine-tuning."""

    epochs: int = 10  # as in the paper
    batch_size: int = 128
    learning_rate: float = 5e-4  # peak, of the head; one epoch of warm-up, then half a cosine to 0
    layer_decay: float = 0.65  # each layer below the head learns this much slower than the one above it; 1: all alike
    drop_path: float = 0.1  # stochastic depth of the last block; grows linearly from the first
    weight_decay: float = 0.05  # on matrices only
    augment: str = "flips"  # none, flips or crops, as in pretraining
    pooling: str = "mean"  # of the patch tokens; cls, or what else the system offers
    start: str = "prior"  # the head predicts each class's frequency at first; "probe": it is the converged probe


@dataclass
class FineTuned:
    """What :func:`fine_tune` returns."""

    scores: Tensor  # (test patches, classes) logits
    losses: list[float]  # mean training loss of each epoch
    model: "Classifier"  # encoder, a trained copy, and head


class Classifier(nn.Module):
    """An encoder with a linear layer on its pooled features, standardised as the frozen encoder's are.

    Without a normalisation before the head (MAE has one) the step sizes of the head depend on the scale of the
    features, and a pretrained encoder starts further behind than an untrained one.
    """

    def __init__(self, encoder: nn.Module, start: Linear, pooling: str) -> None:
        super().__init__()
        self.encoder, self.pooling = encoder, pooling
        self.head = nn.Linear(*start.weight.shape)
        for parameter, values in ((self.head.weight, start.weight.T), (self.head.bias, start.bias)):
            parameter.data.copy_(torch.from_numpy(values))
        for name in ("mean", "std"):
            self.register_buffer(name, torch.from_numpy(getattr(start, name)).float())
        for name, parameter in encoder.named_parameters():
            if "decoder" in name:  # nothing here reads them
                parameter.requires_grad_(False)

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Parameter -> layer, for timm."""
        return _layer

    def forward(self, images: dict[str, Tensor]) -> Tensor:
        """Modality -> (B, C, H, W) becomes logits (B, classes)."""
        features, width = self.encoder.encode(images).pooled(self.pooling), self.head.in_features
        if features.shape[1] != width:
            what = f"the encoder gives {features.shape[1]} features for {', '.join(images)}, the head takes {width}"
            raise InputError(what, "use the encoder, the sensors and the pooling the head was trained with")
        return self.head((features - self.mean) / self.std)


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
        encoder: any system, on the device to train on; it is left as it is.
        train, test: pairs with at least these sensors.
        rows: positions in `train` that are labelled; all by default.
        seed: of the head, the order, the augmentation and the stochastic depth.
        config: its ``workers`` and ``precision``, as for :func:`~fusmae_lite.evaluation.frozen_features`.

    Raises:
        InputError: nothing to train on or to score.
        RunError: the loss is no longer finite.
    """
    settings = settings or FineTuneSettings()
    labelled = list(range(len(train))) if rows is None else [int(row) for row in rows]
    if not labelled or not len(test):
        raise InputError(f"{len(labelled)} patches to train on, {len(test)} to score", "use a larger fraction or split")
    device = next(encoder.parameters()).device
    read = partial(batches, batch_size=settings.batch_size, sensors=sensors, device=device, config=config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("probe", seed, 7))
        model = _classifier(encoder, read(train, rows=labelled), settings).to(device)
        losses = _train(model, partial(read, train), labelled, settings, seed, config)
    model.eval()
    scores = []
    with torch.no_grad():
        for images, _ in read(test):
            with precision(device, config):
                scores.append(model(images).float().cpu())
    return FineTuned(torch.cat(scores), losses, model)


def _classifier(encoder: System, labelled: Batches, settings: FineTuneSettings) -> Classifier:
    """A copy of `encoder` with the head that the frozen features of the labelled pairs give it."""
    copied = encoder.to_fine_tune().eval()
    with torch.no_grad():
        parts = [(copied.encode(images).pooled(settings.pooling).float().cpu(), labels) for images, labels in labelled]
    x, y = (torch.cat(part) for part in zip(*parts, strict=True))
    copied.train()
    set_drop_path(copied, settings.drop_path)
    start = converged_probe(x, y) if settings.start == "probe" else prior_head(x, y)
    return Classifier(copied, start, settings.pooling)


def _train(
    model: Classifier,
    read: Callable[..., Batches],
    labelled: list[int],
    settings: FineTuneSettings,
    seed: int,
    config: RunConfig | None,
) -> list[float]:
    """Mean loss of each epoch; each has an order of its own."""
    optimizer, criterion = torch.optim.AdamW(layer_groups(model, settings)), nn.MultiLabelSoftMarginLoss()
    device, losses, steps = model.mean.device, [], math.ceil(len(labelled) / settings.batch_size)
    for epoch in range(settings.epochs):
        order = torch.randperm(len(labelled), generator=generator("probe", seed, 8, epoch)).tolist()
        flips, total = generator("augment", seed, 8, epoch), 0.0
        for step, (images, labels) in enumerate(read(rows=[labelled[i] for i in order])):
            share = rate_at(epoch + step / steps, settings.epochs)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * share * group["lr_scale"]
            images = augment(images, settings.augment, flips)
            optimizer.zero_grad()
            with precision(device, config):
                logits = model(images)
            loss = criterion(logits.float(), labels.to(device))
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(labels)
            if not math.isfinite(total):
                raise RunError(f"fine-tuning loss is {float(loss)} in epoch {epoch + 1}; lower learning_rate")
        losses.append(total / len(labelled))
    return losses


def rate_at(epoch: float, epochs: int) -> float:
    """Share of the peak learning rate at a fractional epoch: a tenth of the epochs up, at most one, then a cosine."""
    warmup = min(1.0, epochs / 10)
    if epoch < warmup:
        return max(epoch, 0.1 * warmup) / warmup
    return cosine((epoch - warmup) / (epochs - warmup))


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Stochastic depth in the encoder's blocks, from 0 in the first to `rate` in the last."""
    blocks = ((module, _block(name)) for name, module in model.named_modules() if isinstance(module, Block))
    layers = {module: layer for module, layer in blocks if layer is not None}
    for module, layer in layers.items():
        share = rate * layer / max(*layers.values(), 1)
        module.drop_path1, module.drop_path2 = DropPath(share), DropPath(share)


def layer_groups(model: Classifier, settings: FineTuneSettings) -> list[dict[str, object]]:
    """AdamW's groups, by layer and kind of parameter; ``lr_scale`` is the layer's share of the peak learning rate."""
    tokens = [n for n, _ in model.named_parameters() if n.endswith(("cls_token", "pos_embed", "positions.table"))]
    return param_groups_layer_decay(model, settings.weight_decay, tokens, layer_decay=settings.layer_decay)


def _layer(name: str) -> int:
    """0 before the blocks (projections, tokens, positions, XAttnEncoder), the last for the head and the last norm."""
    if (block := _block(name)) is not None:
        return block + 1
    return sys.maxsize if re.search(r"^head\.|(^|\.)norm\.", name) and "xattn_encoder" not in name else 0


def _block(name: str) -> int | None:
    """Number of the encoder block a module or parameter belongs to; None outside them and in decoders."""
    number = re.search(r"(?:^|\.)blocks\.(\d+)(?:\.|$)", name)
    return int(number[1]) if number and "decoder" not in name else None
