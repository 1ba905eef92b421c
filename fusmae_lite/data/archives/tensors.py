"""Bands as safetensors bytes, the value of one key in an LMDB."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import Modality
from fusmae_lite.data.archives.pixels import check_form, check_pixels, obviously_right

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
    InputError for damage, other bands, sizes or types, and what :func:`check_pixels` refuses.
    """
    data = bytes(value)
    try:
        bands = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        what = f"{where}: {len(data)} bytes with a damaged safetensors header ({error})"
        raise InputError(what, "encode the archive again, or copy the file again") from None
    if differing := [band for band in {**layout, **bands} if (band in bands) != (band in layout)]:
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
