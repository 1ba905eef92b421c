"""Frozen features: the encoder runs once over each patch, its output is kept, the probe trains on that."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fusmae_lite.core.config import ModelConfig, RunConfig
from fusmae_lite.core.errors import InputError, printable
from fusmae_lite.core.progress import line
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.identity import digest, identity_of, package
from fusmae_lite.data.loader import load
from fusmae_lite.data.pairs import PairDataset, assemble
from fusmae_lite.evaluation.own import Given, Own, as_system, evaluating
from fusmae_lite.systems import System
from fusmae_lite.systems.tensors import read_tensors, save_tensors
from fusmae_lite.systems.weights import digest_of
from fusmae_lite.train.optimise import uses_bf16


@dataclass(frozen=True)
class Origin:
    """What features were made of, so that they are not taken for others."""

    archive: str  # its format and folder
    patches: str  # identity_of the pairs: names in order, pixels, labels, statistics, size
    split: str  # train, val, test or all
    classes: tuple[str, ...]  # columns of the labels
    sensors: tuple[str, ...]  # what the encoder saw
    pooling: str  # how tokens became one vector
    encoder: str  # fingerprint of its configuration, its weights and this package's code

    def require(self, wanted: "Origin", fields: Iterable[str], where: str, cure: str) -> None:
        """InputError naming the first of `fields` in which this differs from what is wanted."""
        for name in fields:
            values = [getattr(origin, name) for origin in (self, wanted)]
            if values[0] != values[1]:
                own, other = (printable(v if isinstance(v, str) else ", ".join(v), 80) for v in values)
                raise InputError(f"{where}: features of {name} {own}, not {other}", cure)


@dataclass(frozen=True)
class Features:
    """Features of one split."""

    x: Tensor  # (patches, D) float32
    y: Tensor  # (patches, classes) float32, 0 or 1
    cached: bool = False  # whether they came from the cache
    origin: Origin | None = None  # where known, linear_probe refuses features that do not belong together


def load_features(path: Path, wanted: Origin | None = None) -> Features:
    """Features that :func:`frozen_features` kept at `path`; InputError if damaged or of anything else than `wanted`."""
    cure = "remove it and make the features again"
    tensors, metadata = read_tensors(path)
    try:
        facts = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(metadata["origin"]).items()}
        features = Features(tensors["x"], tensors["y"], True, Origin(**facts))
    except (KeyError, ValueError, TypeError, AttributeError):
        raise InputError(f"{path} does not hold features of this version", cure) from None
    if wanted is not None:
        features.origin.require(wanted, asdict(wanted), str(path), cure)
    if len(features.x) != len(features.y):
        raise InputError(f"{path}: {len(features.x)} features, {len(features.y)} labels", cure)
    _require_finite(features.x, str(path))
    return features


@torch.no_grad()
def frozen_features(
    model: nn.Module | Path | str,
    archive: Archive,
    split: str,
    sensors: Sequence[str],
    cache_dir: Path | None = None,
    pooling: str = "mean",
    batch_size: int = 64,
    dataset: PairDataset | None = None,
    config: RunConfig | None = None,
) -> Features:
    """Pooled latents of every patch of a split, seen by any system through the given sensors only, without a mask.

    Args:
        model: a system, any torch module that follows the protocol of :mod:`~fusmae_lite.evaluation.own`, or the path
            of a Parquet file of vectors.
        cache_dir: keep the result there, under a name that changes with whatever it depends on; what others' modules
            give is not kept, as their code may change unseen.
        pooling: ``mean`` of the patch tokens, or ``cls``.
        dataset: pairs of that split if they are open already, all or some, so that several encoders read them once.
        config: its ``workers`` read, in its ``precision``, see :func:`in_bf16`. The device is the model's.

    Raises:
        InputError: an empty split, features that are not finite, or a cached file or `dataset` of something else.
    """
    options = {"image_size": dataset.size if dataset else 120, "patch_size": 1, "fusion": "none"}
    model = as_system(model, ModelConfig(modalities=tuple(sensors), **options))
    device, size = next(model.parameters()).device, model.config.image_size
    if dataset is None:
        dataset = PairDataset(archive, split=split, modalities=tuple(sensors), size=size, native=True)
    _require_pairs(dataset, archive, split, sensors, size)
    if isinstance(model, Given):
        labels = torch.from_numpy(archive.labels[dataset.indices]).float()
        return Features(model.of([dataset.name(i) for i in range(len(dataset))]), labels)
    origin = path = None
    if not isinstance(model, Own):
        origin = _origin(model, dataset, split, sensors, pooling, in_bf16(device, config))
        path = _place(Path(cache_dir), origin, dataset) if cache_dir is not None else None
    if path is not None and path.is_file():
        return load_features(path, origin)
    if not len(dataset):
        raise InputError(f"{archive.root} has no patch in the split {split!r}", "add its split files")
    xs, ys = [], []
    with evaluating(model):
        for images, labels in batches(dataset, batch_size, sensors, device, config):
            with precision(device, config):
                latents = model.encode(images)
            xs.append(latents.pooled(pooling).float().cpu())
            ys.append(labels)
    features = Features(torch.cat(xs), torch.cat(ys).float(), origin=origin)
    _require_finite(features.x, f"the encoder's output on {archive.root}, {split}")
    if path is not None:
        save_tensors(path, {"x": features.x, "y": features.y}, {"origin": json.dumps(asdict(origin))})
    return features


def _origin(
    model: System, dataset: PairDataset, split: str, sensors: Sequence[str], pooling: str, bf16: bool
) -> Origin:
    facts = package(), model.title, model.config.model_dump_json(), digest_of(model.state_dict())
    encoder = digest(*(fact.encode() for fact in facts)) + (" in bf16" if bf16 else "")
    archive, patches = dataset.archive, identity_of(dataset, sensors)
    place, classes = f"{archive.kind} {archive.root.resolve()}", tuple(archive.classes)
    return Origin(place, patches, split, classes, tuple(sensors), pooling, encoder)


def in_bf16(device: torch.device, config: RunConfig | None) -> bool:
    """Whether evaluation computes in bf16: as training does on a GPU; on a processor only if ``precision=bf16``.

    ``auto`` would give other numbers on another processor. Without a configuration it is fp32.
    """
    return config is not None and (config.precision == "bf16" or (device.type != "cpu" and uses_bf16(device, config)))


def precision(device: torch.device, config: RunConfig | None) -> torch.autocast:
    """Autocast where :func:`in_bf16` says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=in_bf16(device, config))


