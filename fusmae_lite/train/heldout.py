"""The pretraining loss on patches never seen; for a masked autoencoder beside what needs no training."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.seeding import derive, generator
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.loader import load
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.model.fusmae import masked_mse
from fusmae_lite.systems import System
from fusmae_lite.train.interpolation import Hidden, best_kernel, hidden_pairs

#: Training pairs on which the width of the kernel is chosen, at most.
CHOSEN_ON = 200


@torch.no_grad()
def heldout_losses(
    model: System, archive: Archive, config: RunConfig, split: str = "val", limit: int = 1000
) -> dict[str, float]:
    """Loss on patches the model never saw, with masks that follow from the seed, beside a constant predictor's.

    Returns:
        ``loss_<modality>``: mean squared error over masked patches, in units of one standard deviation squared, so that
        sensors can be compared; the same masks without a model: ``mean_<modality>``, predicting each band's mean over
        the training split, and ``interpolation_<modality>``, a kernel over the visible patches
        (:mod:`~fusmae_lite.train.interpolation` has others). DINO-MM reconstructs nothing: ``loss_entropy`` and
        ``loss_kl``, whose sum is its loss, on views that follow from the seed. Empty when the archive has no such
        split.

    Args:
        split: which patches.
        limit: how many at most, drawn by the seed.
    """
    indices = drawn_rows(archive.split(split), limit, config.seed)
    dataset = PairDataset(archive, indices=indices, modalities=config.modalities, size=config.image_size)
    if not len(dataset):
        return {}
    device = next(model.parameters()).device
    predicts = model.reconstructs and not config.normalize_target  # pixels, in units a constant can be given in
    if predicts:
        means = {name: mean.to(device) for name, mean in band_means(archive, config, limit).items()}
        train = list(hidden_pairs(archive, config, drawn_rows(archive.split("train"), CHOSEN_ON, config.seed)))
        kernels = {name: best_kernel(train, name) for name in config.modalities}
    sums: dict[str, float] = defaultdict(float)
    for number, sample in enumerate(load(dataset, batch_size=min(64, len(dataset)))):
        images = {name: image.to(device) for name, image in sample["images"].items()}
        batch = len(sample["index"])
        masks = model.draw(batch, generator("validate", config.seed, number), config)
        result = model(images, masks)
        hidden = Hidden(sample["images"], masks, config.patch_size)
        for name, loss in result.losses.items():
            if predicts:
                constant = model.target(means[name].expand_as(images[name]))
                sums[f"mean_{name}"] += float(masked_mse(constant, result.targets[name], masks[name])) * batch
                sums[f"interpolation_{name}"] += float(kernels[name].errors(hidden, name).sum())
            sums[f"loss_{name}"] += float(loss) * batch
    return {key: value / len(dataset) for key, value in sums.items()}


def drawn_rows(rows: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """At most `limit` of `rows`, drawn by the seed, in their order: the first ones often lie in one place."""
    if len(rows) <= limit:
        return rows
    drawn = np.random.default_rng(derive("validate", seed, 0, 1)).choice(len(rows), limit, replace=False)
    return rows[np.sort(drawn)]


def band_means(archive: Archive, config: RunConfig, limit: int = 1000) -> dict[str, Tensor]:
    """Mean of each normalised band over the training split, or `limit` of it: modality -> (1, C, 1, 1)."""
    indices = drawn_rows(archive.split("train"), limit, config.seed)
    dataset = PairDataset(archive, indices=indices, modalities=config.modalities, size=config.image_size)
    sums: dict[str, Tensor] = {}
    for i in range(len(dataset)):
        for name, image in dataset[i]["images"].items():
            sums[name] = sums.get(name, 0) + image.double().mean(dim=(1, 2))
    return {name: (total / len(dataset)).float().view(1, -1, 1, 1) for name, total in sums.items()}
