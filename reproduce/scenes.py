"""The pairs that the tables are made on: small, in memory, each band standardised by its own archive's training split.

Images are area averages (decibels in linear power), so that a pixel of 30 m holds what nine of 10 m saw.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import DECIBEL, get_modality
from fusmae_lite.data.archives.base import SPLITS, Archive, Meta, Patch
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.pairs import PairDataset, stack_bands
from fusmae_lite.data.synthetic import Scenes, Truth
from fusmae_lite.systems.tensors import read_tensors, save_tensors

SENSORS = ("s1", "s2")
#: Diagnostic classes by what shows them. Patches differ as real ones do, so that their mean colours tell little.
TRUTH = Truth(texture=(BEN19[3], BEN19[12]), context=(BEN19[5], BEN19[10]), offset=1.0)


class Pairs(Archive):
    """Pairs in memory, as the archive that pretraining and evaluation read.

    Args:
        images: sensor -> (n, C, side, side), standardised by :func:`standardise`.
        labels: (n, classes) 0 and 1.
        splits: (n,) of train, val and test.
        root: the folder they came from.
    """

    kind, layout = "pairs in memory", "nothing on disk"

    def __init__(
        self, images: dict[str, Tensor], labels: Tensor, splits: NDArray[np.str_], classes: Sequence[str], root: Path
    ) -> None:
        self.images, self.root, self.classes = images, root, tuple(classes)
        self._labels, self._splits = labels.numpy() > 0, splits
        self.names = tuple(f"pair {i}" for i in range(len(labels)))

    @classmethod
    def matches(cls, root: Path) -> bool:
        return False

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    @property
    def splits(self) -> np.ndarray:
        return self._splits

    def meta(self, index: int) -> Meta:
        return {"split": str(self._splits[index])}

    def keys(self, index: int) -> dict[str, str]:
        return dict.fromkeys(self.images, self.names[index])

    def stored_crc32(self, modality: str) -> np.ndarray:
        return np.array([zlib.crc32(image.numpy().tobytes()) for image in self.images[modality]], dtype=np.uint32)

    def read(self, index: int, modalities: Sequence[str] | None = None) -> Patch:
        bands = {}
        for name in modalities or self.images:
            sensor = get_modality(name)
            image = self.images[name][index].numpy()
            scaled = image * np.float32(sensor.std)[:, None, None] + np.float32(sensor.mean)[:, None, None]
            bands[name] = dict(zip(sensor.bands, scaled, strict=True))
        shown = tuple(np.array(self.classes)[self._labels[index]].tolist())
        return Patch(self.names[index], bands, shown, self.meta(index))

    def of(self, split: str, rows: Sequence[int] | NDArray | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """Images and labels of a split, or of some positions in it."""
        chosen = self.split(split) if rows is None else self.split(split)[np.asarray(rows)]
        return {name: image[chosen] for name, image in self.images.items()}, torch.from_numpy(self._labels[chosen])

    def only(self, pairs: int) -> Pairs:
        """The same with the first `pairs` of the training split alone."""
        kept = np.ones(len(self), dtype=bool)
        kept[self.split("train")[pairs:]] = False
        images = {name: image[kept] for name, image in self.images.items()}
        return Pairs(images, torch.from_numpy(self._labels[kept]), self._splits[kept], self.classes, self.root)


def standardise(images: dict[str, Tensor], train: NDArray[np.bool_]) -> dict[str, Tensor]:
    """Each band (n, C, H, W) with mean 0 and deviation 1 over the pairs of the training split; optics as logarithms.

    A logarithm makes of a band's long tail a spread that 28 numbers, random filters and encoders all use better.
    """
    scaled = {}
    for name, image in images.items():
        image = image if get_modality(name).units == DECIBEL else image.clamp_min(1).log()
        own = image[torch.from_numpy(train)]
        mean, std = own.mean(dim=(0, 2, 3), keepdim=True), own.std(dim=(0, 2, 3), keepdim=True)
        scaled[name] = ((image - mean) / std).clamp(-8, 8)  # a model takes no value that real images never have
    return scaled


def make_scenes(path: Path, sizes: Sequence[int], side: int, seed: int, truth: Truth | None = None) -> Pairs:
    """Synthetic pairs, `sizes` of train, val and test; drawn once, then read from `path`.

    Of land cover; with `truth` of known truth instead.
    """
    if not path.is_file():
        source = Scenes(seed, truth=truth)
        images: dict[str, list[Tensor]] = {name: [] for name in SENSORS}
        labels = torch.zeros(sum(sizes), len(BEN19))
        for index in range(sum(sizes)):
            pair = source.pair(index)
            for name, made in images.items():
                bands = {band: torch.from_numpy(values)[None] for band, values in pair.bands[name].items()}
                made.append(stack_bands(bands, name, side))
            labels[index, [BEN19.index(label) for label in pair.labels]] = 1
        save_tensors(path, {"labels": labels, **{name: torch.cat(made) for name, made in images.items()}}, {})
    tensors, _ = read_tensors(path)
    if len(tensors["labels"]) != sum(sizes):
        raise InputError(f"{path} holds {len(tensors['labels'])} pairs, not {sum(sizes)}", "remove it")
    splits = np.repeat(SPLITS, sizes)
    images = standardise({name: tensors[name] for name in SENSORS}, splits == "train")
    return Pairs(images, tensors["labels"], splits, BEN19, path)


def load_pairs(archive: Archive, side: int) -> Pairs:
    """Pairs of any archive, read into memory at `side` pixels."""
    dataset = PairDataset(archive, split="all", size=side, normalise=False)
    items = [dataset[i] for i in range(len(dataset))]
    images = {name: torch.stack([item["images"][name] for item in items]) for name in SENSORS}
    labels = torch.stack([item["labels"] for item in items])
    images = standardise(images, archive.splits == "train")
    return Pairs(images, labels, archive.splits, archive.classes, archive.root)
