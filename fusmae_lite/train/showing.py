"""What a step of pretraining shows the model: pairs and synthetic scenes, augmented.

Everything is drawn for the whole batch, from (seed, step); each process then takes its rows.
"""

import time
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import default_collate

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.seeding import derive, generator
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.augment import augment, draw_augmentation, draw_jitter, jitter
from fusmae_lite.data.loader import load
from fusmae_lite.data.pairs import PairDataset, assemble
from fusmae_lite.data.synthetic.scene import Scenes
from fusmae_lite.train.distributed import Processes

Bands = dict[str, dict[str, Tensor]]  # modality -> band -> (B, side, side)


class Showing:
    """The pairs of the training split and synthetic scenes on the same grid, as each step sees them."""

    def __init__(self, config: RunConfig, archive: Archive, processes: Processes) -> None:
        options = {"modalities": config.modalities, "size": config.image_size, "cache": config.cache}
        self.dataset = PairDataset(archive, "train", native=True, **options)
        if len(self.dataset) < processes.size:
            several = "es" if processes.size > 1 else ""
            what = f"{archive.root} has {len(self.dataset)} patches in the split 'train'"
            cure = "add its split files, or open another archive"
            raise InputError(f"{what} for {processes.size} process{several}", cure)
        self.config, self.processes = config, processes
        made = config.batch_size // 2 if config.synthetic else 0
        self.pairs = min(config.batch_size - made, len(self.dataset))
        self.batch = self.pairs + made  # B, in all processes together
        self.steps_per_epoch = len(self.dataset) // self.pairs
        self.planned_steps = config.epochs * self.steps_per_epoch
        self.last_step = min(self.planned_steps, config.max_steps or self.planned_steps)
        self.scenes = None
        if made:  # of the same side as the pairs, on one grid if those are
            sides = [{band.shape[-1] for band in parts.values()} for parts in self.dataset[0]["bands"].values()]
            several = any(len(parts) > 1 for parts in sides) or config.modalities == ("s1",)
            self.scenes = Scenes(derive("scenes", config.seed), side=max(map(max, sides)), one_grid=not several)

    def rows(self, step: int) -> Tensor:
        """The pairs that a step sees, in all processes together; an epoch's incomplete last batch is dropped."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _order(len(self.dataset), self.config.seed, epoch)
        return order[position * self.pairs : (position + 1) * self.pairs]

    def own(self, rows: Tensor) -> Tensor:
        """This process's part of what was drawn for a batch: of its pairs, then of its synthetic scenes."""
        return torch.cat([self.processes.own(half) for half in rows.split([self.pairs, self.batch - self.pairs])])

    def batches(self, start: int) -> Iterator[tuple[int, Bands, float]]:
        """(step, native bands of this process's pairs, seconds waited for them) of each step from `start`.

        One loader serves all of them, across epochs, so that reading never starts anew.
        """
        left = range(start, self.last_step)
        rows = (self.processes.own(self.rows(step)).tolist() for step in left)
        pinned = self.processes.device.type == "cuda"
        loader = load(self.dataset, workers=self.config.workers, batch_sampler=rows, pin_memory=pinned)
        asked = time.perf_counter()
        for step, sample in zip(left, loader, strict=True):
            yield step, sample["bands"], time.perf_counter() - asked
            asked = time.perf_counter()

    def images(self, bands: Bands, step: int) -> dict[str, Tensor]:
        """Modality -> (this process's rows, C, H, W), normalised and augmented; `bands` are those of its pairs."""
        config, own = self.config, self.own
        images = assemble(bands, config.image_size, device=self.processes.device)
        if self.scenes is not None:
            made = self.batch - self.pairs
            numbers = step * made + self.processes.own(torch.arange(made))  # 1.5 ms each: none is kept or shown twice
            scenes = [self.scenes.pair(number).bands for number in numbers.tolist()]
            bands = default_collate([{k: scene[k] for k in config.modalities} for scene in scenes])
            made = assemble(bands, config.image_size, device=self.processes.device)
            images = {name: torch.cat([image, made[name]]) for name, image in images.items()}
        drawn = draw_augmentation(self.batch, config.augment, generator("augment", config.seed, step))
        images = augment(images, config.augment, drawn=[own(draw) for draw in drawn])
        if config.jitter:
            noise = draw_jitter(self.batch, config.modalities, generator("jitter", config.seed, step))
            images = jitter(images, {name: own(draw) for name, draw in noise.items()}, config.jitter)
        return images


@lru_cache(maxsize=2)
def _order(length: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(length, generator=generator("order", seed, epoch))
