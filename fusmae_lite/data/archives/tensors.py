"""Bands as safetensors bytes, the value of one key in an LMDB: written by the library, read at memory speed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from math import prod

import numpy as np
from safetensors.numpy import save

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import Modality
from fusmae_lite.data.archives.base import check_band
from fusmae_lite.data.archives.pixels import check_pixels, obviously_right

#: Band -> (side in pixels, NumPy dtype), in band order.
Layout = Mapping[str, tuple[int, str]]

_DTYPES = {"U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32"}
_DTYPES |= {"U64": "uint64", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64", "BOOL": "bool"}
_CURE = "encode the archive again, or copy the file again"


def pack(bands: Mapping[str, np.ndarray]) -> bytes:
    """Bands -> safetensors bytes."""
    return save({band: np.ascontiguousarray(array) for band, array in bands.items()})


def unpack(
    value: memoryview | bytes, layout: Layout, where: str, modality: Modality | None = None
) -> dict[str, np.ndarray]:
    """Safetensors bytes -> bands in the order of `layout`, as arrays of their own memory.

    The library's own reader parses the header again for every patch; here one that was seen before, byte for byte,
    is not looked at twice, and all bands of a value are copied in one go.

    Args:
        value: the bytes; may be a view that is gone after the call.
        layout: what has to be in it.
        where: environment and key, for messages.
        modality: the sensor, if it is known: its values are checked too.

    Raises:
        InputError: header or bytes damaged, a band missing or too many, wrong size or type, not finite, or not what
            :func:`check_pixels` expects of that sensor.
    """
    view = memoryview(value)
    length = int.from_bytes(view[:8], "little") if len(view) >= 8 else -1
    if not 0 < length <= len(view) - 8:
        raise InputError(f"{where}: {len(view)} bytes that are no safetensors value", _CURE)
    try:
        places = _places(bytes(view[8 : 8 + length]), len(view) - 8 - length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{where}: damaged safetensors header ({error})", _CURE) from None
    if places.keys() != layout.keys():
        raise _other_bands(places, layout, where)
    data = np.frombuffer(view, np.uint8, offset=8 + length).copy()
    bands = {}
    for band, (side, dtype) in layout.items():
        start, end, found, shape = places[band]
        array = data[start:end].view(found).reshape(shape)
        if found != dtype or shape != (side, side):
            check_band(array, where, band, side, dtype)
        bands[band] = array
    _check_values(data, bands, where, modality)
    return bands


def _check_values(data: np.ndarray, bands: dict[str, np.ndarray], where: str, modality: Modality | None) -> None:
    """Finite and, of a known sensor, right. Sound values are the rule: all bands are looked at in one go."""
    types = {array.dtype for array in bands.values()}
    if modality is not None and len(types) == 1 and obviously_right(data.view(types.pop()), modality):
        return
    for band, array in bands.items():
        check_band(array, where, band, array.shape[0], array.dtype.name)
    if modality is not None:
        check_pixels(bands, modality, where)


@lru_cache(maxsize=256)
def _places(header: bytes, size: int) -> dict[str, tuple[int, int, np.dtype, tuple[int, ...]]]:
    """Header -> band -> (first byte, end, dtype, shape) in the `size` bytes after it; else ValueError and the like."""
    entries = json.loads(header)
    if not isinstance(entries, dict):
        raise ValueError("no map of bands")
    entries.pop("__metadata__", None)
    places = {}
    for band, entry in entries.items():
        dtype, shape = np.dtype(_DTYPES[entry["dtype"]]).newbyteorder("<"), tuple(entry["shape"])
        start, end = entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (start, end, *shape)):
            raise ValueError(f"band {band} has sizes that are no counts")
        if end - start != prod(shape) * dtype.itemsize:
            raise ValueError(f"band {band} of shape {shape} does not fill bytes {start} to {end}")
        places[band] = (start, end, dtype, shape)
    at = 0
    for band, (start, end, _, _) in sorted(places.items(), key=lambda item: item[1][:2]):
        if start != at:
            raise ValueError(f"band {band} starts at byte {start}, expected {at}")
        at = end
    if at != size:
        raise ValueError(f"{size} bytes follow the header, which describes {at}")
    return places


def _other_bands(found: Mapping[str, object], wanted: Layout, where: str) -> InputError:
    missing = [band for band in wanted if band not in found]
    odd = missing or sorted(set(found) - set(wanted))
    kind = "missing" if missing else "unknown"
    return InputError(f"{where}: band {', '.join(odd)} {kind}", f"encode with the bands {', '.join(wanted)}")
