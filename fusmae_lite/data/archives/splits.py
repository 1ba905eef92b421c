"""Random splits, and how much they leak: how many test patches lie beside a training patch."""

from collections.abc import Sequence
from copy import copy

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives.base import Archive

Names = Sequence[str] | np.ndarray
#: A Sentinel-2 tile is cut into 91 columns and rows of cells.
_CELL = "_T?(?P<tile>[0-9A-Z]{5})_(?P<column>[0-9]{1,3})_(?P<row>[0-9]{1,3})$"


def random_split(
    patches: Archive | Names, seed: int, shares: tuple[float, float, float] = (0.6, 0.2, 0.2)
) -> np.ndarray:
    """(len,) of ``"train"``, ``"val"``, ``"test"``, drawn without looking at place or label.

    Names are sorted before they are drawn from, so that the same patches in another order fall into the same parts.
    Sizes are exact, train and val rounded and test the rest: 590,326 patches give the paper's 354,196.

    Raises:
        InputError: a share of train, val or test is negative, or they do not add up to 1.
    """
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise InputError(f"shares {shares} are no split", "give three that are not negative and add up to 1")
    names = np.asarray(patches.names if isinstance(patches, Archive) else patches)
    train, val = (round(share * len(names)) for share in shares[:2])
    drawn = np.argsort(names, kind="stable")[np.random.default_rng(seed).permutation(len(names))]
    parts = np.full(len(names), "test", dtype="<U5")
    parts[drawn[:train]] = "train"
    parts[drawn[train : train + val]] = "val"
    return parts


def neighbour_leakage(
    names: Names,
    splits: np.ndarray,
    *,
    s1_names: Names | None = None,
    same_acquisition: bool = False,
    part: str = "test",
) -> float:
    """Share of the test patches with a training patch in their own or one of the 8 adjoining cells of the same tile.

    The cells of a Sentinel-2 tile adjoin each other (1.2 km), and a tile seen on several days has patches of several
    days in one cell. A lower bound: neighbours across the edge of a tile, or in an overlapping tile, are not seen.
    `s1_names` tell the tile where Sentinel-2 names of v1 do not. With `same_acquisition` a neighbour counts only if
    it was taken by the same overpass: same light, same season.

    InputError for a split without patches of this `part`, or names that do not end in tile, column and row.
    """
    asked = splits == part
    if not asked.any():
        raise InputError(f"the split has no {part} patch", "give one that has")
    told = pa.array(names if s1_names is None else s1_names, pa.string())
    cells = pc.extract_regex(told, _CELL)
    if cells.null_count:
        what = f"{told.filter(cells.is_null())[0]} does not end in <tile>_<column>_<row>"
        raise InputError(what, "give names of BigEarthNet patches; s1_names too for v1, whose S2 names lack the tile")
    tiles, *numbers = cells.flatten()
    columns, rows = (number.cast(pa.int64()).to_numpy() for number in numbers)
    if same_acquisition:
        days = [name.rsplit("_", 2)[0] for name in names]
        tiles = pc.binary_join_element_wise(tiles, pa.array(days, pa.string()), " ")
    _, groups = np.unique(tiles.to_numpy(zero_copy_only=False), return_inverse=True)
    # one plane of cells per group, with a rim of one cell, so that the 9 shifts below need no special case
    near = np.zeros((groups.max() + 1, columns.max() + 3, rows.max() + 3), dtype=bool)
    train = splits == "train"
    for right, down in np.ndindex(3, 3):
        near[groups[train], columns[train] + right, rows[train] + down] = True
    return float(near[groups[asked], columns[asked] + 1, rows[asked] + 1].mean())


def archive_leakage(archive: Archive, splits: np.ndarray | None = None) -> float:
    """:func:`neighbour_leakage` of an archive's own split, or of another one for the same patches."""
    s1_names = [archive.keys(index)["s1"] for index in range(len(archive))]
    return neighbour_leakage(archive.names, archive.splits if splits is None else splits, s1_names=s1_names)


def resplit(archive: Archive, splits: np.ndarray, title: str) -> Archive:
    """The same archive under another split, (len,) of train, val, test or ""; `title` is added to its kind."""
    if len(splits) != len(archive):
        raise InputError(f"a split of {len(splits)} patches for {len(archive)}", "give one entry per patch")
    other = copy(archive)
    other.splits = np.asarray(splits, dtype="<U5")
    other.kind = f"{archive.kind}, {title}"  # type: ignore[misc]
    return other


def with_random_split(archive: Archive, seed: int) -> Archive:
    """The same archive with a random split in place of its own; nothing on disk changes."""
    return resplit(archive, random_split(archive, seed), f"random split, seed {seed}")
