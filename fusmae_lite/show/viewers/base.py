"""What viewers share: controls above one picture that states itself in words, a pair to look at, clickable patches."""

import base64
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path, PurePath
from typing import Any

import ipywidgets as w
import numpy as np
from torch import Tensor
from traitlets import Unicode

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Archive, open_archive
from fusmae_lite.data.pairs import PairDataset, denormalise
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.show.panels import draw_panels, few_colours, page_png, to_image
from fusmae_lite.show.pictures import colour_of, composite, composites_of
from fusmae_lite.systems.weights import load_pretrained

#: What a viewer opens: an archive, its folder, or the bundled patches.
Source = Archive | Path | str | None
#: A shipped name, a checkpoint, or a model; and several, which a mapping names.
Model = str | FusMAE
Models = Sequence[Model] | Mapping[str, Model]
#: Screen pixels along the side of a picture that can be clicked, at most.
GRID_SIDE = 300


class Picture(w.Image):
    """An image whose tooltip is what a screen reader says; ipywidgets shows one only with a description as well."""

    description = Unicode("").tag(sync=True)


class Viewer(w.VBox):
    """Controls and a picture. A subclass calls :meth:`assemble` once and implements :meth:`draw`."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self.image = Picture(format="png", layout=w.Layout(max_width="100%", width="fit-content"))
        self.words, self.message = w.HTML(), w.HTML()
        self.held = False  # while several controls change, for one picture

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
        if self.held:
            return
        if drawn := self.attempt(self.draw):
            self.image.value, self.image.tooltip = drawn
            self.words.value = f"<small>{html.escape(self.description)}</small>"
            self.say("")
        elif not self.image.value:
            self.image.value = draw_panels([], html.unescape(self.message.value))

    def attempt(self, action: Callable[[], Any]) -> Any:
        """What `action` returns; bad input is told below the picture."""
        try:
            return action()
        except InputError as error:
            self.say(f"error: {error}")

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

    def button(self, label: str, clicked: Callable[[], object], **options: str) -> w.Button:
        """A button that calls `clicked`."""
        widget = w.Button(description=label, **options)
        widget.on_click(lambda _button: self.attempt(clicked))
        return widget

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and its picture and words for readers without a kernel: GitHub, HTML, a fresh JupyterLab."""
        bundle = super()._repr_mimebundle_(**options)
        bundle["image/png"] = base64.b64encode(few_colours(self.picture())).decode("ascii")
        bundle["text/plain"] = f"{self.title}: {self.description}"
        return bundle, {"image/png": {"alt": bundle["text/plain"]}}


class PairViewer(Viewer):
    """A viewer of the pairs of an archive, beginning with row `pair`, read as a model of `config` takes them."""

    def __init__(
        self, title: str, archive: Source, pair: int, config: ModelConfig | None = None, live: bool = False
    ) -> None:
        super().__init__(title)
        self.archive = archive if isinstance(archive, Archive) else open_archive(archive)
        last = len(self.archive) - 1
        if not 0 <= pair <= last:
            raise InputError(f"no pair {pair} among {last + 1}", f"choose 0 to {last}")
        self.pair = slider("pair", 0, last, pair, live)
        if config:
            data = PairDataset(self.archive, "all", modalities=config.modalities, size=config.image_size)
            self._images = lru_cache(1)(lambda row: {name: image[None] for name, image in data[row]["images"].items()})

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

    def pair_title(self, labels: Sequence[str] | None = None) -> str:
        """Name and labels of the pair; give labels that are known, as ``archive.labels`` may read every pair once."""
        archive, row = self.archive, self.pair.value
        if labels is None:
            labels = [name for name, on in zip(archive.classes, archive.labels[row], strict=True) if on]
        kind = "synthetic pair " if archive.kind_of_pairs.startswith("synthetic") else ""
        shown = ", ".join(name.split(",")[0] for name in labels) or "no labels"
        return f"{kind}{row}: {archive.names[row]} ({shown})"


