"""Pictures to figures: pairs, bands, masks, attention, reconstructions, curves and scores.

Each function returns a matplotlib Figure. In a notebook call it and end the cell with ``plt.show()``; elsewhere
:func:`fusmae_lite.show.pictures.png` turns it into bytes and closes it. Images are in physical units (dB, reflectance x
10,000), masks are True where the encoder sees nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.show import pictures
from fusmae_lite.show.pictures import COMPOSITES, colour_of

#: Dots per inch of every figure; with 10 inches of width a notebook picture is 900 pixels wide.
DPI = 90
TITLE, TEXT = 10, 8.5  # font sizes in points
ERROR_MAP, WEIGHT_MAP, MATRIX_MAP = "cividis", "viridis", "viridis"

#: Top of the colour scale of absolute errors, in dB and in reflectance, the same in every figure.
ERROR_LIMITS = {"s1": 10.0, "s2": 0.1}
UNITS = {"s1": "dB", "s2": "reflectance"}


def new_figure(rows: int, columns: int, width: float, height: float, **options: object) -> tuple[Figure, np.ndarray]:
    """A figure of `width` x `height` inches and its (rows, columns) axes, in the course's style."""
    style = {"font.size": TEXT, "axes.titlesize": TITLE, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        return plt.subplots(
            rows, columns, figsize=(width, height), dpi=DPI, layout="constrained", squeeze=False, **options
        )


def draw(axes: Axes, picture: ArrayLike, title: str = "", caption: str = "", colour: str = "black") -> None:
    """Put an (H, W, 3) picture on axes: title above in `colour`, caption below, no ticks."""
    axes.imshow(np.clip(np.asarray(picture), 0, 1), interpolation="nearest")
    axes.set_title(title, fontsize=TITLE, color=colour, fontweight="bold" if colour != "black" else "normal")
    axes.set_xlabel(caption, fontsize=TEXT, color="#404040")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def show_pair(s1: ArrayLike, s2: ArrayLike, title: str = "", names: Sequence[str] = ("sar", "true_colour")) -> Figure:
    """One place seen by both sensors, once for each composite in `names`; stretches stand below the pictures.

    Args:
        s1: (2, H, W) in dB.
        s2: (12, H, W) in reflectance x 10,000.
        title: line above the figure, for example the labels.
        names: keys of :data:`fusmae_lite.show.pictures.COMPOSITES`.
    """
    images = {"s1": s1, "s2": s2}
    side = min(4.0, 10.0 / len(names))
    wide = side > 3.5  # narrower pictures break their captions over several lines
    extra = 0.55 if wide else 1.0
    figure, axes = new_figure(1, len(names), side * len(names), side + extra + 0.25 * bool(title))
    for axis, name in zip(axes[0], names, strict=True):
        recipe = COMPOSITES[name]
        sensor = get_modality(recipe.modality)
        picture = pictures.composite(name, recipe.modality, images[recipe.modality])
        heading = f"{sensor.title}: {recipe.title}" if side > 3 else recipe.title
        caption = recipe.caption if wide else recipe.caption.replace(", ", "\n")
        draw(axis, picture, heading, caption, colour_of(recipe.modality))
    figure.suptitle(title, fontsize=TITLE)
    return figure


def show_gallery(rgbs: Mapping[str, ArrayLike], columns: int = 4, captions: Sequence[str] = ()) -> Figure:
    """Any pictures side by side: title -> (H, W, 3) in 0..1, with captions in the same order if given."""
    columns = min(columns, len(rgbs))
    rows = -(-len(rgbs) // columns)
    side = min(3.2, 10.0 / columns)
    figure, axes = new_figure(rows, columns, side * columns, rows * (side + (0.5 if captions else 0.25)))
    for axis in axes.flat:
        axis.axis("off")
    captions = list(captions) or [""] * len(rgbs)
    for axis, (title, rgb), caption in zip(axes.flat, rgbs.items(), captions, strict=False):
        axis.axis("on")
        draw(axis, rgb, title, caption)
    return figure


def show_bands(image: ArrayLike, modality: str, columns: int = 6) -> Figure:
    """Every band of a patch (C, H, W) in grey, with its native resolution and the stretch it is shown with."""
    sensor = get_modality(modality)
    columns = min(columns, sensor.channels)
    rows, side = -(-sensor.channels // columns), min(3.2, 10.0 / columns)
    figure, axes = new_figure(rows, columns, side * columns, rows * (side + 0.45))
    for axis in axes.flat[sensor.channels :]:
        axis.axis("off")
    for axis, band, metres in zip(axes.flat, sensor.bands, sensor.resolution, strict=False):
        low, high = pictures.band_limits(modality, band)
        values = pictures.band_values(image, modality, band)
        unit = " dB" if modality == "s1" else ""
        draw(axis, pictures.sar(values, low, high), band, f"{metres} m, {low:g} to {high:g}{unit}", colour_of(modality))
    return figure


def show_histograms(images: ArrayLike, modality: str, columns: int = 6) -> Figure:
    """Histogram of every band of (C, H, W) or (B, C, H, W), with the mean and standard deviation used to normalise."""
    sensor, scale = get_modality(modality), 10_000 if modality == "s2" else 1
    images = np.asarray(images, dtype=np.float32)
    images = images[None] if images.ndim == 3 else images
    columns = min(columns, sensor.channels)
    rows = -(-sensor.channels // columns)
    figure, axes = new_figure(rows, columns, min(10, 3.6 * columns), 1.75 * rows + 0.45)
    for index, (axis, band) in enumerate(zip(axes.flat, sensor.bands, strict=False)):
        mean, std = sensor.mean[index] / scale, sensor.std[index] / scale
        low, high = (mean - 4 * std, mean + 4 * std) if modality == "s1" else (0, mean + 3.5 * std)
        values = np.clip(images[:, index].ravel() / scale, low, high)
        axis.hist(values, bins=50, range=(low, high), color=colour_of(modality), alpha=0.75)
        axis.axvspan(max(mean - std, low), mean + std, color="black", alpha=0.09, lw=0)
        axis.axvline(mean, color="black", lw=1.2)
        axis.set_title(band, fontsize=TITLE, loc="left")
        axis.set(yticks=[], xlim=(low, high))
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=4)
        axis.spines["left"].set_visible(False)
    note = "line: mean used to normalise; band: one standard deviation; ends collect what lies beyond"
    figure.supxlabel(f"{UNITS.get(modality, sensor.units)}   ({note})", fontsize=TEXT)
    return figure


def show_masks(rgbs: Mapping[str, ArrayLike], masks: Mapping[str, ArrayLike], title: str = "") -> Figure:
    """For each modality its picture (H, W, 3) and, beside it, the same with masked patches greyed; masks are (N,)."""
    figure, axes = new_figure(1, 2 * len(rgbs), 10, 10 / (2 * len(rgbs)) + 0.6 + 0.25 * bool(title))
    for index, (name, rgb) in enumerate(rgbs.items()):
        mask, colour = np.asarray(masks[name], dtype=bool), colour_of(name)
        seen = f"{int((~mask).sum())} of {mask.size} patches visible"
        heading = get_modality(name).title
        draw(axes[0, 2 * index], rgb, heading, "input", colour)
        draw(axes[0, 2 * index + 1], pictures.show_mask(rgb, mask), "what the encoder sees", seen, colour)
    figure.suptitle(title, fontsize=TITLE)
    return figure


def show_reconstruction(
    originals: Mapping[str, ArrayLike],
    predictions: Mapping[str, ArrayLike],
    masks: Mapping[str, ArrayLike],
    *,
    everywhere: bool = False,
    names: Mapping[str, str] | None = None,
    title: str = "",
) -> Figure:
    """Input, what the encoder sees, reconstruction and absolute error; a row for each sample and modality.

    Args:
        originals: modality -> (C, H, W) or (B, C, H, W) in physical units.
        predictions: the same shapes, the decoder's output for every patch; visible patches are pasted back here.
        masks: modality -> (N,) or (B, N), True where hidden.
        everywhere: adds a column with the prediction for every patch, the untrained visible ones included.
        names: modality -> composite to draw; the sensor's default otherwise.
        title: line above the figure.
    """
    rows = [
        (name, original, prediction, mask)
        for sample in zip(*(_samples(name, originals, predictions, masks) for name in originals), strict=True)
        for name, original, prediction, mask in sample
    ]
    columns = 5 if everywhere else 4
    figure, axes = new_figure(len(rows), columns, 10, len(rows) * (9.2 / columns) + 0.45 + 0.25 * bool(title))
    for axis_row, (name, original, prediction, mask) in zip(axes, rows, strict=True):
        recipe = (names or {}).get(name) or pictures.default_composite(name)
        _reconstruction_row(axis_row, name, recipe, original, prediction, mask)
    headings = ["input", "what the encoder sees", "reconstruction,\nvisible pasted back", "absolute error"]
    if everywhere:
        headings.insert(3, "prediction everywhere,\nvisible untrained")
    for axis, heading in zip(axes[0], headings, strict=True):
        axis.set_title(heading, fontsize=TITLE)
    figure.suptitle(title, fontsize=TITLE)
    return figure


def absolute_error(original: ArrayLike, prediction: ArrayLike, mask: ArrayLike, modality: str) -> np.ndarray:
    """Mean over bands of |prediction - original| in masked patches, NaN in visible ones: (H, W), dB or reflectance."""
    original, prediction = np.asarray(original, dtype=np.float32), np.asarray(prediction, dtype=np.float32)
    error = np.abs(prediction - original).mean(axis=0) / (10_000 if modality == "s2" else 1)
    return np.where(pictures.mask_pixels(mask, *error.shape), error, np.nan)


def _samples(name: str, *sources: Mapping[str, ArrayLike]) -> list[tuple]:
    """(name, original, prediction, mask) of each sample; a lone sample counts as a batch of one."""
    original, prediction, mask = (np.asarray(source[name]) for source in sources)
    if original.ndim == 3:
        original, prediction, mask = original[None], prediction[None], mask.reshape(1, -1)
    if original.shape != prediction.shape or len(mask) != len(original):
        raise InputError(
            f"{name}: original {original.shape}, prediction {prediction.shape} and mask {mask.shape} do not match",
            "give one prediction and one mask per image",
        )
    return [(name, *parts) for parts in zip(original, prediction, mask, strict=True)]


def _reconstruction_row(
    axes: np.ndarray, name: str, recipe: str, original: np.ndarray, prediction: np.ndarray, mask: np.ndarray
) -> None:
    """Fill one row of :func:`show_reconstruction`."""
    hidden = pictures.mask_pixels(mask, *original.shape[1:])
    pasted = np.where(hidden, prediction, original)
    rgb = pictures.composite(recipe, name, original)
    panels = [rgb, pictures.show_mask(rgb, mask), pictures.composite(recipe, name, pasted)]
    if len(axes) == 5:
        panels.append(pictures.composite(recipe, name, prediction))
    for axis, panel in zip(axes, panels, strict=False):
        draw(axis, panel)
    label = f"{get_modality(name).title}\n{COMPOSITES[recipe].title}"
    axes[0].set_ylabel(label, fontsize=TITLE, color=colour_of(name), fontweight="bold")
    error = absolute_error(original, prediction, mask, name)
    top, unit = ERROR_LIMITS.get(name), UNITS.get(name, "")
    axes[-1].set_facecolor((pictures.MASK_GREY,) * 3)  # visible patches: no error to show, and none that is zero
    image = axes[-1].imshow(error, cmap=ERROR_MAP, vmin=0, vmax=top, interpolation="nearest")
    axes[-1].set(xticks=[], yticks=[])
    axes[-1].spines[:].set_visible(False)
    average = f"{error[hidden].mean():.2g}" if hidden.any() else "of nothing"
    axes[-1].set_xlabel(f"hidden: mean {average} {unit}", fontsize=TEXT, color="#404040")
    bar = axes[-1].figure.colorbar(image, ax=axes[-1], fraction=0.05, pad=0.02, extend="max")
    bar.set_label(f"{unit}, mean of bands", fontsize=8)
    bar.ax.tick_params(labelsize=8)