def batches(
    dataset: PairDataset,
    batch_size: int,
    sensors: Sequence[str],
    device: torch.device,
    config: RunConfig | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Batches of all items, or of those at `rows`: modality -> (B, C, H, W) on `device`, labels on the CPU.

    Native bands travel to the device as they lie on disk and become images there. ``config.workers`` read.
    """
    options = {"batch_size": batch_size, "pin_memory": device.type == "cuda", "sampler": rows}
    for sample in load(dataset, workers=config.workers if config else 0, **options):
        if dataset.native:
            images = assemble({s: sample["bands"][s] for s in sensors}, dataset.size, dataset.normalise, device)
        else:
            images = {s: sample["images"][s].to(device, non_blocking=True) for s in sensors}
        yield images, sample["labels"]


def _require_finite(x: Tensor, where: str) -> None:
    rows = (~torch.isfinite(x).all(dim=1)).nonzero().flatten().tolist()
    if rows:
        raise InputError(f"{where}: features of patch {rows[0]} are not finite", "check the weights and that patch")


def _require_pairs(dataset: PairDataset, archive: Archive, split: str, sensors: Sequence[str], size: int) -> None:
    """InputError unless a data set holds pairs of that split of that archive, as the encoder takes them."""
    lacking = ", ".join(sorted(set(sensors) - {modality.name for modality in dataset.modalities}))
    if dataset.archive is not archive:
        what = f"the data set is of {dataset.archive.root}, not of the archive given, {archive.root}"
    elif not np.isin(dataset.indices, archive.split(split)).all():
        what = f"the data set holds pairs that are not in the split {split!r}"
    elif dataset.size != size or not dataset.normalise or lacking:
        seen = f"size {dataset.size}, normalise {dataset.normalise}"
        what = f"the data set has {seen}, lacks sensors: {lacking or 'none'}"
    else:
        return
    raise InputError(what, "open the pairs with PairDataset(archive, split, size=model.config.image_size)")


def _place(folder: Path, origin: Origin, dataset: PairDataset) -> Path:
    """Where features of this origin are kept; those of pairs of the same names that have changed are removed."""
    names = [dataset.name(i) for i in range(len(dataset))]
    facts = json.dumps([asdict(replace(origin, patches="")), names, dataset.size])
    stem = f"features-{digest(facts.encode())}-"
    path = folder / f"{stem}{origin.patches}.safetensors"
    stale = [other for other in folder.glob(f"{stem}*.safetensors") if other != path]
    if stale and not dataset.__dict__.setdefault("_told", False):
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(stale[0].stat().st_mtime))
        line(f"the pairs of {dataset.archive.root} have changed since {since}: features made again")
        dataset.__dict__["_told"] = True
    for other in stale:
        other.unlink(missing_ok=True)
    return path
