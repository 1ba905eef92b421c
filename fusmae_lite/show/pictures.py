"""Images in dB or reflectance x 10,000 to RGB, by fixed stretches: two patches that look alike are alike."""

import io
import json
from dataclasses import dataclass
from importlib import resources

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import DECIBEL, REFLECTANCE, get_modality

#: One colour per sensor, in every figure of the course (Okabe and Ito's, for the colour-blind); others take a spare.
COLOURS: dict[str, str] = {"s1": "#0072B2", "s2": "#D55E00", "cls": "#4D4D4D"}
SPARE_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: Grey of a masked patch, in 0..1; exactly this value in all three channels.
MASK_GREY = 0.62
#: What is shown as black and as white: dB (VV - VH is the ratio of the intensities) and reflectance.
VV_LIMITS, VH_LIMITS, RATIO_LIMITS = (-25.0, 0.0), (-32.0, -5.0), (0.0, 20.0)
VISIBLE_LIMITS, INFRARED_LIMITS = (0.0, 0.3), (0.0, 0.5)
#: Grey scale of a single band; that of any other is VISIBLE_LIMITS.
BAND_LIMITS = dict.fromkeys(("B06", "B07", "B08", "B8A", "B09", "B11"), INFRARED_LIMITS)
BAND_LIMITS |= {"VV": VV_LIMITS, "VH": VH_LIMITS}


@dataclass(frozen=True)
class Composite:
    """Three layers of a sensor, bands or differences, as red, green and blue, or one as grey; see :func:`stretch`."""

    title: str
    modality: str
    layers: dict[str, tuple[float, float]]  # what is shown as 0 and as 1, in the sensor's unit
    gamma: float = 1.0

    @property
    def caption(self) -> str:
        """Layers and stretch, in at most two lines."""
        parts = [f"{layer} {low:g} to {high:g}" for layer, (low, high) in self.layers.items()]
        if len(set(self.layers.values())) == 1:
            parts = [" ".join(self.layers), "{:g} to {:g}".format(*next(iter(self.layers.values())))]
        parts[-1] += " dB" if get_modality(self.modality).units == DECIBEL else ""
        parts += [f"gamma {self.gamma:g}"] if self.gamma != 1 else []
        return ",\n".join(", ".join(line) for line in (parts[:2], parts[2:]) if line)


#: Every named way to look at a patch; the first of each sensor is its default.
COMPOSITES: dict[str, Composite] = {
    "sar": Composite("SAR composite", "s1", {"VV": VV_LIMITS, "VH": VH_LIMITS, "VV-VH": RATIO_LIMITS}),
    "vv": Composite("VV", "s1", {"VV": VV_LIMITS}),
    "vh": Composite("VH", "s1", {"VH": VH_LIMITS}),
    "ratio": Composite("VV - VH", "s1", {"VV-VH": RATIO_LIMITS}),
    "true_colour": Composite("True colour", "s2", dict.fromkeys(("B04", "B03", "B02"), VISIBLE_LIMITS), 1.6),
    "false_colour": Composite("False colour", "s2", {"B08": (0, 0.5), "B04": (0, 0.25), "B03": (0, 0.25)}, 1.3),
    "swir": Composite("Short-wave IR", "s2", {"B12": (0, 0.35), "B8A": (0, 0.6), "B04": (0, 0.25)}, 1.3),
}


def colour_of(modality: str) -> str:
    """Hex colour of a sensor."""
    return COLOURS.get(modality, SPARE_COLOURS[sum(modality.encode()) % len(SPARE_COLOURS)])


def stretch(values: ArrayLike, low: float, high: float, gamma: float = 1.0) -> np.ndarray:
    """Map `low` to 0 and `high` to 1, clip, and raise to 1 / `gamma`; NaN becomes 0. Any shape, float32."""
    if not high > low:
        raise InputError(f"stretch limits {low:g} to {high:g} are empty", "give low < high")
    scaled = (np.asarray(values, dtype=np.float32) - low) / (high - low)
    return np.clip(np.nan_to_num(scaled), 0, 1) ** (1 / gamma)


def composites_of(modality: str) -> dict[str, Composite]:
    """The composites of one sensor, its default first; empty for a sensor without any."""
    return {name: recipe for name, recipe in COMPOSITES.items() if recipe.modality == modality}


def find_composite(name: str | None, modality: str) -> Composite:
    """A sensor's composite called `name`, its default for None."""
    recipes = composites_of(modality)
    if not recipes:
        raise InputError(f"no composite for modality {modality!r}", "add one to pictures.COMPOSITES")
    if name and name not in recipes:
        raise InputError(f"no composite {name!r} for modality {modality!r}", f"choose one of {', '.join(recipes)}")
    return recipes[name or next(iter(recipes))]


def composite(name: str | None, modality: str, image: ArrayLike) -> np.ndarray:
    """A patch (C, H, W) as RGB, (H, W, 3) float32 in 0..1; `name` is of :data:`COMPOSITES`, None is the default."""
    recipe = find_composite(name, modality)
    layers = {layer: band_values(image, modality, layer) for layer in recipe.layers}
    shown = [stretch(layers[layer], *limits, recipe.gamma) for layer, limits in recipe.layers.items()]
    return np.stack(shown if len(shown) == 3 else shown * 3, axis=-1)


