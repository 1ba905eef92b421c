"""What a step of pretraining shows the model: pairs and synthetic scenes, augmented, and some of it by one sensor only.

Everything is drawn for the whole batch, from (seed, step); each process then takes its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.seeding import derive, generator
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.augment import augment, draw_augmentation, draw_jitter, jitter
from fusmae_lite.data.pairs import PairDataset, assemble
from fusmae_lite.data.synthetic.scene import Scenes

Bands = dict[str, dict[str, Tensor]]  # modality -> band -> (B, side, side)
OwnRows = Callable[[Tensor], Tensor]


class Showing:
    """The pairs and the images of each step.

    Args:
        config: its fields augment, jitter and synthetic say what is done.
        dataset: the pairs of the training split, native; synthetic scenes lie on the same grid.
    """

    def __init__(self, config: RunConfig, dataset: PairDataset) -> None:
        self.config, self.dataset = config, dataset
        self.made = config.batch_size // 2 if config.synthetic else 0
        self.pairs = min(config.batch_size - self.made, len(dataset))
        self.batch = self.pairs + self.made  # B, in all processes together
        self.steps_per_epoch = len(dataset) // self.pairs
        self.scenes = _scenes_like(dataset, config) if config.synthetic else None

    def rows(self, step: int) -> Tensor:
        """The pairs that a step sees, in all processes together; an epoch's incomplete last batch is dropped."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _order(len(self.dataset), self.config.seed, epoch)
        return order[position * self.pairs : (position + 1) * self.pairs]

    def images(self, bands: Bands, step: int, own: OwnRows, device: torch.device) -> dict[str, Tensor]:
        """Modality -> (rows of this process, C, H, W), normalised and augmented, pairs first.

        Args:
            bands: native bands of this process's pairs.
            own: takes this process's rows of something drawn for the whole batch.
        """
        config = self.config
        images = assemble(_to(bands, device), config.image_size)
        if self.scenes is not None:
            places = own(torch.arange(self.batch)) - self.pairs
            scenes = self._scenes((step * self.made + places[places >= 0]).tolist())
            made = assemble(_to(scenes, device), config.image_size)
            images = {name: torch.cat([image, made[name]]) for name, image in images.items()}
        drawn = draw_augmentation(self.batch, config.augment, generator("augment", config.seed, step))
        images = augment(images, config.augment, drawn=[own(draw) for draw in drawn])
        if config.jitter:
            noise = draw_jitter(self.batch, config.modalities, generator("jitter", config.seed, step))
            images = jitter(images, {name: own(draw) for name, draw in noise.items()}, config.jitter)
        return images

    def _scenes(self, rows: list[int]) -> Bands:
        """Native bands of these scenes; 1.5 ms each, so that none needs to be kept or shown twice."""
        assert self.scenes is not None
        scenes = [self.scenes.pair(row).bands for row in rows]
        return {
            name: {
                b: torch.from_numpy(np.stack([bands[name][b] for bands in scenes])) for b in get_modality(name).bands
            }
            for name in self.config.modalities
        }


@lru_cache(maxsize=2)
def _order(length: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(length, generator=generator("order", seed, epoch))


def _scenes_like(dataset: PairDataset, config: RunConfig) -> Scenes:
    """Synthetic scenes of the same side as the dataset's pairs, on one grid if those are."""
    sides = [{band.shape[-1] for band in parts.values()} for parts in dataset[0]["bands"].values()]
    several = any(len(parts) > 1 for parts in sides) or config.modalities == ("s1",)
    return Scenes(derive("scenes", config.seed), side=max(map(max, sides)), one_grid=not several)


def _to(bands: Mapping[str, Mapping[str, Tensor]], device: torch.device) -> Bands:
    return {k: {b: x.to(device, non_blocking=True) for b, x in native.items()} for k, native in bands.items()}
