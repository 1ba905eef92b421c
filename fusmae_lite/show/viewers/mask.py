"""Masks: drawn by a strategy or painted patch by patch, and what is left for the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ipywidgets as w
import numpy as np

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Archive
from fusmae_lite.model.masking import STRATEGIES
from fusmae_lite.show import pictures
from fusmae_lite.show.panels import Panel, draw_panels
from fusmae_lite.show.pictures import colour_of
from fusmae_lite.show.viewers.base import (
    PatchGrid,
    Viewer,
    archive_or_bundled,
    check_index,
    choice,
    pair_title,
    side_by_side,
    slider,
)
from fusmae_lite.show.viewers.models import Pairs, draw_masks, physical


class MaskViewer(Viewer):
    """Strategy, ratio and seed draw a mask; a click on a patch hides or shows it.

    With the consistent strategy a click acts on every sensor. Any mask of a single pair is legal as long as each sensor
    keeps a patch; in a batch every sample would have to keep the same number.

    Args:
        archive: an archive or its folder; the bundled patches if absent.
        config: sensors, image and patch size, masking; the paper's if absent.
        pair: row of the archive to begin with.

    Attributes:
        masks: modality -> bool (N,), True where hidden.
    """

    def __init__(
        self, archive: Archive | Path | str | None = None, config: ModelConfig | None = None, *, pair: int = 0
    ) -> None:
        super().__init__("Mask")
        self.archive, self.config = archive_or_bundled(archive), config or ModelConfig()
        self.pairs, grid = Pairs(self.archive, self.config), self.config.grid
        self.masks: dict[str, np.ndarray] = {}
        self.pair = slider("pair", 0, len(self.archive) - 1, check_index(self.archive, pair), live=True)
        self.percent = slider("hidden, %", 0, 99, round(100 * self.config.mask_ratio), live=True)
        self.seed = slider("seed", 0, 99, 0, live=True)
        self.strategy = choice("masking", STRATEGIES, self.config.masking)
        self.grids = {
            name: PatchGrid(grid, get_modality(name).title, lambda index, name=name: self.flip(name, index))
            for name in self.config.modalities
        }
        self.row, self.column = (slider(label, 0, grid - 1, 0, live=True) for label in ("row", "column"))
        keys = [self._key(name) for name in self.config.modalities]
        for control in (self.percent, self.seed, self.strategy):
            control.observe(self._redraw_masks, "value")
        self._redraw_masks()
        wrap = w.Layout(flex_flow="row wrap")
        self.assemble(
            [self.pair],
            w.HBox([self.pair, self.percent, self.seed, self.strategy], layout=wrap),
            side_by_side(self.grids),
            w.HBox([self.row, self.column, *keys], layout=wrap),
        )

    def flip(self, name: str, index: int) -> None:
        """Hide patch `index` of sensor `name`, or show it if it is hidden. The last visible patch stays."""
        hide = not self.masks[name][index]
        flipped = self.masks if self.strategy.value == "consistent" else {name: self.masks[name]}
        changed = {other: mask.copy() for other, mask in flipped.items()}
        for mask in changed.values():
            mask[index] = hide
        if any(mask.all() for mask in changed.values()):
            self.say("error: this is the last visible patch; the encoder needs one, so show another first")
            return
        self.masks |= changed
        self.refresh()

    def draw(self) -> tuple[bytes, str]:
        images = {name: physical(image, name) for name, image in self.pairs[self.pair.value].items()}
        rgbs = {name: pictures.composite(None, name, image) for name, image in images.items()}
        for name, rgb in rgbs.items():
            mask = self.masks[name]
            seen = f"{get_modality(name).title}, {int((~mask).sum())} of {mask.size} patches visible"
            self.grids[name].show(pictures.show_mask(rgb, mask), seen)
        title = pair_title(self.archive, self.pair.value)
        return draw_panels(mask_panels(rgbs, self.masks), title), f"{title}. {mask_words(self.masks)}"

    def _key(self, name: str) -> w.Button:
        """A button that flips the patch at the row and column sliders, for those who use no mouse."""
        button = w.Button(description=f"hide/show in {name.upper()}", tooltip="the patch at this row and column")
        button.on_click(lambda _button: self.flip(name, self.row.value * self.config.grid + self.column.value))
        return button

    def _redraw_masks(self, _change: object = None) -> None:
        drawn = draw_masks(self.config, self.strategy.value, self.percent.value, self.seed.value)
        self.masks = {name: mask[0].numpy().copy() for name, mask in drawn.items()}
        if self.children:
            self.refresh()


def mask_panels(rgbs: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> list[list[Panel]]:
    """A row for each sensor: the input, the input with hidden patches grey, and the visible patches in reading order.

    Args:
        rgbs: modality -> (H, W, 3) in 0..1.
        masks: modality -> bool (N,), True where hidden.
    """
    return [
        [
            Panel(rgb, get_modality(name).title, "input", colour_of(name)),
            Panel(pictures.show_mask(rgb, masks[name]), "hidden patches grey", f"{masks[name].mean():.0%} hidden"),
            Panel(visible_patches(rgb, masks[name]), "the encoder receives", f"{int((~masks[name]).sum())} tokens"),
        ]
        for name, rgb in rgbs.items()
    ]


def visible_patches(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The visible patches of (H, W, 3) one after the other, on white, in a picture of the same size."""
    grid = round(mask.size**0.5)
    side = rgb.shape[0] // grid
    page = np.ones_like(rgb)
    for place, index in enumerate(np.flatnonzero(~mask)):
        (to, left), (row, column) = divmod(place, grid), divmod(int(index), grid)
        patch = rgb[row * side : (row + 1) * side, column * side : (column + 1) * side]
        page[to * side : (to + 1) * side, left * side : (left + 1) * side] = patch
    return page


def mask_words(masks: Mapping[str, np.ndarray]) -> str:
    """What each sensor keeps, and how long the encoder's sequence is."""
    if not masks:
        raise InputError("no mask to describe", "give one for each sensor")
    kept = {name: int((~mask).sum()) for name, mask in masks.items()}
    parts = [f"{get_modality(name).title} keeps {n} of {masks[name].size} patches." for name, n in kept.items()]
    both = int(np.all([~mask for mask in masks.values()], axis=0).sum())
    length = " + ".join(map(str, kept.values()))
    return f"{' '.join(parts)} {both} places are visible to all. The encoder receives {length} + 1 (CLS) tokens."
