"""Frozen features: the encoder runs once over each patch, its output is kept, the probe trains on that."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fusmae_lite.archives import Archive
from fusmae_lite.baselines import Encoder
from fusmae_lite.pairs import PairDataset
from fusmae_lite.weights import read_tensors, save_tensors


@dataclass(frozen=True)
class Features:
    """Features of one split.

    Args:
        x: (patches, D) float32.
        y: (patches, classes) float32, 0 or 1.
        cached: whether they came from the cache.
    """

    x: Tensor
    y: Tensor
    cached: bool = False


@torch.no_grad()
def frozen_features(
    model: Encoder,
    archive: Archive,
    split: str,
    sensors: Sequence[str],
    cache_dir: Path | None = None,
    pooling: str = "mean",
    batch_size: int = 64,
    dataset: PairDataset | None = None,
) -> Features:
    """Pooled latents of every patch of a split, seen through the given sensors only and without a mask.

    Args:
        model: any system, see :class:`~fusmae_lite.baselines.Encoder`; put into evaluation mode.
        archive: where the patches come from.
        split: ``train``, ``val``, ``test`` or ``all``.
        sensors: which modalities the encoder sees; the others contribute no tokens.
        cache_dir: keep the result there, under a name that changes with the weights, the patches and the arguments.
        pooling: ``mean`` of the patch tokens, or ``cls``.
        batch_size: patches encoded at once.
        dataset: the pairs of that split if they are open already, so that several encoders read them once.
    """
    path = None
    if cache_dir is not None:
        path = Path(cache_dir) / f"features-{_fingerprint(model, archive, split, sensors, pooling)}.safetensors"
        if path.is_file():
            tensors, _ = read_tensors(path)
            return Features(tensors["x"], tensors["y"], cached=True)
    if dataset is None:
        dataset = PairDataset(archive, split=split, modalities=tuple(sensors), size=model.config.image_size)
    device = next(model.parameters()).device
    model.eval()
    xs, ys = [], []
    for sample in DataLoader(dataset, batch_size=batch_size):
        images = {name: sample["images"][name].to(device) for name in sensors}
        xs.append(model.encode(images).pooled(pooling).float().cpu())
        ys.append(sample["labels"])
    features = Features(torch.cat(xs), torch.cat(ys).float())
    if path is not None:
        save_tensors(path, {"x": features.x, "y": features.y}, {"archive": archive.kind, "split": split})
    return features


def _fingerprint(model: Encoder, archive: Archive, split: str, sensors: Sequence[str], pooling: str) -> str:
    """A name for exactly these features: weights, configuration, patches and their order, labels, sensors, pooling."""
    digest = hashlib.sha256(model.config.model_dump_json().encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    rows = archive.split(split)
    digest.update("\n".join([str(archive.root), pooling, *sensors, *(archive.names[i] for i in rows)]).encode())
    digest.update(archive.labels[rows].tobytes())
    return digest.hexdigest()[:24]
