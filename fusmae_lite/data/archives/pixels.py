"""Pixels are what they are taken for: other units, offsets and gaps are refused. And bands as the bytes of an LMDB."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import DECIBEL, REFLECTANCE, Modality

Where = Path | str
#: Band -> (side in pixels, NumPy dtype), in band order.
Layout = Mapping[str, tuple[int, str]]
#: What Sentinel-2 products of processing baseline 04.00 and later have added to every pixel.
ADDED = 1000
#: -32768 and its neighbour as uint16: within the range of reflectances, but never a measurement.
_WRAPPED = (32767, 32768)
FILL = "remove the patch from the lists and the folder, or fill the gap in"
#: N0400 and later; N9999 is reBEN's own reprocessing, without an offset.
_LATE = re.compile(r"_N(?!9999)(0[4-9]|[1-9]\d)\d\d_")
_SUBTRACT = f"subtract {ADDED} (clip at 0) and name it as N9999 or earlier, or declare the offset -{ADDED} in the files"


def check_form(
    shape: Sequence[int], actual: str, where: Where, band: str, side: int, dtype: str, units: str | None = None
) -> None:
    """InputError unless the band is (side, side) of this dtype; `units` say what another is likely to hold."""
    if tuple(shape) != (side, side):
        size = " x ".join(str(length) for length in shape)
        what = f"{where}: band {band} is {size} pixels, expected {side} x {side}"
        raise InputError(what, "download the patch again or crop it")
    if np.dtype(actual) == np.dtype(dtype):
        return
    cure = f"convert the file to {dtype}"
    if units == DECIBEL and np.dtype(actual).kind in "iu":
        cure += ": decibels times 100 divided by 100, amplitudes as 20 * log10; or declare the scale in the file"
    if units == REFLECTANCE and np.dtype(actual).kind == "f":
        cure += ": reflectances from 0 to 1 times 10,000"
    raise InputError(f"{where}: band {band} is {actual}, expected {dtype}", cure)


def check_pixels(bands: Mapping[str, np.ndarray], modality: Modality | None, where: Where) -> None:
    """InputError unless the bands of one patch, (h, w) each, hold what the modality says: its unit, its range, no gaps.

    Without a modality, or one without a `valid` range, they only have to be finite.
    """
    for band, array in bands.items():
        check_values(array, modality, band, where)
    check_gaps(bands, modality, where)


def obviously_right(values: np.ndarray, modality: Modality) -> bool:
    """Whether :func:`check_pixels` would pass the bands of a patch, (bands * h * w) of one dtype, at a first look.

    All of them at once take a third of the time: reading an LMDB should not wait for its checks. False says only
    that they need a closer look.
    """
    if modality.valid is None:
        return values.dtype.kind != "f" or bool(np.isfinite(values).all())
    (least, most), low, high = modality.valid, values.min(), values.max()
    if modality.units == REFLECTANCE:
        return bool(low > 0 and high < min(most, _WRAPPED[0]))
    inside = bool(least <= low and high <= most)
    if modality.units != DECIBEL or not inside or high < 0:
        return inside
    alike = len(set(modality.resolution)) == 1
    return alike and bool((values.reshape(modality.channels, -1).min(axis=1) < 0).all() and (values != 0).all())


def check_values(array: np.ndarray, modality: Modality | None, band: str, where: Where) -> None:
    """The part of :func:`check_pixels` that concerns one band."""
    if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        what = f"{where}: band {band} holds {(~finite).sum()} NaN or infinite values of {array.size}"
        raise InputError(what, "download the patch again, or remove it from the split lists and the folder")
    if modality is None or modality.valid is None:
        return
    (least, most), low, high = modality.valid, float(array.min()), float(array.max())
    if modality.units == DECIBEL and low >= 0 and high > 0 and np.median(array) < 1e6:
        raise InputError(
            f"{where}: no pixel of band {band} is negative ({low:g} to {high:g}): that is linear power (or amplitude), "
            "decibels are expected",
            "convert the archive with 10 * log10(power), or 20 * log10(amplitude)",
        )
    if modality.units == DECIBEL and low == high == 0:
        raise _out_of_range(array, array == 0, modality, band, where)
    if not (least <= low and high <= most):
        raise _out_of_range(array, (array < least) | (array > most), modality, band, where)
    if modality.units == REFLECTANCE and high >= _WRAPPED[0] and (wrapped := np.isin(array, _WRAPPED)).any():
        raise _out_of_range(array, wrapped, modality, band, where)


def _out_of_range(array: np.ndarray, mask: np.ndarray, modality: Modality, band: str, where: Where) -> InputError:
    """What the values in the mask are: decibels times 100, a value that stands for no data, or unknown."""
    (least, most), values, typical = modality.valid, array[mask], float(np.median(array))
    low, high, named = values.min(), values.max(), f"{where}: band {band}"
    if modality.units == DECIBEL and -1e6 < typical < least and low < high:
        factor = 10 ** round(math.log10(-typical / 15))
        what = f"{named} is about {typical:g}: that looks like decibels times {factor}"
        return InputError(what, f"divide by {factor}, as {modality.dtype}")
    expected = f"at {values.size} pixels of {array.size}{{}}; {least:g} to {most:g} ({modality.units}) is expected"
    if low == high:
        return InputError(f"{named} is {low:g} {expected.format(': no data, by its look')}", FILL)
    cure = f"convert the archive to that unit; if these pixels are no data, {FILL}"
    return InputError(f"{named} holds {low:g} to {high:g} {expected.format('')}", cure)


def check_gaps(bands: Mapping[str, np.ndarray], modality: Modality | None, where: Where) -> None:
    """The part of :func:`check_pixels` that concerns all bands: 0 in each of them at one place is no measurement."""
    if modality is None or modality.valid is None or modality.units not in (DECIBEL, REFLECTANCE):
        return
    side, gap = max(array.shape[0] for array in bands.values()), np.ones((), bool)
    for array in bands.values():
        zero = array == 0
        if not zero.any():
            return
        nearest = np.arange(side) * array.shape[0] // side
        gap = gap & zero[nearest][:, nearest]
    if gap.any():
        raise InputError(f"{where}: 0 in all bands at {gap.sum()} places of {gap.size}: no data", FILL)


def first_with_offset(names: Iterable[str]) -> str | None:
    """The first Sentinel-2 name of a product that came with 1000 added to every pixel (baseline 04.00 or later)."""
    return next(filter(_LATE.search, names), None)


def offset_left(where: Where) -> InputError:
    """For pixels whose name says that there is an offset, and whose file does not."""
    what = f"{where}: processing baseline 04.00 or later, whose pixels have {ADDED} added, but no offset is declared"
    return InputError(what, _SUBTRACT)


def pack(bands: Mapping[str, np.ndarray]) -> bytes:
    """Bands -> safetensors bytes."""
    return save({band: np.ascontiguousarray(array) for band, array in bands.items()})


def unpack(
    value: memoryview | bytes, layout: Layout, where: str, modality: Modality | None = None
) -> dict[str, np.ndarray]:
    """Safetensors bytes -> bands in the order of `layout`, as arrays of their own memory.

    `where` names environment and key; values of a known `modality` are checked too.
    InputError for damage, other bands, sizes or types, and what :func:`check_pixels` refuses.
    """
    data = bytes(value)
    try:
        bands = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        what = f"{where}: {len(data)} bytes with a damaged safetensors header ({error})"
        raise InputError(what, "encode the archive again, or copy the file again") from None
    every = dict.fromkeys((*layout, *sorted(bands)))
    if differing := [band for band in every if (band in bands) != (band in layout)]:
        what = f"{where}: band {', '.join(differing)} missing or unknown"
        raise InputError(what, f"encode with the bands {', '.join(layout)}")
    for band, (side, dtype) in layout.items():
        if bands[band].shape != (side, side) or bands[band].dtype != dtype:
            check_form(bands[band].shape, bands[band].dtype.name, where, band, side, dtype)
    bands = {band: bands[band] for band in layout}
    dtype, *others = {dtype for _, dtype in layout.values()}
    start = 8 + int.from_bytes(data[:8], "little")  # all bands, one after the other, without a copy
    if modality is None or others or not obviously_right(np.frombuffer(data, dtype, offset=start), modality):
        check_pixels(bands, modality, where)
    return bands
