"""Archives as they lie on disk. :func:`open_archive` finds the format; nothing downstream cares which it was."""

from pathlib import Path

from fusmae_lite.core.config import RunConfig, project_root
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.progress import followed
from fusmae_lite.data.archives.base import Archive, Patch
from fusmae_lite.data.archives.bigearthnet import BigEarthNetV1, ReBEN
from fusmae_lite.data.archives.lmdb_store import LmdbArchive
from fusmae_lite.data.archives.sen12ms import SEN12MS
from fusmae_lite.data.archives.splits import with_random_split

__all__ = [
    "FORMATS", "SEN12MS", "Archive", "BigEarthNetV1", "LmdbArchive", "Patch", "ReBEN", "open_archive", "open_data",
]  # fmt: skip

#: Every format, tried in this order. A new one is added here and nowhere else.
FORMATS: list[type[Archive]] = [BigEarthNetV1, ReBEN, SEN12MS, LmdbArchive]


def open_archive(
    path: Path | str | None = None, *, partial: bool = False, snow_and_clouds: bool = False, read_all: bool = True
) -> Archive:
    """Open the archive in a folder, whichever of these formats it has.

    Args:
        path: None for the pairs that come with a clone of the repository.
        partial: list patches that are not whole in ``archive.left_out`` instead of refusing the archive for them.
            Reads every pair once, unless `read_all` is False, which leaves damage inside to be met on reading.
        snow_and_clouds: also the patches that the archive's authors set apart for snow, clouds or their shadow.
    """
    root = project_root() / "data_samples" if path is None else Path(path).expanduser()
    if not root.is_dir():
        raise InputError(f"data folder {root} does not exist", "pass data_dir the folder of an archive")
    for archive in FORMATS:
        if archive.matches(root):
            opened = archive(root, partial=partial, snow_and_clouds=snow_and_clouds)
            if partial and read_all:
                _leave_out_damaged(opened)
            return opened
    looked_for = "; ".join(f"{archive.kind} ({archive.layout})" for archive in FORMATS)
    raise InputError(f"{root} holds no archive; looked for {looked_for}", "pass the folder that contains these")


def open_data(config: RunConfig) -> Archive:
    """The archive a run is configured for: ``config.data_dir``, or the bundled patches where that is empty."""
    archive = open_archive(config.data_dir or None, partial=config.partial, snow_and_clouds=config.snow_and_clouds)
    return with_random_split(archive, config.seed) if config.split == "random" else archive


def _leave_out_damaged(archive: Archive) -> None:
    """Read every pair once (GeoTIFFs 50 a second, an LMDB thousands) and leave out those that cannot be read.

    A run cannot do that on its way: its batches and steps follow from the number of pairs.
    """
    reasons: dict[int, str] = {}
    pairs = len(archive)
    title = "partial: reads every pair once (`fusmae encode --partial` does so for good)"
    for row in followed(range(pairs), title, pairs):
        try:
            archive.read(row)
        except InputError as error:
            reasons[row] = str(error)
    if len(reasons) == pairs:
        raise InputError(f"{archive.root}: no pair can be read, first {reasons[0]}", "mend the archive")
    archive.leave_out(reasons)
