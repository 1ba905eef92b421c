"""What all viewers share: a column of controls above one picture that states itself in words, and clickable patches."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
from traitlets import Unicode

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Archive, open_archive
from fusmae_lite.show.panels import few_colours, rgb_png, text_png
from fusmae_lite.show.pictures import colour_of

#: Screen pixels along the side of a picture that can be clicked, at most.
GRID_SIDE = 300


class Picture(w.Image):
    """An image whose tooltip is the title of its img, which is what a screen reader says of it.

    The browser's side of ipywidgets asks a widget with a tooltip for its description, too; an Image has none and would
    not be shown at all.
    """

    description = Unicode("").tag(sync=True)


class Viewer(w.VBox):
    """Controls and a picture. A subclass calls :meth:`assemble` once and implements :meth:`draw`.

    ``viewer.picture()`` gives the PNG bytes on show, ``viewer.description`` says the same in words.
    """

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

    def assemble(self, watched: Sequence[w.Widget], *rows: w.Widget) -> None:
        """Lay out the rows of controls above the picture, and redraw whenever a watched control changes."""
        for control in watched:
            control.observe(self._changed, "value")
        self.children = (*rows, self.image, self.words, self.message)
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

    def _changed(self, _change: object) -> None:
        self.refresh()

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and beside it the picture for readers without a kernel: GitHub, HTML, a fresh JupyterLab.

        The picture is stored in 256 colours, a third of the size, its words beside it as alternative text.
        """
        bundle = super()._repr_mimebundle_(**options)
        bundle["image/png"] = base64.b64encode(few_colours(self.picture())).decode("ascii")
        bundle["text/plain"] = f"{self.title}: {self.description}"
        return bundle, {"image/png": {"alt": bundle["text/plain"]}}


class PatchGrid(w.GridBox):
    """A picture whose patches are buttons: transparent ones over it, so that plain ipywidgets can tell who was clicked.

    Two hundred stops of the Tab key would help nobody, so the buttons are for pointers; viewers with a grid have
    row and column sliders that do the same by keyboard.

    Args:
        grid: patches along one side.
        name: what a screen reader calls the picture, for example ``Sentinel-1``.
        clicked: called with the index of the patch, row * grid + column.
    """

    def __init__(self, grid: int, name: str, clicked: Callable[[int], None]) -> None:
        cell_side = GRID_SIDE // grid
        side, tracks = f"{grid * cell_side}px", f"repeat({grid}, {cell_side}px)"
        self.image = Picture(
            format="png", tooltip=name, layout=w.Layout(grid_area="1 / 1", width=side, height=side, object_fit="fill")
        )
        cell = w.Layout(
            width=f"{cell_side}px", height=f"{cell_side}px", margin="0", padding="0", border="0", min_width="0"
        )
        style = w.ButtonStyle(button_color="transparent")
        self.buttons = [
            w.Button(
                layout=cell, style=style, tabbable=False, tooltip=f"{name}, row {index // grid}, column {index % grid}"
            )
            for index in range(grid * grid)
        ]
        for index, button in enumerate(self.buttons):
            button.on_click(lambda _button, index=index: clicked(index))
        cells = w.GridBox(
            self.buttons,
            layout=w.Layout(
                grid_area="1 / 1", width=side, height=side, margin="0", overflow="hidden", grid_gap="0",
                grid_template_columns=tracks, grid_template_rows=tracks,
            ),
        )  # fmt: skip
        super().__init__([self.image, cells], layout=w.Layout(width=side, height=side, margin="4px", overflow="hidden"))

    def show(self, rgb: np.ndarray, words: str) -> None:
        """Put (H, W, 3) in 0..1 under the buttons."""
        self.image.value = rgb_png(rgb, enlarge=2)
        self.image.tooltip = words


def side_by_side(grids: Mapping[str, PatchGrid]) -> w.HBox:
    """The clickable pictures of several sensors, the name of each above it in its colour."""
    titled = [
        w.VBox([w.HTML(f'<b style="color:{colour_of(name)}">{html.escape(get_modality(name).title)}</b>'), grid])
        for name, grid in grids.items()
    ]
    return w.HBox(titled, layout=w.Layout(flex_flow="row wrap"))


def archive_or_bundled(archive: Archive | Path | str | None) -> Archive:
    """The archive given, the one in that folder, or the bundled real patches."""
    return archive if isinstance(archive, Archive) else open_archive(archive)


def slider(label: str, low: int, high: int, value: int, live: bool = False) -> w.IntSlider:
    """A whole number between `low` and `high`; `live` follows the mouse, for pictures that need no model."""
    return w.IntSlider(
        value,
        low,
        high,
        description=label,
        continuous_update=live,
        layout=w.Layout(width="270px"),
        disabled=low == high,
    )


def choice(label: str, options: Sequence[Any], value: Any = None) -> w.Dropdown:
    """One of several; wide enough for the longest."""
    options = list(options)
    first = options[0][1] if isinstance(options[0], tuple) else options[0]
    longest = max(len(option[0] if isinstance(option, tuple) else option) for option in options)
    width = f"{max(230, 140 + 8 * longest)}px"
    return w.Dropdown(
        options=options, value=first if value is None else value, description=label, layout=w.Layout(width=width)
    )


def check_index(archive: Archive, index: int) -> int:
    """`index` if the archive has such a pair."""
    if not 0 <= index < len(archive):
        raise InputError(f"no pair {index} among {len(archive)}", f"choose 0 to {len(archive) - 1}")
    return index


def pair_title(archive: Archive, index: int, labels: Sequence[str] | None = None) -> str:
    """Name and labels of a pair in one line of at most about 110 characters.

    Args:
        archive, index: which pair.
        labels: its labels, where they are known already; ``archive.labels`` may have to read every pair once.
    """
    if labels is None:
        labels = [name for name, on in zip(archive.classes, archive.labels[index], strict=True) if on]
    labels = [name.split(",")[0] for name in labels]
    kind = "synthetic pair " if archive.kind_of_pairs.startswith("synthetic") else ""
    text = f"{kind}{index}: {archive.names[index]} ({', '.join(labels) or 'no labels'})"
    return text if len(text) <= 110 else f"{text[:109]}…"
