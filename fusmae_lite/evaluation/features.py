"""Frozen features: the encoder runs once over each patch, its output is kept, the probe trains on that."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.progress import line
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.identity import digest, identity_of, package
from fusmae_lite.data.loader import load
from fusmae_lite.data.pairs import PairDataset, assemble
from fusmae_lite.systems import System
from fusmae_lite.systems.weights import read_tensors, save_tensors
from fusmae_lite.train.optimise import uses_bf16


@dataclass(frozen=True)
class Origin:
    """What features were made of, so that they are not taken for others.

    Args:
        archive: its format and folder.
        patches: :func:`identity_of` the pairs: names in order, pixels, labels, statistics, size.
        split: ``train``, ``val``, ``test`` or ``all``.
        classes: columns of the labels.
        sensors: what the encoder saw.
        pooling: how tokens became one vector.
        encoder: fingerprint of its configuration, its weights and this package's code.
    """

    archive: str
    patches: str
    split: str
    classes: tuple[str, ...]
    sensors: tuple[str, ...]
    pooling: str
    encoder: str

    def require_apart(self, test: Origin) -> None:
        """InputError unless `test` is another split of the same archive, for a probe that these features train."""
        if test.archive != self.archive:
            what, cure = (
                f"test features of archive {test.archive}, training features of {self.archive}",
                _CURES["archive"],
            )
        elif test.split == self.split or "all" in (test.split, self.split):
            what = f"training features of split {self.split} and test features of split {test.split} share patches"
            cure = "test on another split"
        else:
            return
        raise InputError(what, f"{cure}; or pass their tensors, features.x, if you mean it")

    def require(self, other: Origin, names: Sequence[str], where: str) -> None:
        """InputError naming the first of the fields `names` in which `other`, what is wanted, differs from this."""
        for name in names:
            found, wanted = getattr(self, name), getattr(other, name)
            if found != wanted:
                raise InputError(f"{where}: features of {name} {_short(found)}, not {_short(wanted)}", _CURES[name])


_CURES = {
    "archive": "use features of the archive at hand",
    "patches": "the pairs have changed: make the features again",
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
    model: System,
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
        model: any system, see :class:`~fusmae_lite.systems.System`; put into evaluation mode.
        archive: where the patches come from.
        split: ``train``, ``val``, ``test`` or ``all``.
        sensors: which modalities the encoder sees; the others contribute no tokens.
        cache_dir: keep the result there, under a name that changes with the weights, the code, the arguments and the
            content of the pairs.
        pooling: ``mean`` of the patch tokens, or ``cls``.
        batch_size: patches encoded at once.
        dataset: pairs of that split if they are open already, all or some, so that several encoders read them once.
        config: its ``workers`` read, its ``precision`` is computed in (see :func:`in_bf16`); by default no further
            process, and fp32. The device is the model's.

    Raises:
        InputError: an empty split, features that are not finite, a cached file that holds others than its name says,
            or a `dataset` of other pairs, another size or other pixels than the encoder takes.
    """
    device, size = next(model.parameters()).device, model.config.image_size
    if dataset is None:
        dataset = PairDataset(archive, split=split, modalities=tuple(sensors), size=size, native=True)
    _require_pairs(dataset, archive, split, sensors, size)
    origin, path = _origin(model, dataset, split, sensors, pooling), None
    if bf16 := config is not None and in_bf16(device, config):
        origin = replace(origin, encoder=f"{origin.encoder} in bf16")
    if cache_dir is not None:
        path = _place(Path(cache_dir), origin, dataset)
        if path.is_file():
            return load_features(path, origin)
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
    loader = load(dataset, workers=workers, batch_size=batch_size, pin_memory=device.type == "cuda")
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


def _require_pairs(dataset: PairDataset, archive: Archive, split: str, sensors: Sequence[str], size: int) -> None:
    """InputError unless a data set holds pairs of that split of that archive, as the encoder takes them."""
    cure = "open the pairs with PairDataset(archive, split, size=model.config.image_size)"
    lacking = set(sensors) - {modality.name for modality in dataset.modalities}
    if dataset.archive is not archive:
        raise InputError(f"the data set is of {dataset.archive.root}, not of the archive given, {archive.root}", cure)
    if not np.isin(dataset.indices, archive.split(split)).all():
        raise InputError(f"the data set holds pairs that are not in the split {split!r}", cure)
    if dataset.size != size or not dataset.normalise or lacking:
        found = f"size {dataset.size}, normalise {dataset.normalise}"
        raise InputError(f"the data set has {found}, lacks sensors: {', '.join(sorted(lacking)) or 'none'}", cure)


def _place(folder: Path, origin: Origin, dataset: PairDataset) -> Path:
    """Where features of this origin are kept; those of pairs of the same names that have changed are removed."""
    names = [dataset.name(i) for i in range(len(dataset))]
    asked = json.dumps([asdict(replace(origin, patches="")), names, dataset.size])
    stem = f"features-{digest(asked.encode())}-"
    path = folder / f"{stem}{origin.patches}.safetensors"
    stale = [other for other in folder.glob(f"{stem}*.safetensors") if other != path]
    if stale and not dataset.__dict__.setdefault("_told", False):
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(stale[0].stat().st_mtime))
        line(f"the pairs of {dataset.archive.root} have changed since {since}: features made again")
        dataset.__dict__["_told"] = True
    for other in stale:
        other.unlink(missing_ok=True)
    return path


def _origin(model: System, dataset: PairDataset, split: str, sensors: Sequence[str], pooling: str) -> Origin:
    archive = dataset.archive
    return Origin(
        archive=f"{archive.kind} {archive.root.resolve()}",
        patches=identity_of(dataset, sensors),
        split=split,
        classes=tuple(archive.classes),
        sensors=tuple(sensors),
        pooling=pooling,
        encoder=_fingerprint(model),
    )


_hashed: WeakKeyDictionary[System, tuple[list[tuple[int, int]], str]] = WeakKeyDictionary()


def _fingerprint(model: System) -> str:
    """Of code, configuration and weights, which are read again only if torch says that one was written to."""
    weights = model.state_dict()
    state = [(tensor.data_ptr(), tensor._version) for tensor in weights.values()]
    known = _hashed.get(model)
    if known is None or known[0] != state:
        parts = [package().encode(), model.config.model_dump_json().encode()]
        for name, tensor in weights.items():
            parts += [name.encode(), tensor.detach().cpu().contiguous().numpy().tobytes()]
        known = _hashed[model] = (state, digest(*parts))
    return known[1]