def band_values(image: ArrayLike, modality: str, layer: str) -> np.ndarray:
    """One layer (H, W) of (C, H, W), a band or a difference of bands, in the sensor's unit (dB, reflectance)."""
    image, sensor = np.asarray(image, dtype=np.float32), get_modality(modality)
    if image.ndim != 3 or len(image) != sensor.channels:
        raise InputError(
            f"a {modality} picture of shape {image.shape}", f"give ({sensor.channels}, H, W) in the sensor's band order"
        )
    first, *others = (image[sensor.band_index(band)] for band in layer.split("-"))
    return sum((-other for other in others), first) / sensor.scale


def band_statistics(modality: str, band: str) -> tuple[float, float, float, float]:
    """Mean and deviation used to normalise a band, and the two ends of its histogram, in the sensor's unit."""
    sensor = get_modality(modality)
    index = sensor.band_index(band)
    mean, std = sensor.mean[index] / sensor.scale, sensor.std[index] / sensor.scale
    low, high = (0.0, mean + 3.5 * std) if sensor.units == REFLECTANCE else (mean - 4 * std, mean + 4 * std)
    return mean, std, low, high


def true_colour(s2: ArrayLike) -> np.ndarray:
    """B04, B03, B02 as red, green, blue: what an eye would see, brightened. (12, H, W) -> (H, W, 3) in 0..1."""
    return composite("true_colour", "s2", s2)


def sar(band: ArrayLike, low: float = VV_LIMITS[0], high: float = VV_LIMITS[1]) -> np.ndarray:
    """One band, of SAR in dB unless limits are given, as grey: (H, W) -> (H, W, 3) in 0..1."""
    return np.repeat(stretch(band, low, high)[..., None], 3, axis=-1)


def mask_pixels(mask: ArrayLike, height: int, width: int) -> np.ndarray:
    """Blow a token mask up to pixels: (N,) -> bool (height, width). Token index = row * grid + column."""
    mask = np.asarray(mask, dtype=bool).reshape(-1)
    grid = round(mask.size**0.5)
    if mask.size != grid * grid or height % grid or width % grid:
        raise InputError(
            f"a mask of {mask.size} tokens on a picture of {height} x {width} px", f"give {grid} x {grid} whole patches"
        )
    return np.kron(mask.reshape(grid, grid), np.ones((height // grid, width // grid), dtype=bool))


def show_mask(rgb: ArrayLike, mask: ArrayLike) -> np.ndarray:
    """A copy of (H, W, 3) as the encoder sees it: patches where the mask (N,) is True become :data:`MASK_GREY`."""
    rgb = np.array(np.asarray(rgb), dtype=np.float32)
    rgb[mask_pixels(mask, *rgb.shape[:2])] = MASK_GREY
    return rgb


def hatched(height: int, width: int) -> np.ndarray:
    """Oblique stripes, (height, width, 3), for what was visible where hidden patches are judged: no value has them."""
    stripes = np.add.outer(np.arange(height), np.arange(width)) % 6 < 2
    return np.where(stripes, MASK_GREY, 1.0)[..., None].repeat(3, axis=-1)


def outline(rgb: ArrayLike, index: int, grid: int) -> np.ndarray:
    """A copy of (H, W, 3) with a one-pixel frame around patch `index`, white on dark ground and black on bright."""
    rgb = np.array(np.asarray(rgb), dtype=np.float32)
    (row, column), side = divmod(index, grid), rgb.shape[0] // grid
    box = rgb[row * side : (row + 1) * side, column * side : (column + 1) * side]
    box[[0, -1], :] = box[:, [0, -1]] = float(box.mean() < 0.55)
    return rgb


def histogram(values: ArrayLike, modality: str, band: str, side: int) -> np.ndarray:
    """Histogram of a band, in the sensor's unit, as (side, side, 3), over the mean and deviation used to normalise."""
    mean, std, low, high = band_statistics(modality, band)
    bins = side // 4
    counts = np.histogram(np.clip(np.asarray(values, dtype=np.float32), low, high), bins, (low, high))[0]
    heights = (counts / max(counts.max(), 1) * (side - 4)).repeat(4)
    places = (np.arange(side) + 0.5) / side * (high - low) + low
    page = np.ones((side, side, 3))
    page[:, np.abs(places - mean) <= std] = 0.9
    page[np.arange(side, 0, -1)[:, None] <= heights] = to_rgb(colour_of(modality))
    page[:, np.abs(places - mean).argmin()] = page[-1] = 0
    return page


def draw_coast(axes: Axes) -> None:
    """Draw the coasts of the Earth on axes in degrees east and north, whose limits stay. Source: ``coast.json``."""
    text = resources.files("fusmae_lite.show").joinpath("coast.json").read_text(encoding="utf-8")
    lines = [np.reshape(line, (-1, 2)) / 100 for line in json.loads(text)["lines"]]
    axes.add_collection(LineCollection(lines, colors="#8A8A8A", linewidths=0.7, zorder=0.9), autolim=False)


def png(figure: Figure, dpi: int = 90) -> bytes:
    """The figure as PNG bytes; closes it, so that no figure stays alive."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    plt.close(figure)
    return buffer.getvalue()
