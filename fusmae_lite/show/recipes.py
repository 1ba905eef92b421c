"""What the pictures consist of: panels for a pair, a mask, a reconstruction, attention.

``figures.py`` and ``charts.py`` draw them for the page of a notebook, the viewers for a screen that follows a slider.
Masks are True where the encoder sees nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fusmae_lite.core.sensors import get_modality
from fusmae_lite.show import pictures
from fusmae_lite.show.panels import ERROR_MAP, MATRIX_MAP, Panel, Scale
from fusmae_lite.show.pictures import colour_of

#: Top of the colour scale of absolute errors, in dB and in reflectance, the same in every figure; 1 for other sensors.
ERROR_LIMITS = {"s1": 10.0, "s2": 0.1}


def composite_panel(name: str | None, modality: str, image: np.ndarray) -> Panel:
    """A composite (None: the default) of (C, H, W) with its stretch below."""
    recipe = pictures.find_composite(name, modality)
    title = f"{get_modality(modality).title}: {recipe.title}"
    return Panel(pictures.composite(name, modality, image), title, recipe.caption, colour_of(modality))


def band_panel(values: np.ndarray, modality: str, band: str) -> Panel:
    """One band (h, w), in the sensor's unit, in grey, with its resolution and the stretch it is shown with."""
    sensor = get_modality(modality)
    low, high = pictures.BAND_LIMITS.get(band, pictures.VISIBLE_LIMITS)
    caption = f"{sensor.resolution[sensor.band_index(band)]} m\n{low:g} to {high:g} {sensor.unit}"
    return Panel(pictures.sar(values, low, high), band, caption, colour_of(modality))


def mask_panels(modality: str, rgb: np.ndarray, mask: np.ndarray) -> list[Panel]:
    """A picture (H, W, 3) and the same with the masked patches of (N,) grey."""
    seen = f"{int((~mask).sum())} of {mask.size} patches visible"
    return [
        Panel(rgb, get_modality(modality).title, "input", colour_of(modality)),
        Panel(pictures.show_mask(rgb, mask), "what the encoder sees", seen),
    ]


def reconstruction_panels(
    modality: str,
    look: str | None,
    original: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    mask: np.ndarray,
    everywhere: bool = False,
) -> list[Panel]:
    """Input, what the encoder sees, and for each prediction the reconstruction and its absolute error.

    Args:
        look: composite to draw, None for the sensor's default.
        original: (C, H, W) in physical units.
        predictions: title -> the decoder's output for every patch, of the same shape.
        everywhere: adds the prediction as it is, the untrained visible patches included.
    """
    title = pictures.find_composite(look, modality).title
    first, seen = mask_panels(modality, pictures.composite(look, modality, original), mask)
    panels = [Panel(first.picture, first.title, f"input: {title}", first.colour), seen]
    scale = Scale(ERROR_MAP, 0, ERROR_LIMITS.get(modality, 1.0), get_modality(modality).unit)
    for name, prediction in predictions.items():
        rgb = pictures.composite(look, modality, paste(original, prediction, mask))
        panels.append(Panel(rgb, name, "hidden patches predicted,\nvisible ones pasted back"))
        if everywhere:
            rgb = pictures.composite(look, modality, prediction)
            panels.append(Panel(rgb, "prediction everywhere", "untrained at visible patches"))
        error = absolute_error(original, prediction, mask, modality)
        caption = f"hidden, mean of bands:\n{mean_error(error, modality)}"
        panels.append(Panel(scale.paint(error), "absolute error", caption, scale=scale))
    return panels


def paste(original: np.ndarray, prediction: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The prediction (C, H, W) at hidden patches, the input at visible ones, where the prediction is untrained."""
    return np.where(pictures.mask_pixels(mask, *original.shape[1:]), prediction, original)


def absolute_error(original: np.ndarray, prediction: np.ndarray, mask: np.ndarray, modality: str) -> np.ndarray:
    """Mean of |prediction - original| over bands, NaN in visible patches: (H, W) in the sensor's unit."""
    error = np.abs(prediction.astype(np.float32) - original.astype(np.float32)).mean(axis=0)
    return np.where(pictures.mask_pixels(mask, *error.shape), error / get_modality(modality).scale, np.nan)


def mean_error(error: np.ndarray, modality: str) -> str:
    """Mean of an error map over hidden pixels, as text."""
    hidden = error[~np.isnan(error)]
    return f"{hidden.mean():.2g} {get_modality(modality).unit}" if hidden.size else "nothing hidden"


def attention_panels(
    query_rgb: np.ndarray,
    key_rgb: np.ndarray,
    weights: np.ndarray,
    index: int,
    *,
    query: str,
    key: str,
    top: float | None = None,
) -> list[Panel]:
    """The patch `index` that asks, the sensor that answers, and the weights, the place of the patch framed in each.

    The weights (N,) are multiples of uniform attention, NaN at patches that were hidden; their colours end at `top`, by
    default the maximum.
    """
    grid = round(weights.size**0.5)
    row, column = divmod(index, grid)
    scale = Scale(MATRIX_MAP, 0, top or max(2.0, round(float(np.nanmax(weights)), 1)), "times uniform attention")
    cells = np.kron(weights.reshape(grid, grid), np.ones((8, 8)))
    asks, answers, place = get_modality(query).title, get_modality(key).title, f"row {row}, column {column}"
    return [
        Panel(pictures.outline(query_rgb, index, grid), f"{asks} asks", place, colour_of(query)),
        Panel(pictures.outline(key_rgb, index, grid), f"{answers} answers", "same place framed", colour_of(key)),
        Panel(pictures.outline(scale.paint(cells), index, grid), "where it looks", f"in {answers}", scale=scale),
    ]
