"""What a step of pretraining shows the model: pairs and synthetic scenes, augmented, and some of it by one sensor only.

Everything is drawn for the whole batch, from (seed, step); each process then takes its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
    """Makes the images of each step.

    Args:
        config: its fields augment, jitter and synthetic say what is done.
        dataset: the pairs of the training split, native; synthetic scenes lie on the same grid.
    """

    def __init__(self, config: RunConfig, dataset: PairDataset) -> None:
        self.config = config
        wanted = config.batch_size // 2 if config.synthetic else 0
        self.pairs, self.made = min(config.batch_size - wanted, len(dataset)), wanted
        self.scenes = _scenes_like(dataset, config) if wanted else None

    @property
    def batch(self) -> int:
        """B: pairs and scenes of a step, in all processes together."""
        return self.pairs + self.made

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
            made = assemble(
                _to(self._see((step * self.made + places[places >= 0]).tolist()), device), config.image_size
            )
            images = {name: torch.cat([image, made[name]]) for name, image in images.items()}
        drawn = draw_augmentation(self.batch, config.augment, generator("augment", config.seed, step))
        images = augment(images, config.augment, drawn=[own(draw) for draw in drawn])
        if config.jitter:
            noise = draw_jitter(self.batch, config.modalities, generator("jitter", config.seed, step))
            images = jitter(images, {name: own(draw) for name, draw in noise.items()}, config.jitter)
        return images

    def _see(self, rows: list[int]) -> Bands:
        """Native bands of these scenes; 1.5 ms each, so that none needs to be kept or shown twice."""
        assert self.scenes is not None
        seen = [self.scenes.pair(row).bands for row in rows]
        return {
            name: {b: torch.from_numpy(np.stack([bands[name][b] for bands in seen])) for b in get_modality(name).bands}
            for name in self.config.modalities
        }


def _scenes_like(dataset: PairDataset, config: RunConfig) -> Scenes:
    """Synthetic scenes of the same side as the dataset's pairs, on one grid if those are."""
    sides = [{band.shape[-1] for band in parts.values()} for parts in dataset[0]["bands"].values()]
    several = any(len(found) > 1 for found in sides) or config.modalities == ("s1",)
    return Scenes(derive("scenes", config.seed), side=max(map(max, sides)), one_grid=not several)


def _to(bands: Mapping[str, Mapping[str, Tensor]], device: torch.device) -> Bands:
    return {k: {b: x.to(device, non_blocking=True) for b, x in native.items()} for k, native in bands.items()}
