"""Arrays to RGB pictures and PNG bytes, with stretches that are written down.

Every image comes in physical units: Sentinel-1 in dB, Sentinel-2 in reflectance x 10,000. Nothing here adapts to the
picture at hand, so two patches that look alike are alike. Figures of several panels are in ``figures.py``.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality

#: One colour per sensor, in every figure of the course (Okabe and Ito's colour-blind safe blue and vermilion).
COLOURS: dict[str, str] = {"s1": "#0072B2", "s2": "#D55E00", "cls": "#4D4D4D"}

#: Colours that further sensors take, in the order of their registration.
SPARE_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")

#: Grey of a masked patch, in 0..1; exactly this value in all three channels.
MASK_GREY = 0.62

#: Exponent 1/GAMMA brightens the dark end of optical composites, where most land lies.
GAMMA = 1.6

#: dB shown as black and as white.
VV_LIMITS = (-25.0, 0.0)
VH_LIMITS = (-32.0, -5.0)
#: VV - VH in dB, that is the ratio of the two intensities.
RATIO_LIMITS = (0.0, 20.0)

#: Grey scale of a single Sentinel-2 band, in reflectance; the near and short-wave infrared are brighter than the rest.
VISIBLE_LIMITS = (0.0, 0.3)
INFRARED_LIMITS = (0.0, 0.5)
INFRARED_BANDS = ("B06", "B07", "B08", "B8A", "B09", "B11")


@dataclass(frozen=True)
class Composite:
    """How three layers of a sensor become red, green and blue.

    Args:
        title: what a figure calls it.
        modality: sensor the layers come from.
        layers: band names, or ``"VV-VH"`` for a difference of two bands.
        limits: (low, high) of each layer, shown as 0 and 1; reflectance for Sentinel-2, dB for Sentinel-1.
        gamma: the stretched value is raised to 1 / gamma.
    """

    title: str
    modality: str
    layers: tuple[str, ...]
    limits: tuple[tuple[float, float], ...]
    gamma: float = 1.0

    @property
    def caption(self) -> str:
        """Layers and stretch in one line, for a title or a caption."""
        unit = " dB" if self.modality == "s1" else ""
        if len(set(self.limits)) == 1:
            low, high = self.limits[0]
            text = f"{' '.join(self.layers)}, {low:g} to {high:g}{unit}"
        else:
            parts = (f"{name} {low:g} to {high:g}" for name, (low, high) in zip(self.layers, self.limits, strict=True))
            text = ", ".join(parts) + unit
        return text + (f", gamma {self.gamma:g}" if self.gamma != 1 else "")


#: Every named way to look at a patch; the first of each sensor is its default.
COMPOSITES: dict[str, Composite] = {
    "sar": Composite("SAR composite", "s1", ("VV", "VH", "VV-VH"), (VV_LIMITS, VH_LIMITS, RATIO_LIMITS)),
    "vv": Composite("VV", "s1", ("VV",), (VV_LIMITS,)),
    "vh": Composite("VH", "s1", ("VH",), (VH_LIMITS,)),
    "ratio": Composite("VV - VH", "s1", ("VV-VH",), (RATIO_LIMITS,)),
    "true_colour": Composite("True colour", "s2", ("B04", "B03", "B02"), (VISIBLE_LIMITS,) * 3, GAMMA),
    "false_colour": Composite("False colour", "s2", ("B08", "B04", "B03"), ((0.0, 0.5), (0.0, 0.25), (0.0, 0.25)), 1.3),
    "swir": Composite("Short-wave IR", "s2", ("B12", "B8A", "B04"), ((0.0, 0.35), (0.0, 0.6), (0.0, 0.25)), 1.3),
}


def colour_of(modality: str) -> str:
    """Hex colour of a sensor; sensors other than S1 and S2 share the spare colours by name."""
    return COLOURS.get(modality, SPARE_COLOURS[sum(modality.encode()) % len(SPARE_COLOURS)])


def stretch(values: ArrayLike, low: float, high: float, gamma: float = 1.0) -> np.ndarray:
    """Map `low` to 0 and `high` to 1, clip, and raise to 1 / `gamma`; NaN becomes 0. Any shape, float32."""
    if not high > low:
        raise InputError(f"stretch limits {low:g} to {high:g} are empty", "give low < high")
    scaled = (np.asarray(values, dtype=np.float32) - low) / (high - low)
    return np.clip(np.nan_to_num(scaled), 0, 1) ** (1 / gamma)


def default_composite(modality: str) -> str:
    """Name of the composite a sensor is shown with unless told otherwise: ``sar`` or ``true_colour``."""
    for name, recipe in COMPOSITES.items():
        if recipe.modality == modality:
            return name
    raise InputError(f"no composite for modality {modality!r}", "add one to pictures.COMPOSITES")


def composite(name: str | None, modality: str, image: ArrayLike, gain: float = 1.0) -> np.ndarray:
    """A patch as an RGB picture.

    Args:
        name: key of :data:`COMPOSITES`; None takes the sensor's default.
        modality: ``"s1"`` or ``"s2"``.
        image: (C, H, W) in physical units, bands in the sensor's order.
        gain: multiplies the stretched value before clipping; 1 is the stated stretch.

    Returns:
        (H, W, 3) float32 in 0..1; single layers are grey.

    Raises:
        InputError: unknown composite, a composite of another sensor, or the wrong number of bands.
    """
    name = name or default_composite(modality)
    usable = [key for key, recipe in COMPOSITES.items() if recipe.modality == modality]
    if name not in usable:
        raise InputError(f"no composite {name!r} for modality {modality!r}", f"choose one of {', '.join(usable)}")
    recipe = COMPOSITES[name]
    layers = []
    for layer, (low, high) in zip(recipe.layers, recipe.limits, strict=True):
        layers.append(stretch(band_values(image, modality, layer), low, low + (high - low) / gain, recipe.gamma))
    return np.stack(layers if len(layers) == 3 else layers * 3, axis=-1)


def band_values(image: ArrayLike, modality: str, layer: str) -> np.ndarray:
    """One layer (H, W) of (C, H, W): reflectance for Sentinel-2, dB for Sentinel-1, a difference for ``"VV-VH"``."""
    image, sensor = np.asarray(image, dtype=np.float32), get_modality(modality)
    if image.ndim != 3 or len(image) != sensor.channels:
        raise InputError(
            f"a {modality} picture of shape {image.shape}", f"give ({sensor.channels}, H, W) in the sensor's band order"
        )
    values, *subtracted = (image[sensor.band_index(band)] for band in layer.split("-"))
    for other in subtracted:
        values = values - other
    return values / 10_000 if modality == "s2" else values


def true_colour(s2: ArrayLike, gain: float = 1.0) -> np.ndarray:
    """B04, B03, B02 as red, green, blue: what an eye would see, brightened. (12, H, W) -> (H, W, 3) in 0..1."""
    return composite("true_colour", "s2", s2, gain)


def false_colour(s2: ArrayLike, gain: float = 1.0) -> np.ndarray:
    """B08, B04, B03: living vegetation is red. (12, H, W) -> (H, W, 3) in 0..1."""
    return composite("false_colour", "s2", s2, gain)


def swir(s2: ArrayLike, gain: float = 1.0) -> np.ndarray:
    """B12, B8A, B04: bare soil is pink, vegetation green, water black. (12, H, W) -> (H, W, 3) in 0..1."""
    return composite("swir", "s2", s2, gain)


def sar(band: ArrayLike, low: float = VV_LIMITS[0], high: float = VV_LIMITS[1]) -> np.ndarray:
    """One SAR band in dB as grey: (H, W) -> (H, W, 3) in 0..1."""
    return np.repeat(stretch(band, low, high)[..., None], 3, axis=-1)


def sar_composite(s1: ArrayLike) -> np.ndarray:
    """VV, VH and VV - VH as red, green, blue; forest is yellow-green, calm water blue. (2, H, W) -> (H, W, 3)."""
    return composite("sar", "s1", s1)


def band_limits(modality: str, band: str) -> tuple[float, float]:
    """Grey-scale limits of a single band: dB for Sentinel-1, reflectance for Sentinel-2."""
    if modality == "s1":
        return VV_LIMITS if band == "VV" else VH_LIMITS
    return INFRARED_LIMITS if band in INFRARED_BANDS else VISIBLE_LIMITS


def mask_pixels(mask: ArrayLike, height: int, width: int, grid: int | None = None) -> np.ndarray:
    """Blow a token mask up to pixels: (N,) -> bool (height, width). Token index = row * grid + column."""
    mask = np.asarray(mask, dtype=bool).reshape(-1)
    grid = grid or round(mask.size**0.5)
    if mask.size != grid * grid or height % grid or width % grid:
        raise InputError(
            f"a mask of {mask.size} tokens on a picture of {height} x {width} px", f"give {grid} x {grid} whole patches"
        )
    return np.kron(mask.reshape(grid, grid), np.ones((height // grid, width // grid), dtype=bool))


def show_mask(rgb: ArrayLike, mask: ArrayLike, grid: int | None = None) -> np.ndarray:
    """The picture as the encoder sees it: masked patches become :data:`MASK_GREY`.

    Args:
        rgb: (H, W, 3) in 0..1.
        mask: bool (N,), True where hidden.
        grid: patches along one side; the square root of N if absent.
    """
    rgb = np.array(np.asarray(rgb), dtype=np.float32)
    rgb[mask_pixels(mask, *rgb.shape[:2], grid)] = MASK_GREY
    return rgb


def outline(rgb: ArrayLike, index: int, grid: int, colour: str = "#FFFFFF") -> np.ndarray:
    """A copy of (H, W, 3) with a one-pixel frame around patch `index`."""
    rgb = np.array(np.asarray(rgb), dtype=np.float32)
    row, column, side = index // grid, index % grid, rgb.shape[0] // grid
    box = rgb[row * side : (row + 1) * side, column * side : (column + 1) * side]
    box[[0, -1], :] = box[:, [0, -1]] = to_rgb(colour)
    return rgb


def png(figure: Figure, dpi: int = 90) -> bytes:
    """The figure as PNG bytes; closes it, so that no figure stays alive."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    plt.close(figure)
    return buffer.getvalue()
