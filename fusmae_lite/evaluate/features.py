"""Frozen features: the encoder runs once over each patch, its output is kept, the probe trains on that."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from fusmae_lite.archives import Archive
from fusmae_lite.baselines import Encoder
from fusmae_lite.config import RunConfig
from fusmae_lite.errors import InputError
from fusmae_lite.optimise import uses_bf16
from fusmae_lite.pairs import PairDataset, assemble
from fusmae_lite.weights import read_tensors, save_tensors


@dataclass(frozen=True)
class Origin:
    """What features were made of, so that they are not taken for others.

    Args:
        archive: its format and folder.
        patches: fingerprint of the patches' names in order, and of their labels.
        split: ``train``, ``val``, ``test`` or ``all``.
        classes: columns of the labels.
        sensors: what the encoder saw.
        pooling: how tokens became one vector.
        encoder: fingerprint of its configuration and weights.
    """

    archive: str
    patches: str
    split: str
    classes: tuple[str, ...]
    sensors: tuple[str, ...]
    pooling: str
    encoder: str

    def require(self, other: Origin, names: Sequence[str], where: str) -> None:
        """InputError naming the first of the fields `names` in which `other`, what is wanted, differs from this."""
        for name in names:
            found, wanted = getattr(self, name), getattr(other, name)
            if found != wanted:
                raise InputError(f"{where}: features of {name} {_short(found)}, not {_short(wanted)}", _CURES[name])


_CURES = {
    "archive": "use features of the archive at hand",
    "patches": "the archive's patches or labels have changed: make the features again",
    "split": "use features of that split",
    "classes": "use features with labels of the same classes",
    "sensors": "make both with the same sensors",
    "pooling": "make both with the same pooling",
    "encoder": "make both with the same encoder",
}


def _short(value: object) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True)
class Features:
    """Features of one split.

    Args:
        x: (patches, D) float32.
        y: (patches, classes) float32, 0 or 1.
        cached: whether they came from the cache.
        origin: what they were made of, if known; :func:`linear_probe` refuses pairs that do not belong together.
    """

    x: Tensor
    y: Tensor
    cached: bool = False
    origin: Origin | None = None


def load_features(path: Path, wanted: Origin | None = None) -> Features:
    """Features that :func:`frozen_features` kept at `path`.

    Raises:
        InputError: no such file, not one of features, not finite, or features of anything else than `wanted`: another
            archive, split, encoder, other sensors, labels or pooling.
    """
    tensors, metadata = read_tensors(path)
    try:
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(metadata["origin"]).items()}
        features = Features(tensors["x"], tensors["y"], True, Origin(**given))
    except (KeyError, ValueError, TypeError, AttributeError):
        raise InputError(f"{path} does not hold features of this version", "remove it and make them again") from None
    if wanted is not None and features.origin is not None:
        features.origin.require(wanted, [field.name for field in fields(Origin)], str(path))
    if len(features.x) != len(features.y):
        raise InputError(f"{path}: {len(features.x)} features, {len(features.y)} labels", "remove it, make them again")
    _finite(features.x, str(path))
    return features


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
    config: RunConfig | None = None,
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
        config: its ``workers`` read, its ``precision`` is computed in (see :func:`in_bf16`); by default no further
            process, and fp32. The device is the model's.

    Raises:
        InputError: an empty split, features that are not finite, or a cached file that holds others than its name says.
    """
    device = next(model.parameters()).device
    origin, path = _origin(model, archive, split, sensors, pooling), None
    if bf16 := config is not None and in_bf16(device, config):
        origin = replace(origin, encoder=f"{origin.encoder} in bf16")
    if cache_dir is not None:
        path = Path(cache_dir) / f"features-{_fingerprint(json.dumps(asdict(origin)).encode())}.safetensors"
        if path.is_file():
            return load_features(path, origin)
    if dataset is None:
        size = model.config.image_size
        dataset = PairDataset(archive, split=split, modalities=tuple(sensors), size=size, native=True)
    model.eval()
    xs, ys = [], []
    for images, labels in batches(dataset, batch_size, sensors, device, config.workers if config else 0):
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            latents = model.encode(images)
        xs.append(latents.pooled(pooling).float().cpu())
        ys.append(labels)
    if not xs:
        raise InputError(f"{archive.root} has no patch in the split {split!r}", "add its split files")
    features = Features(torch.cat(xs), torch.cat(ys).float(), origin=origin)
    _finite(features.x, f"the encoder's output on {archive.root}, {split}")
    if path is not None:
        save_tensors(path, {"x": features.x, "y": features.y}, {"origin": json.dumps(asdict(origin))})
    return features


def in_bf16(device: torch.device, config: RunConfig) -> bool:
    """Whether evaluation computes in bf16: as training does on a GPU; on a processor only if ``precision=bf16``.

    ``auto`` would give other numbers on another processor.
    """
    return config.precision == "bf16" or (device.type != "cpu" and uses_bf16(device, config))


def batches(
    dataset: Dataset, batch_size: int, sensors: Sequence[str], device: torch.device, workers: int = 0
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Batches of a :class:`PairDataset` or a part of it: modality -> (B, C, H, W) on `device`, labels on the CPU.

    Native bands travel to the device as they lie on disk and become images there.

    Args:
        dataset: native or not.
        batch_size: pairs at once.
        sensors: modalities to hand on.
        device: where the images are wanted.
        workers: processes that read.
    """
    whole = dataset
    while isinstance(whole, Subset):
        whole = whole.dataset
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=min(workers, os.cpu_count() or 1),
        pin_memory=device.type == "cuda",
    )
    for sample in loader:
        if whole.native:
            bands = {s: {k: x.to(device, non_blocking=True) for k, x in sample["bands"][s].items()} for s in sensors}
            images = assemble(bands, whole.size, whole.normalise)
        else:
            images = {s: sample["images"][s].to(device, non_blocking=True) for s in sensors}
        yield images, sample["labels"]


def _finite(x: Tensor, where: str) -> None:
    rows = (~torch.isfinite(x).all(dim=1)).nonzero().flatten().tolist()
    if rows:
        raise InputError(f"{where}: features of patch {rows[0]} are not finite", "check the weights and that patch")


def _origin(model: Encoder, archive: Archive, split: str, sensors: Sequence[str], pooling: str) -> Origin:
    rows = archive.split(split)
    names = "\n".join(archive.names[i] for i in rows).encode()
    weights = [model.config.model_dump_json().encode()]
    for name, tensor in model.state_dict().items():
        weights += [name.encode(), tensor.detach().cpu().contiguous().numpy().tobytes()]
    return Origin(
        archive=f"{archive.kind} {archive.root}",
        patches=_fingerprint(names, archive.labels[rows].tobytes()),
        split=split,
        classes=tuple(archive.classes),
        sensors=tuple(sensors),
        pooling=pooling,
        encoder=_fingerprint(*weights),
    )


def _fingerprint(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:24]