class PatchGrid(w.VBox):
    """A sensor's picture of `grid` x `grid` patches with a transparent button over each, which calls `clicked`.

    Two hundred stops of the Tab key would help nobody: row and column sliders do the same by keyboard.
    """

    def __init__(self, name: str, grid: int, clicked: Callable[[str, int], None], title: str = "") -> None:
        colour = "black" if title else colour_of(name)
        title, step = title or get_modality(name).title, GRID_SIDE // grid
        square = dict.fromkeys(("width", "height"), f"{grid * step}px")
        tracks = dict.fromkeys(("grid_template_columns", "grid_template_rows"), f"repeat({grid}, {step}px)")
        over = {"grid_area": "1 / 1", **square}
        self.image = Picture(format="png", tooltip=title, layout=w.Layout(object_fit="fill", **over))
        bare = dict.fromkeys(("margin", "padding", "border", "min_width"), "0")
        cell = w.Layout(width=f"{step}px", height=f"{step}px", **bare)
        style = w.ButtonStyle(button_color="transparent")
        self.buttons = []
        for index in range(grid * grid):
            tooltip = f"{title}, row {index // grid}, column {index % grid}"
            button = w.Button(layout=cell, style=style, tabbable=False, tooltip=tooltip)
            button.on_click(lambda _button, index=index: clicked(name, index))
            self.buttons.append(button)
        layout = w.Layout(overflow="hidden", grid_gap="0", margin="0", **tracks, **over)
        pile = [self.image, w.GridBox(self.buttons, layout=layout)]
        head = w.HTML(f'<b style="color:{colour}">{html.escape(title)}</b>')
        super().__init__([head, w.GridBox(pile, layout=w.Layout(margin="4px", overflow="hidden", **square))])

    def show(self, rgb: np.ndarray, words: str) -> None:
        """Put (H, W, 3) in 0..1 under the buttons."""
        self.image.value = page_png(to_image(rgb.repeat(2, axis=0).repeat(2, axis=1)))
        self.image.tooltip = words


def slider(label: str, low: int, high: int, value: int, live: bool = False, **options: Any) -> w.IntSlider:
    """A whole number between `low` and `high`; `live` follows the mouse."""
    options |= {"continuous_update": live, "layout": w.Layout(width="270px"), "disabled": low == high}
    return w.IntSlider(value, low, high, description=label, **options)


def choice(label: str, options: Iterable[Any], **value: Any) -> w.Dropdown:
    """One of several, each a text or (text, value); the first unless told, and wide enough for the longest."""
    options = list(options)
    longest = max(len(option[0] if isinstance(option, tuple) else option) for option in options)
    layout = w.Layout(width=f"{max(230, 140 + 8 * longest)}px")
    return w.Dropdown(options=options, description=label, layout=layout, **value)


def look_choices(names: Sequence[str]) -> dict[str, w.Dropdown]:
    """Sensor -> control that chooses its composite; a sensor without any has none."""
    looks = {name: [(recipe.title, key) for key, recipe in composites_of(name).items()] for name in names}
    return {name: choice(name.upper(), options) for name, options in looks.items() if options}


def load_models(models: Models) -> dict[str, FusMAE]:
    """Name -> model on the CPU, from shipped names, checkpoints or models, of the same sensors and patches."""
    if not models:
        raise InputError("no model to look at", 'give one, for example models=("xae-lite",)')
    loaded: dict[str, FusMAE] = {}
    named = models.items() if isinstance(models, Mapping) else ((name_of(model), model) for model in models)
    for number, (name, model) in enumerate(named, start=1):
        name = f"{name} ({number})" if name in loaded else name or f"model {number}"
        model = model if isinstance(model, FusMAE) else load_pretrained(str(model))
        if not isinstance(model, FusMAE):
            raise InputError(f"{name} is a {type(model).__name__}", "give a Fus-MAE: what this viewer shows is its own")
        loaded[name] = model.eval().cpu()
    for field in ("modalities", "image_size", "patch_size"):
        values = dict.fromkeys(repr(getattr(model.config, field)) for model in loaded.values())
        if len(values) > 1:
            raise InputError(f"models differ in {field}: {' and '.join(values)}", "compare models that share it")
    return loaded


def name_of(model: Model) -> str:
    """What a model is called that was given without a name: the end of its path, but not just ``model.safetensors``."""
    path = PurePath("" if isinstance(model, FusMAE) else model)
    return path.parent.name if path.name == "model.safetensors" else path.name
