"""PatchViewer driven from Python, over archives of every format."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_archives import MAKERS, ROWS
from viewer_helpers import holds_still, memory_is_flat, pixels

from fusmae_lite import InputError
from fusmae_lite.data.synthetic import synthesise
from fusmae_lite.show import panels, pictures
from fusmae_lite.show.viewers import PatchViewer
from fusmae_lite.show.viewers.patch import Locator, place_of, places_by_name, same_side, tile_corner


@pytest.fixture
def patch_viewer(archive) -> PatchViewer:
    return PatchViewer(archive, pair=0)


def test_each_control_of_the_patches_changes_the_picture(patch_viewer):
    viewer = patch_viewer
    holds_still(viewer, viewer.pair, (5, len(viewer.archive) - 1))
    holds_still(viewer, viewer.looks["s1"], ("vv", "vh", "ratio"))
    holds_still(viewer, viewer.looks["s2"], ("false_colour", "swir"))
    holds_still(viewer, viewer.band, (("s1", "VH"), ("s2", "B01"), ("s2", "B12")))


def test_place_and_labels_are_told(patch_viewer, archive):
    patch = archive.read(0)
    assert "Centre 63.5" in patch_viewer.description and patch.crs in patch_viewer.description
    assert all(label in patch_viewer.description for label in patch.labels)


def test_bands_of_any_side_come_to_one_side_pixel_on_pixel():
    bands = {"a": np.array([[1, 2], [3, 4]]), "b": np.arange(16).reshape(4, 4)}
    both = same_side(bands, ["b", "a"])
    assert np.array_equal(both[0], bands["b"]) and np.array_equal(both[1], np.kron(bands["a"], np.ones((2, 2))))


def test_histogram_counts_and_draws_the_normalisation():
    mean, std, low, high = pictures.band_statistics("s1", "VH")
    page = pictures.histogram(np.full(10, mean + 2 * std), "s1", "VH", panels.SIDE)
    blue = np.isclose(page, np.array([0, 0x72, 0xB2]) / 255).all(axis=2)
    share = (mean + 2 * std - low) / (high - low)
    assert set(np.flatnonzero(blue.any(axis=0)) // 4) == {int(share * (panels.SIDE // 4))}
    middle = int((mean - low) / (high - low) * panels.SIDE)
    assert (page[:, middle - 1 : middle + 1] == 0).all(axis=(0, 2)).any(), "the mean is a black line"
    assert page[5, middle - 8].tolist() == [0.9] * 3, "the deviation is grey"


@pytest.mark.parametrize("format_", ["reben", "encoded", "rico"])
def test_patches_of_other_archives_look_the_same_and_lie_at_the_same_place(patch_viewer, archive, tmp_path, format_):
    viewer = PatchViewer(MAKERS[format_](tmp_path, archive), pair=0)
    holds_still(viewer, viewer.pair, (1, 3))
    holds_still(viewer, viewer.band, (("s2", "B09"),))
    patch_viewer.pair.value = ROWS[0]
    one, other = (pixels(v.picture())[30 : 30 + panels.SIDE, :840] for v in (viewer, patch_viewer))
    np.testing.assert_array_equal(one, other)
    (east, north), said = viewer.place
    assert np.hypot(east - patch_viewer.place[0][0], north - patch_viewer.place[0][1]) < 0.001
    assert ("by its name" in said) == (format_ == "rico"), "an LMDB of reBEN's own tool has no coordinates"


def test_sen12ms_of_256_pixels_and_one_label(tmp_path):
    viewer = PatchViewer(synthesise(tmp_path / "sen12ms", 4, format="sen12ms"), pair=0)
    labels = viewer.archive.__dict__.get("labels")
    assert labels is None, "the label of one pair needs no look at every land-cover map"
    holds_still(viewer, viewer.pair, (1, 3))
    holds_still(viewer, viewer.looks["s2"], ("false_colour", "swir"))
    holds_still(viewer, viewer.band, (("s1", "VH"), ("s2", "B09")))
    patch = viewer.archive.read(0)
    assert f"Labels: {patch.labels[0]}. Centre" in viewer.description and "2560 x 2560 m" in viewer.description
    assert len(patch.labels) == 1 and "scene 1" in viewer.description
    assert "names of" in viewer.locator.caption, "they tell no place: only the patch on show is on the map"


def test_an_archive_without_places_says_so(archive, monkeypatch):
    patch = replace(archive.read(0), crs=None, bounds=None)
    monkeypatch.setattr(archive, "keys", lambda index: {"s1": "radar_17", "s2": "colour_17"})
    monkeypatch.setattr(archive, "read", lambda _index: patch)
    viewer = PatchViewer(archive)
    assert "No map position: neither" in viewer.description and viewer.said == ""


def test_names_tell_the_place_that_the_files_have(archive):
    for row in range(0, len(archive), 3):
        (by_name,), by_file = places_by_name(archive, [row]), place_of(archive.read(row, ["s1"]))
        east, north = (np.subtract(by_name, by_file)) * (111_000 * np.cos(np.radians(by_file[1])), 111_000)
        assert np.hypot(east, north) < 60, archive.names[row]


@pytest.mark.parametrize(
    ("tile", "corner"),
    [
        ("35VNK", ("EPSG:32635", 499_980, 7_000_040)), ("31NEA", ("EPSG:32631", 499_980, 100_040)),
        ("21MXT", ("EPSG:32721", 599_980, 9_800_040)), ("56HLH", ("EPSG:32756", 299_980, 6_300_040)),
    ],
)  # fmt: skip
def test_tiles_of_both_hemispheres(tile, corner):
    assert tile_corner(tile) == corner


@pytest.mark.parametrize("text", ["", "35VNI", "61VNK", "35ANK", "T35VNK", "1234"])
def test_what_is_no_tile_is_refused(text):
    with pytest.raises(ValueError, match="no tile"):
        tile_corner(text)


def test_the_map_marks_the_patch_at_its_place(archive):
    locator = Locator(archive)
    assert len(locator.places) == len(archive)
    (west, south), (east, north) = locator.places.min(axis=0), locator.places.max(axis=0)
    marked = []
    for here in ((west, south), (east, north)):
        page = (locator.picture(here) * 255).round()
        rows, columns = np.nonzero((page == [0xCC, 0x79, 0xA7]).all(axis=2))
        column, row = (np.bincount(places).argmax() for places in (columns, rows))
        assert np.hypot(column - locator.pixel(here)[0], row - locator.pixel(here)[1]) < 2
        marked.append((column, row))
    assert marked[0][0] < marked[1][0] and marked[0][1] > marked[1][1], "east is right, north is up"
    assert not (locator.picture(None) == locator.picture((east, north))).all()


def test_patches_keep_nothing(patch_viewer):
    memory_is_flat(patch_viewer.band, [band for _, band in patch_viewer.band.options])


def test_bad_input_of_the_patches_is_told_in_one_line(tmp_path, archive):
    with pytest.raises(InputError, match="no pair -1"):
        PatchViewer(archive, pair=-1)
    with pytest.raises(InputError):
        PatchViewer(tmp_path)
