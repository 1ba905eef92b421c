"""Masks painted by hand in ReconstructionViewer, the panels as HTML, and the filters that choose a pair."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from viewer_helpers import small_model, walk

from fusmae_lite.show import panels
from fusmae_lite.show.viewers import PatchViewer, ReconstructionViewer
from fusmae_lite.show.viewers.base import ALL


@pytest.fixture
def viewer(archive) -> ReconstructionViewer:
    return ReconstructionViewer(archive, [small_model()], pair=0)


def stroke(viewer: ReconstructionViewer, name: str, *cells: int) -> None:
    """What panels.PAINT does in the browser when the pointer is let go."""
    viewer.painted.value = f"{name} {','.join(map(str, cells))} {id(cells)}"


def test_a_stroke_hides_its_patches_and_shows_their_reconstruction(viewer):
    before, masks = viewer.picture(), {name: mask.copy() for name, mask in viewer.masks.items()}
    first, *others = np.flatnonzero(~masks["s2"])[:3]
    stroke(viewer, "s2", first, *others)
    assert np.flatnonzero(viewer.masks["s2"] != masks["s2"]).tolist() == [first, *others]
    assert np.array_equal(viewer.masks["s1"], masks["s1"]) and viewer.picture() != before
    box = np.s_[:, 24 * (first // 5) : 24 * (first // 5 + 1), 24 * (first % 5) : 24 * (first % 5 + 1)]
    made = viewer.pasted("model 1")["s2"][box]
    assert np.array_equal(made, viewer.predictions["model 1"]["s2"][box]) and not np.allclose(
        made, viewer.originals["s2"][box]
    )
    stroke(viewer, "s2", first, *others)
    assert viewer.picture() == before


def test_a_stroke_gives_all_its_patches_the_state_of_the_first(viewer):
    hidden, seen = int(np.flatnonzero(viewer.masks["s1"])[0]), int(np.flatnonzero(~viewer.masks["s1"])[0])
    stroke(viewer, "s1", hidden, seen)
    assert not viewer.masks["s1"][[hidden, seen]].any()


def test_a_stroke_acts_on_both_sensors_when_masks_are_consistent(viewer):
    viewer.strategy.value = "consistent"
    stroke(viewer, "s1", 0, 1, 2)
    assert np.array_equal(viewer.masks["s1"], viewer.masks["s2"])


def test_the_last_visible_patch_stays(viewer):
    viewer.percent.value = 99
    last = int(np.flatnonzero(~viewer.masks["s1"])[0])
    stroke(viewer, "s1", last)
    assert not viewer.masks["s1"][last] and viewer.said.startswith("error: the last visible")
    assert 'role="status"' in viewer.message.value


def test_rows_and_columns_do_what_a_click_does(viewer):
    hidden = viewer.masks["s1"][2 * 5 + 3]
    viewer.row.value, viewer.column.value = 2, 3
    next(b for b in walk(viewer) if getattr(b, "description", "") == "hide/show in S1").click()
    assert viewer.masks["s1"][2 * 5 + 3] != hidden


def test_what_the_encoder_receives_is_counted(viewer):
    assert "The encoder receives 6 + 6 + 1 (CLS) tokens." in viewer.description
    stroke(viewer, "s1", int(np.flatnonzero(viewer.masks["s1"])[0]))
    assert "The encoder receives 7 + 6 + 1 (CLS) tokens." in viewer.description


def test_another_painting_is_another_file_and_a_drawn_mask_says_its_seed(viewer, tmp_path):
    viewer.folder = tmp_path
    viewer.save_png_button.click()
    for patch in np.flatnonzero(viewer.masks["s1"])[:2]:
        stroke(viewer, "s1", patch)
        viewer.save_png_button.click()
    viewer.seed.value += 1
    viewer.save_png_button.click()
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert len(names) == 4 and sum("painted" in name for name in names) == 2
    assert sum("model-1-independent-75-seed-1.png" in name for name in names) == 1


def test_pixels_in_the_page_are_those_of_the_picture_and_texts_are_text():
    rgb = np.random.default_rng(0).integers(0, 256, (120, 120, 3)) / 255
    page = panels.panels_html([[panels.Panel(rgb, "<a> & b", "c", scale=panels.Scale("viridis", 3, "dB"))]], "<title>")
    image = Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])))
    assert np.array_equal(np.asarray(image)[::2, 1::2], (rgb * 255).round()) and image.size == (240, 240)
    assert 'alt="&lt;a&gt; &amp; b: c"' in page
    assert "<a>" not in page and "<title>" not in page and "3 dB" in page and "rgb(68,1,84)" in page


@pytest.mark.parametrize(("side", "shown"), [(120, 240), (256, 256), (450, 240), (600, 240), (15, 240)])
def test_pixels_are_enlarged_by_a_whole_number(side, shown):
    assert f'<figure style="max-width:{shown}px"' in panels.panels_html([[panels.Panel(np.zeros((side, side, 3)))]])


def test_a_viewer_begins_with_a_held_out_pair_and_says_its_split(archive):
    viewer = PatchViewer(archive)
    assert archive.splits[viewer.pair.value] == "test" == viewer.split.value and "held out" in viewer.heading
    assert viewer.browse.max + 1 == (archive.splits == "test").sum()
    train = int((archive.splits == "train").argmax())
    assert PatchViewer(archive, pair=train).split.value == "train"


def test_filters_leave_the_pairs_that_have_all_of_it(archive):
    viewer = PatchViewer(archive)
    viewer.split.value = ALL
    label = int(archive.labels.sum(axis=0).argmax())
    viewer.label.value = label
    land = viewer.countries[viewer.chosen[-1]]
    viewer.country.value = land
    wanted = [r for r in range(len(archive)) if archive.labels[r, label] and archive.meta(r)["country"] == land]
    assert viewer.chosen.tolist() == wanted and viewer.pair.value in wanted
    viewer.browse.value = viewer.browse.max
    assert viewer.pair.value == wanted[-1] and archive.names[wanted[-1]] in viewer.heading
    outside = next(r for r in range(len(archive)) if r not in wanted)
    viewer.pair.value = outside
    assert archive.names[outside] in viewer.heading, "a number that is typed is shown"
    shown = viewer.picture()
    viewer.label.value = int((~archive.labels.any(axis=0)).argmax())
    assert "no pair has all of this" in viewer.said and viewer.picture() == shown


def test_sliders_follow_the_mouse_where_drawing_is_quick(viewer, monkeypatch):
    assert viewer.seed.continuous_update
    monkeypatch.setattr("fusmae_lite.show.viewers.base.QUICK", 0)
    viewer.refresh()
    assert not viewer.seed.continuous_update
