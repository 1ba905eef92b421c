"""Pairs, bands, masks, reconstructions: their panels, which viewers draw, too, and matplotlib figures of them.

Images are in physical units (dB, reflectance x 10,000), masks are True where the encoder sees nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.show import pictures
from fusmae_lite.show.panels import ERROR_MAP, PALE, Panel, Scale
from fusmae_lite.show.pictures import COMPOSITES, colour_of

#: Dots per inch of every figure; with 10 inches of width a notebook picture is 900 pixels wide.
DPI = 90
TITLE, TEXT = 10, 8.5  # font sizes in points
STYLE = {"font.size": TEXT, "axes.titlesize": TITLE, "axes.spines.top": False, "axes.spines.right": False}
Images = Mapping[str, ArrayLike]  # by sensor or title
#: Top of the colour scale of absolute errors, in dB and in reflectance, the same in every figure; 1 for other sensors.
ERROR_LIMITS = {"s1": 10.0, "s2": 0.1}


def new_figure(
    rows: int, columns: int, width: float, height: float, title: str = "", **options: object
) -> tuple[Figure, np.ndarray]:
    """A figure of `width` x `height` inches, a little higher for a title, and its (rows, columns) axes."""
    options |= {"figsize": (width, height + 0.25 * bool(title)), "dpi": DPI, "layout": "constrained", "squeeze": False}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, **options)
    if title:
        figure.suptitle(title, fontsize=TITLE)
    return figure, axes


def draw(axes: Axes, picture: ArrayLike, title: str = "", caption: str = "", colour: str = "black") -> None:
    """Put an (H, W, 3) picture on axes: title above in `colour`, caption below, no ticks."""
    axes.imshow(np.clip(np.asarray(picture), 0, 1), interpolation="nearest")
    axes.set_title(title, fontsize=TITLE, color=colour, fontweight="bold" if colour != "black" else "normal")
    axes.set_xlabel(caption, fontsize=TEXT, color=PALE)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def show_panels(panels: Sequence[Panel], columns: int, title: str = "", largest: float = 3.2) -> Figure:
    """Panels in rows of `columns`, each at most `largest` inches wide."""
    columns = min(columns, len(panels))
    rows, side = -(-len(panels) // columns), min(largest, 10 / columns)
    text = 0.25 + 0.17 * max(len(panel.caption.splitlines()) for panel in panels)
    figure, axes = new_figure(rows, columns, side * columns, rows * (side + text), title)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, panel in zip(axes.flat, panels, strict=False):
        draw(axis, panel.picture, panel.title, panel.caption, panel.colour)
        if scale := panel.scale:
            colours = ScalarMappable(Normalize(0, scale.top), scale.colours)
            bar = figure.colorbar(colours, ax=axis, fraction=0.05, pad=0.02, extend="max")
            bar.set_label(scale.unit, fontsize=8)
            bar.ax.tick_params(labelsize=8)
    return figure


def composite_panel(name: str | None, modality: str, image: np.ndarray) -> Panel:
    """A composite (None: the default) of (C, H, W) with its stretch below."""
    recipe = pictures.find_composite(name, modality)
    title = f"{get_modality(modality).title}: {recipe.title}"
    return Panel(pictures.composite(name, modality, image), title, recipe.caption, colour_of(modality))


def show_pair(s1: ArrayLike, s2: ArrayLike, title: str = "", names: Sequence[str] = ("sar", "true_colour")) -> Figure:
    """One place, (2, H, W) and (12, H, W), once for each composite in `names`; stretches stand below the pictures."""
    images = {"s1": s1, "s2": s2}
    panels = [composite_panel(name, key := COMPOSITES[name].modality, images[key]) for name in names]
    if len(panels) > 3:  # no room for the sensor, which the colour tells
        panels = [replace(panel, title=panel.title.split(": ")[1]) for panel in panels]
    return show_panels(panels, len(panels), title, largest=4)


def show_gallery(rgbs: Images, columns: int = 4) -> Figure:
    """Any pictures side by side: title -> (H, W, 3) in 0..1."""
    return show_panels([Panel(rgb, title) for title, rgb in rgbs.items()], columns)


def band_panel(values: np.ndarray, modality: str, band: str) -> Panel:
    """One band (h, w), in the sensor's unit, in grey, with its resolution and the stretch it is shown with."""
    sensor = get_modality(modality)
    low, high = pictures.BAND_LIMITS.get(band, pictures.VISIBLE_LIMITS)
    caption = f"{sensor.resolution[sensor.band_index(band)]} m\n{low:g} to {high:g} {sensor.unit}"
    return Panel(pictures.sar(values, low, high), band, caption, colour_of(modality))


def show_bands(image: ArrayLike, modality: str, columns: int = 6) -> Figure:
    """Every band of a patch (C, H, W) in grey, with its native resolution and the stretch it is shown with."""
    bands = get_modality(modality).bands
    panels = [band_panel(pictures.band_values(image, modality, band), modality, band) for band in bands]
    return show_panels(panels, columns)


