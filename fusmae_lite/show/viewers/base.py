"""What viewers share: controls above one picture that states itself in words, a pair to look at, clickable patches."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
from torch import Tensor
from traitlets import Unicode

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Archive, open_archive
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.show.panels import few_colours, rgb_png, text_png
from fusmae_lite.show.pictures import colour_of, composites_of

#: What a viewer opens: an archive, its folder, or the bundled patches.
Source = Archive | Path | str | None
#: Screen pixels along the side of a picture that can be clicked, at most.
GRID_SIDE = 300


class Picture(w.Image):
    """An image whose tooltip is the title of its img, which is what a screen reader says of it.

    The browser's side of ipywidgets asks a widget with a tooltip for its description, too; an Image has none and would
    not be shown at all.
    """

    description = Unicode("").tag(sync=True)


class Viewer(w.VBox):
    """Controls and a picture. A subclass calls :meth:`assemble` once and implements :meth:`draw`."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self.image = Picture(format="png", layout=w.Layout(max_width="100%", width="fit-content"))
        self.words = w.HTML()
        self.message = w.HTML()
        self._held = 0

    def draw(self) -> tuple[bytes, str]:
        """PNG bytes of the current state, and what they show in words. May raise :class:`InputError`."""
        raise NotImplementedError

    def assemble(self, *rows: Sequence[w.Widget]) -> None:
        """Lay out rows of controls above the picture, and redraw whenever one of them changes."""
        for control in chain(*rows):
            if control.has_trait("value"):
                control.observe(lambda _change: self.refresh(), "value")
        boxes = [w.HBox(row, layout=w.Layout(flex_flow="row wrap")) for row in rows]
        self.children = (*boxes, self.image, self.words, self.message)
        self.refresh()

    def refresh(self) -> None:
        """Draw the current state. Bad input is told in one line below the picture, which then stays as it was."""
        if self._held:
            return
        try:
            png, words = self.draw()
        except InputError as error:
            self.say(f"error: {error}")
            self.image.value = self.image.value or text_png(f"error: {error}")
            return
        self.image.value = png
        self.image.tooltip = words
        self.words.value = f"<small>{html.escape(words)}</small>"
        self.say("")

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Several controls change, one picture is drawn."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self.refresh()

    @property
    def description(self) -> str:
        """The picture in words."""
        return self.image.tooltip or ""

    def picture(self) -> bytes:
        """The current picture as PNG bytes."""
        return bytes(self.image.value)

    def say(self, text: str) -> None:
        """One line below the picture; empty clears it."""
        self.message.value = html.escape(text)

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and beside it the picture for readers without a kernel: GitHub, HTML, a fresh JupyterLab.

        The picture is stored in 256 colours, a third of the size, its words beside it as alternative text.
        """
        bundle = super()._repr_mimebundle_(**options)
        bundle["image/png"] = base64.b64encode(few_colours(self.picture())).decode("ascii")
        bundle["text/plain"] = f"{self.title}: {self.description}"
        return bundle, {"image/png": {"alt": bundle["text/plain"]}}


class PairViewer(Viewer):
    """A viewer of the pairs of an archive or of its folder, the bundled patches if None, beginning with row `pair`.

    `live` follows the mouse along the slider, for pictures that need no model.
    """

    def __init__(self, title: str, archive: Source, pair: int, live: bool = False) -> None:
        super().__init__(title)
        self.archive = archive if isinstance(archive, Archive) else open_archive(archive)
        last = len(self.archive) - 1
        if not 0 <= pair <= last:
            raise InputError(f"no pair {pair} among {last + 1}", f"choose 0 to {last}")
        self.pair = slider("pair", 0, last, pair, live)

    def use(self, config: ModelConfig) -> None:
        """Read pairs as a model of this configuration takes them."""
        data = PairDataset(self.archive, "all", modalities=config.modalities, size=config.image_size)
        self._images = lru_cache(1)(lambda row: {name: image[None] for name, image in data[row]["images"].items()})

    @property
    def images(self) -> dict[str, Tensor]:
        """The pair on show: modality -> (1, C, H, W), normalised."""
        return self._images(self.pair.value)

    def pair_title(self, labels: Sequence[str] | None = None) -> str:
        """Name and labels of the pair; give labels that are known, as ``archive.labels`` may read every pair once."""
        archive, row = self.archive, self.pair.value
        if labels is None:
            labels = [name for name, on in zip(archive.classes, archive.labels[row], strict=True) if on]
        kind = "synthetic pair " if archive.kind_of_pairs.startswith("synthetic") else ""
        shown = ", ".join(name.split(",")[0] for name in labels) or "no labels"
        return f"{kind}{row}: {archive.names[row]} ({shown})"


class PatchGrid(w.GridBox):
    """A picture of `grid` x `grid` patches with a transparent button over each, which calls `clicked` with its index.

    Two hundred stops of the Tab key would help nobody, so the buttons are for pointers; viewers with a grid have
    row and column sliders that do the same by keyboard.
    """

    def __init__(self, grid: int, name: str, clicked: Callable[[int], None]) -> None:
        step = GRID_SIDE // grid
        side, tracks = f"{grid * step}px", f"repeat({grid}, {step}px)"
        square = {"width": side, "height": side}
        self.image = Picture(
            format="png", tooltip=name, layout=w.Layout(grid_area="1 / 1", object_fit="fill", **square)
        )
        cell = w.Layout(width=f"{step}px", height=f"{step}px", margin="0", padding="0", border="0", min_width="0")
        style = w.ButtonStyle(button_color="transparent")
        self.buttons = []
        for index in range(grid * grid):
            tooltip = f"{name}, row {index // grid}, column {index % grid}"
            button = w.Button(layout=cell, style=style, tabbable=False, tooltip=tooltip)
            button.on_click(lambda _button, index=index: clicked(index))
            self.buttons.append(button)
        tiled = {"grid_template_columns": tracks, "grid_template_rows": tracks, "grid_gap": "0", "margin": "0"}
        cells = w.GridBox(self.buttons, layout=w.Layout(grid_area="1 / 1", overflow="hidden", **tiled, **square))
        super().__init__([self.image, cells], layout=w.Layout(margin="4px", overflow="hidden", **square))

    def show(self, rgb: np.ndarray, words: str) -> None:
        """Put (H, W, 3) in 0..1 under the buttons."""
        self.image.value = rgb_png(rgb, enlarge=2)
        self.image.tooltip = words


def patch_grids(names: Sequence[str], grid: int, clicked: Callable[[str, int], None]) -> dict[str, PatchGrid]:
    """A clickable picture for each sensor; `clicked` is called with its name and the index of the patch."""
    return {
        name: PatchGrid(grid, get_modality(name).title, lambda index, name=name: clicked(name, index)) for name in names
    }


def titled(grids: Mapping[str, PatchGrid]) -> list[w.VBox]:
    """Clickable pictures with the name of each sensor above in its colour."""
    heads = (f'<b style="color:{colour_of(name)}">{html.escape(get_modality(name).title)}</b>' for name in grids)
    return [w.VBox([w.HTML(head), grid]) for head, grid in zip(heads, grids.values(), strict=True)]


def slider(label: str, low: int, high: int, value: int, live: bool = False) -> w.IntSlider:
    """A whole number between `low` and `high`; `live` follows the mouse."""
    layout = w.Layout(width="270px")
    return w.IntSlider(value, low, high, description=label, continuous_update=live, layout=layout, disabled=low == high)


def choice(label: str, options: Sequence[Any], value: Any = None) -> w.Dropdown:
    """One of several, each a text or (text, value); the first unless told, and wide enough for the longest."""
    pairs = [option if isinstance(option, tuple) else (option, option) for option in options]
    layout = w.Layout(width=f"{max(230, 140 + 8 * max(len(text) for text, _ in pairs))}px")
    return w.Dropdown(
        options=list(options), value=pairs[0][1] if value is None else value, description=label, layout=layout
    )


def look_choices(names: Sequence[str]) -> dict[str, w.Dropdown]:
    """Sensor -> control that chooses its composite; a sensor without any has none."""
    looks = {name: [(recipe.title, key) for key, recipe in composites_of(name).items()] for name in names}
    return {name: choice(name.upper(), options) for name, options in looks.items() if options}


def button(label: str, clicked: Callable[[], object], **options: str) -> w.Button:
    """A button that calls `clicked`."""
    widget = w.Button(description=label, **options)
    widget.on_click(lambda _button: clicked())
    return widget
