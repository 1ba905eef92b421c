"""Bands as safetensors bytes, the value of one key in an LMDB."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import Modality
from fusmae_lite.data.archives.pixels import check_finite, check_form, check_pixels, obviously_right

#: Band -> (side in pixels, NumPy dtype), in band order.
Layout = Mapping[str, tuple[int, str]]


def pack(bands: Mapping[str, np.ndarray]) -> bytes:
    """Bands -> safetensors bytes."""
    return save({band: np.ascontiguousarray(array) for band, array in bands.items()})


def unpack(
    value: memoryview | bytes, layout: Layout, where: str, modality: Modality | None = None
) -> dict[str, np.ndarray]:
    """Safetensors bytes -> bands in the order of `layout`, as arrays of their own memory.

    `where` names environment and key; values of a known `modality` are checked too.

    Raises:
        InputError: header or bytes damaged, a band missing or too many, wrong size or type, not finite, or not what
            :func:`check_pixels` expects of that sensor.
    """
    data = bytes(value)
    try:
        bands = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        what = f"{where}: {len(data)} bytes with a damaged safetensors header ({error})"
        raise InputError(what, "encode the archive again, or copy the file again") from None
    if bands.keys() != layout.keys():
        missing = [band for band in layout if band not in bands]
        names = ", ".join(missing or sorted(bands.keys() - layout.keys()))
        what = f"{where}: band {names} {'missing' if missing else 'unknown'}"
        raise InputError(what, f"encode with the bands {', '.join(layout)}")
    for band, (side, dtype) in layout.items():
        if bands[band].shape != (side, side) or bands[band].dtype != dtype:
            check_form(bands[band].shape, bands[band].dtype.name, where, band, side, dtype)
    dtypes = {dtype for _, dtype in layout.values()}
    if modality is None or len(dtypes) > 1 or not obviously_right(_pixels(data, dtypes.pop()), modality):
        for band, array in bands.items():
            check_finite(array, where, band)
        if modality is not None:
            check_pixels(bands, modality, where)
    return {band: bands[band] for band in layout}


def _pixels(data: bytes, dtype: str) -> np.ndarray:
    """All bands, one after the other, without a copy."""
    return np.frombuffer(data, dtype, offset=8 + int.from_bytes(data[:8], "little"))
