"""What viewers share: controls above panels that are told in words, and a pair to look at, chosen by filters."""

import base64
import html
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
from torch import Tensor

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Archive, open_archive
from fusmae_lite.data.pairs import PairDataset, denormalise
from fusmae_lite.show.panels import Panel, draw_panels, few_colours, panels_html
from fusmae_lite.show.pictures import band_values, composite, composites_of

#: What a viewer opens: an archive, its folder, or the bundled patches.
Source = Archive | Path | str | None
Rows = Sequence[Sequence[Panel]]
#: A viewer that draws within so many seconds follows a slider while it moves.
QUICK = 0.2
SPLIT_TITLES, ALL = {"test": "held out (test)", "val": "validation", "train": "training"}, "all"


class Viewer(w.VBox):
    """Controls and what they show. A subclass calls :meth:`assemble` once and implements :meth:`draw`."""

    hint = ""  # stands where :meth:`read` will be told

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self.add_class("fusmae-viewer")
        self.page, self.words, self.description = w.HTML(), w.HTML(), ""
        self.message = w.HTML(layout=w.Layout(min_height="2.2em", flex="1 1 260px"))
        self.painted, self.pointed = (w.Text(layout={"display": "none"}) for _ in range(2))  # filled by panels.py
        self.painted.add_class("fusmae-painted").observe(self._on_painted, "value")
        self.pointed.add_class("fusmae-pointed").observe(self._on_pointed, "value")
        self.reading = w.HTML(layout=w.Layout(min_height="1.6em"))
        self.shown: Rows | bytes = []
        self.held = False  # while several controls change, for one picture

    def draw(self) -> tuple[Rows | bytes, str, str]:
        """Panels of the current state or a PNG, the title, and what is seen in words. May raise :class:`InputError`."""
        raise NotImplementedError

    def assemble(self, *rows: Sequence[w.Widget]) -> None:
        """Lay out rows of controls above the picture, and redraw whenever one of them changes."""
        self.held, self.controls = False, list(chain(*rows))
        for control in self.controls:
            if control.has_trait("value"):
                control.observe(lambda _change: self.refresh(), "value")
        *rows, last = rows
        boxes = [w.HBox(row, layout=w.Layout(flex_flow="row wrap")) for row in (*rows, [*last, self.message])]
        self.children = (*boxes, self.page, self.reading, self.words, self.painted, self.pointed)
        self.refresh()

    def refresh(self) -> None:
        """Draw the current state. Bad input is told in one line beside the controls, and the picture stays."""
        if self.held:
            return
        started = time.monotonic()
        if drawn := self.attempt(self.draw):
            self.shown, self.heading, self.description = drawn
            self.page.value = panels_html(self.shown, self.heading)
            self.words.value = f'<div style="line-height:1.4">{html.escape(self.description)}</div>'
            self.say("")
            self._on_pointed()
        quick = time.monotonic() - started < QUICK
        for control in self.controls:
            if isinstance(control, w.IntSlider):
                control.continuous_update = quick

    def attempt(self, action: Callable[[], Any]) -> Any:
        """What `action` returns; bad input is told beside the controls."""
        try:
            return action()
        except InputError as error:
            self.say(f"error: {error}")

    def picture(self) -> bytes:
        """The current panels as one PNG; what is wrong where there are none yet."""
        if isinstance(self.shown, bytes):
            return self.shown
        return draw_panels(self.shown, self.heading if self.shown else self.said)

    @property
    def said(self) -> str:
        """The message as plain text."""
        return html.unescape(re.sub("<[^>]*>", "", self.message.value))

    def say(self, text: str) -> None:
        """One line beside the controls, read aloud by a screen reader; empty clears it."""
        self.message.value = f'<div role="status">{html.escape(text)}</div>'

    def button(self, label: str, clicked: Callable[[], object], **options: str) -> w.Button:
        """A button that calls `clicked`."""
        widget = w.Button(description=label, **options)
        widget.on_click(lambda _button: self.attempt(clicked))
        return widget

    def _on_painted(self, change: Mapping[str, Any]) -> None:  # only panels that can be painted send this
        name, cells, _ = change["new"].split(" ")
        self.attempt(lambda: self.paint(name, [int(cell) for cell in cells.split(",")]))

    def _on_pointed(self, _change: object = None) -> None:
        point = [float(share) for share in self.pointed.value.split(",") if share]
        self.reading.value = f'<div role="status">{html.escape(self.read(*point) if point else self.hint)}</div>'

    def read(self, across: float, down: float) -> str:
        """What is measured at a point of the place, in shares of its width and height."""
        return ""

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and its picture and words for readers without a kernel: GitHub, HTML, a fresh JupyterLab."""
        bundle = super()._repr_mimebundle_(**options)
        bundle["image/png"] = base64.b64encode(few_colours(self.picture())).decode("ascii")
        bundle["text/plain"] = f"{self.title}: {self.description}"
        return bundle, {"image/png": {"alt": bundle["text/plain"]}}


class PairViewer(Viewer):
    """A viewer of the pairs of an archive, read as a model of `config` takes them.

    It begins with row `pair`, or the first held-out one. Filters choose which pairs the slider walks through.
    """

    hint = "Point at a picture to read its pixels. Zoom: Ctrl and the wheel, or + - 0. Move: Shift and drag."

    def __init__(self, title: str, archive: Source, pair: int | None, config: ModelConfig | None = None) -> None:
        super().__init__(title)
        self.looks: dict[str, w.Dropdown] = {}
        self.archive = archive = archive if isinstance(archive, Archive) else open_archive(archive)
        last, splits = len(archive) - 1, archive.splits
        if pair is None:
            pair = int((splits == "test").argmax())
        if not 0 <= pair <= last:
            raise InputError(f"no pair {pair} among {last + 1}", f"choose 0 to {last}")
        named = [(f"{title}: {n:,}", key) for key, title in SPLIT_TITLES.items() if (n := (splits == key).sum())]
        self.split = choice("split", [*named, (f"all: {last + 1:,}", ALL)], value=str(splits[pair]) or ALL)
        self.label = choice("label", [("any label", ALL), *((name, k) for k, name in enumerate(archive.classes))])
        self.countries = archive.fact("country")
        lands = sorted(set(self.countries.tolist()) - {""})
        self.country = choice("country", [("any country", ALL), *zip(lands, lands, strict=True)])
        self.pair = w.BoundedIntText(pair, 0, last, description="pair", layout=w.Layout(width="180px"))
        self.browse = slider("browse", 0, last, 0, readout=False)
        for control in (self.split, self.label, self.country):
            control.observe(self._choose, "value")
        self.pair.observe(self._follow, "value")
        self._choose()
        self.browse.observe(lambda change: setattr(self.pair, "value", int(self.chosen[change["new"]])), "value")
        if config:
            data = PairDataset(self.archive, "all", modalities=config.modalities, size=config.image_size)
            self._images = lru_cache(1)(lambda row: {name: image[None] for name, image in data[row]["images"].items()})

    def assemble(self, *rows: Sequence[w.Widget]) -> None:
        super().assemble([self.pair], *rows)
        filters = [self.split, self.label, *[self.country] * (len(self.country.options) > 1)]
        self.children[0].children = (*filters, self.browse, self.pair)

    def _choose(self, _change: object = None) -> None:
        """The rows that the filters leave; the pair on show stays if it is among them."""
        split, label, country = self.split.value, self.label.value, self.country.value
        kept = ((self.archive.splits == split) | (split == ALL)) & ((self.countries == country) | (country == ALL))
        if label != ALL:  # labels may have to be read
            kept &= self.archive.labels[:, label]
        rows, row = np.flatnonzero(kept), self.pair.value
        if not len(rows):
            self.say("error: no pair has all of this; choose another split, label or country")
            return
        self.held, self.chosen = True, rows
        self.browse.max, self.browse.disabled = len(rows) - 1, len(rows) == 1
        self.pair.value = row if kept[row] else int(rows[0])
        self._follow()
        self.held = not self.children  # before the controls are laid out there is nothing to draw
        self.refresh()

    def _follow(self, _change: object = None) -> None:
        """Move the slider to the pair on show; one that the filters leave out is shown nevertheless."""
        if len(found := np.flatnonzero(self.chosen == self.pair.value)):
            self.browse.value = int(found[0])

    @property
    def images(self) -> dict[str, Tensor]:
        """The pair on show: modality -> (1, C, H, W), normalised."""
        return self._images(self.pair.value)

    @property
    def originals(self) -> dict[str, np.ndarray]:
        """The same in dB or reflectance x 10,000: modality -> (C, H, W)."""
        return {name: denormalise(image, name)[0].numpy() for name, image in self.images.items()}

    @property
    def rgbs(self) -> dict[str, np.ndarray]:
        """The same as default composites: modality -> (H, W, 3)."""
        return {name: composite(None, name, image) for name, image in self.originals.items()}

    def measured(self) -> list[tuple[str, str, np.ndarray]]:
        """What can be read: title, modality, image (C, H, W) in dB or reflectance x 10,000."""
        return [(get_modality(name).title, name, image) for name, image in self.originals.items()]

    def read(self, across: float, down: float) -> str:
        """See :class:`Viewer`: the layers of each sensor's composite."""
        read = []
        for title, name, image in self.measured():
            row, column = int(down * image.shape[1]), int(across * image.shape[2])
            pixel = image[:, row : row + 1, column : column + 1]
            if recipes := composites_of(name):
                recipe = recipes[self.looks[name].value if name in self.looks else next(iter(recipes))]
                values = (f"{layer} {band_values(pixel, name, layer).item():.3g}" for layer in recipe.layers)
                read.append(f"{title} {', '.join(values)} {get_modality(name).unit}".strip())
        return f"row {row}, column {column}: {'; '.join(read)}"

    def pair_title(self, labels: Sequence[str] | None = None) -> str:
        """Name and labels of the pair; give labels that are known, as ``archive.labels`` may read every pair once."""
        archive, row = self.archive, self.pair.value
        if labels is None:
            labels = [name for name, on in zip(archive.classes, archive.labels[row], strict=True) if on]
        kind = "synthetic pair " if archive.kind_of_pairs.startswith("synthetic") else ""
        shown = ", ".join(name.split(",")[0] for name in labels) or "no labels"
        split = f", {split}" if (split := SPLIT_TITLES.get(str(archive.splits[row]), "")) else ""
        return f"{kind}{row}: {archive.names[row]} ({shown}){split}"


def slider(label: str, low: int, high: int, value: int, **options: Any) -> w.IntSlider:
    """A whole number between `low` and `high`."""
    options |= {"layout": w.Layout(width="270px"), "disabled": low == high}
    return w.IntSlider(value, low, high, description=label, **options)


def choice(label: str, options: Iterable[Any], **value: Any) -> w.Dropdown:
    """One of several, each a text or (text, value); the first unless told, and wide enough for most."""
    options = list(options)
    longest = max(len(option[0] if isinstance(option, tuple) else option) for option in options)
    layout = w.Layout(width=f"{min(max(230, 140 + 8 * longest), 380)}px")
    return w.Dropdown(options=options, description=label, layout=layout, **value)


def look_choices(names: Sequence[str]) -> dict[str, w.Dropdown]:
    """Sensor -> control that chooses its composite; a sensor without any has none."""
    looks = {name: [(recipe.title, key) for key, recipe in composites_of(name).items()] for name in names}
    return {name: choice(name.upper(), options) for name, options in looks.items() if options}