def show_histograms(images: ArrayLike, modality: str, columns: int = 6) -> Figure:
    """Histogram of every band of (C, H, W) or (B, C, H, W), with the mean and standard deviation used to normalise."""
    sensor = get_modality(modality)
    images = np.asarray(images, dtype=np.float32)
    columns = min(columns, sensor.channels)
    rows = -(-sensor.channels // columns)
    figure, axes = new_figure(rows, columns, min(10, 3.6 * columns), 1.75 * rows + 0.45)
    for index, (axis, band) in enumerate(zip(axes.flat, sensor.bands, strict=False)):
        mean, std, low, high = pictures.band_statistics(modality, band)
        values = np.clip(images[..., index, :, :].ravel() / sensor.scale, low, high)
        axis.hist(values, bins=50, range=(low, high), color=colour_of(modality), alpha=0.75)
        axis.axvspan(max(mean - std, low), mean + std, color="black", alpha=0.09, lw=0)
        axis.axvline(mean, color="black", lw=1.2)
        axis.set_title(band, fontsize=TITLE, loc="left")
        axis.set(yticks=[], xlim=(low, high))
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=4)
        axis.spines["left"].set_visible(False)
    note = "line: mean used to normalise; band: one standard deviation; ends collect what lies beyond"
    figure.supxlabel(f"{sensor.unit}   ({note})", fontsize=TEXT)
    return figure


def mask_panels(modality: str, rgb: np.ndarray, mask: np.ndarray, caption: str = "input") -> list[Panel]:
    """A picture (H, W, 3) and the same with the masked patches of (N,) grey."""
    seen = f"{int((~mask).sum())} of {mask.size} patches visible"
    whole = Panel(rgb, get_modality(modality).title, caption, colour_of(modality))
    return [whole, Panel(pictures.show_mask(rgb, mask), "what the encoder sees", seen)]


def show_masks(rgbs: Images, masks: Images, title: str = "") -> Figure:
    """For each modality its picture (H, W, 3) and, beside it, the same with masked patches greyed; masks are (N,)."""
    rows = [mask_panels(name, rgb, np.asarray(masks[name], dtype=bool)) for name, rgb in rgbs.items()]
    return show_panels(sum(rows, []), 2 * len(rows), title)


def reconstruction_panels(
    modality: str, look: str | None, original: np.ndarray, predictions: Images, mask: np.ndarray, everywhere: bool
) -> list[Panel]:
    """Input, what the encoder sees, and for each prediction (title -> (C, H, W)) the reconstruction and its error."""
    sensor, as_rgb = get_modality(modality), partial(pictures.composite, look, modality)
    hidden = pictures.mask_pixels(mask, *original.shape[1:])
    scale = Scale(ERROR_MAP, ERROR_LIMITS.get(modality, 1.0), sensor.unit)
    panels = mask_panels(modality, as_rgb(original), mask, f"input: {pictures.find_composite(look, modality).title}")
    for name, prediction in predictions.items():
        pasted = as_rgb(np.where(hidden, prediction, original))
        panels.append(Panel(pasted, name, "hidden patches predicted,\nvisible ones pasted back"))
        if everywhere:
            panels.append(Panel(as_rgb(prediction), "prediction everywhere", "untrained at visible patches"))
        error = np.abs(prediction.astype(np.float32) - original.astype(np.float32)).mean(axis=0) / sensor.scale
        mean = f"{error[hidden].mean():.2g} {sensor.unit}" if mask.any() else "nothing hidden"
        error = np.where(hidden[..., None], scale.paint(error), pictures.hatched(*hidden.shape))
        panels.append(Panel(error, "absolute error", f"mean of bands, hatched: visible\n{mean}", scale=scale))
    return panels


def show_reconstruction(
    originals: Images,
    predictions: Images,
    masks: Images,
    *,
    everywhere: bool = False,
    names: Mapping[str, str] | None = None,
    title: str = "",
) -> Figure:
    """Input, what the encoder sees, reconstruction and absolute error; a row for each sample and modality.

    Images are (C, H, W) or (B, C, H, W), predictions of every patch, masks (N,) or (B, N); visible patches are pasted
    back here. `everywhere` adds the prediction as it is, `names` are composites to draw.
    """
    rows = []
    for name, original in originals.items():
        original, prediction, mask = np.asarray(original), np.asarray(predictions[name]), np.asarray(masks[name], bool)
        batch = original.reshape(-1, *original.shape[-3:])
        if original.shape != prediction.shape or mask.size % len(batch):
            raise InputError(
                f"{name}: original {original.shape}, prediction {prediction.shape} and mask {mask.shape} do not match",
                "give one prediction and one mask per image",
            )
        triples = zip(batch, prediction.reshape(batch.shape), mask.reshape(len(batch), -1), strict=True)
        look = (names or {}).get(name)
        rows.append([reconstruction_panels(name, look, o, {"reconstruction": p}, m, everywhere) for o, p, m in triples])
    panels = [panel for sample in zip(*rows, strict=True) for row in sample for panel in row]
    return show_panels(panels, 5 if everywhere else 4, title)
