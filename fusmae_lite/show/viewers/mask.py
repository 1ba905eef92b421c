"""Masks: drawn by a strategy or painted patch by patch, and what is left for the encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.model.masking import STRATEGIES, sample_masks
from fusmae_lite.show.figures import mask_panels
from fusmae_lite.show.panels import Panel, draw_panels
from fusmae_lite.show.viewers.base import PairViewer, PatchGrid, Source, choice, slider

#: The choice of the cross-sensor control that leaves masks alone.
AS_DRAWN = "as drawn"


class MaskViewer(PairViewer):
    """Strategy, ratio and seed draw a mask; a click on a patch hides or shows it, with consistent masks in all sensors.

    Any mask of a single pair is legal as long as each sensor keeps a patch; in a batch every sample would have to keep
    the same number. The default `config` is the paper's.
    """

    def __init__(self, archive: Source = None, config: ModelConfig | None = None, *, pair: int = 0) -> None:
        self.config = config or ModelConfig()
        super().__init__("Mask", archive, pair, self.config, live=True)
        grid, names = self.config.grid, self.config.modalities
        self.percent = slider("hidden, %", 0, 99, round(100 * self.config.mask_ratio), live=True)
        self.seed = slider("seed", 0, 99, 0, live=True)
        self.strategy = choice("masking", STRATEGIES, value=self.config.masking)
        for control in (self.percent, self.seed, self.strategy):
            control.observe(self._redraw_masks, "value")
        self._redraw_masks()
        self.grids = {name: PatchGrid(name, grid, self.flip) for name in names}
        self.row, self.column = (slider(label, 0, grid - 1, 0, live=True) for label in ("row", "column"))
        keys = [  # for those who use no mouse
            self.button(
                f"hide/show in {name.upper()}",
                lambda name=name: self.flip(name, self.row.value * grid + self.column.value),
                tooltip="the patch at this row and column",
            )
            for name in names
        ]
        controls = [self.pair, self.percent, self.seed, self.strategy]
        self.assemble(controls, list(self.grids.values()), [self.row, self.column, *keys])

    def flip(self, name: str, index: int) -> None:
        """Hide patch `index` of sensor `name`, or show it if it is hidden. The last visible patch stays."""
        flipped = self.masks if self.strategy.value == "consistent" else [name]
        changed = {other: self.masks[other].copy() for other in flipped}
        for mask in changed.values():
            mask[index] = not self.masks[name][index]
        if any(mask.all() for mask in changed.values()):
            self.say("error: this is the last visible patch; the encoder needs one, so show another first")
            return
        self.masks |= changed
        self.refresh()

    def draw(self) -> tuple[bytes, str]:
        rows = []
        for name, rgb in self.rgbs.items():
            mask = self.masks[name]
            whole, seen = mask_panels(name, rgb, mask)
            self.grids[name].show(seen.picture, f"{whole.title}, {seen.caption}")
            received = Panel(visible_patches(rgb, mask), "the encoder receives", f"{int((~mask).sum())} tokens")
            rows.append([whole, seen, received])
        kept = {name: int((~mask).sum()) for name, mask in self.masks.items()}
        tokens, title = self.config.tokens, self.pair_title()
        told = [f"{get_modality(name).title} keeps {n} of {tokens} patches." for name, n in kept.items()]
        both = int(np.all([~mask for mask in self.masks.values()], axis=0).sum())
        length = f"The encoder receives {' + '.join(map(str, kept.values()))} + 1 (CLS) tokens."
        words = [f"{title}.", *told, f"{both} places are visible to all.", length]
        return draw_panels(rows, title), " ".join(words)

    def _redraw_masks(self, _change: object = None) -> None:
        drawn = draw_masks(self.config, self.strategy.value, self.percent.value, self.seed.value)
        self.masks = {name: mask[0].numpy().copy() for name, mask in drawn.items()}  # bool (N,), True where hidden


def visible_patches(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The visible patches of (H, W, 3) one after the other, on white, in a picture of the same size."""
    grid = round(mask.size**0.5)
    side = rgb.shape[0] // grid
    patches = rgb.reshape(grid, side, grid, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    page = np.ones_like(patches)
    page[: (~mask).sum()] = patches[~mask]
    return page.reshape(grid, grid, side, side, 3).swapaxes(1, 2).reshape(rgb.shape)


def cross_choices(modalities: Sequence[str]) -> dict[str, tuple[tuple[str, ...] | None, str | None]]:
    """What the cross-sensor control offers -> (sensors encoded, None: all; sensor reduced to one visible patch)."""
    hidden = {f"{name.upper()} hidden but one patch": (None, name) for name in modalities}
    alone = {f"{name.upper()} encoded alone": ((name,), None) for name in modalities}
    return {AS_DRAWN: (None, None), **hidden, **alone}


def draw_masks(config: ModelConfig, strategy: str, percent: int, seed: int, cross: str = AS_DRAWN) -> dict[str, Tensor]:
    """Masks of a single pair: modality -> bool (1, N), True where hidden.

    `percent` of each sensor's patches are hidden, but one always stays; `cross` is a key of :func:`cross_choices`.
    """
    names, choices = config.modalities, cross_choices(config.modalities)
    if cross not in choices:
        raise InputError(f"no choice {cross!r} for {', '.join(names)}", f"choose one of {', '.join(choices)}")
    alone, reduced = choices[cross]
    kept = max(1, round(config.tokens * (100 - percent) / 100))
    masks = sample_masks(strategy, 1, config.tokens, kept, names, torch.Generator().manual_seed(seed))
    if reduced:
        first = int((~masks[reduced][0]).nonzero()[0])
        masks[reduced] = torch.ones_like(masks[reduced])
        masks[reduced][0, first] = False
    return {name: mask for name, mask in masks.items() if alone is None or name in alone}
