"""MaskViewer driven from Python: masks drawn and painted, and what the encoder receives."""

from __future__ import annotations

import numpy as np
import pytest
from viewer_helpers import SMALL, holds_still, memory_is_flat, walk

from fusmae_lite import ModelConfig
from fusmae_lite.show.viewers import MaskViewer
from fusmae_lite.show.viewers.reconstruction import visible_patches


@pytest.fixture
def mask_viewer(archive) -> MaskViewer:
    return MaskViewer(archive, ModelConfig(patch_size=24, **SMALL))


def test_each_control_of_the_masks_changes_the_picture(mask_viewer):
    viewer = mask_viewer
    for control, values in (
        (viewer.pair, (5,)), (viewer.percent, (0, 99)), (viewer.seed, (7,)), (viewer.strategy, ("consistent", "cloud"))
    ):  # fmt: skip
        holds_still(viewer, control, values)


def test_a_click_hides_one_patch_and_a_second_click_shows_it_again(mask_viewer):
    before, masks = mask_viewer.picture(), {name: mask.copy() for name, mask in mask_viewer.masks.items()}
    under = mask_viewer.grids["s2"].image.value
    mask_viewer.grids["s2"].buttons[7].click()
    changed = np.flatnonzero(mask_viewer.masks["s2"] != masks["s2"])
    assert changed.tolist() == [7] and np.array_equal(mask_viewer.masks["s1"], masks["s1"])
    assert mask_viewer.picture() != before and mask_viewer.grids["s2"].image.value != under
    mask_viewer.grids["s2"].buttons[7].click()
    assert mask_viewer.picture() == before


def test_a_click_acts_on_both_sensors_when_masks_are_consistent(mask_viewer):
    mask_viewer.strategy.value = "consistent"
    mask_viewer.grids["s1"].buttons[0].click()
    assert np.array_equal(mask_viewer.masks["s1"], mask_viewer.masks["s2"])


def test_the_last_visible_patch_stays(mask_viewer):
    mask_viewer.percent.value = 99
    last = int(np.flatnonzero(~mask_viewer.masks["s1"])[0])
    mask_viewer.flip("s1", last)
    assert not mask_viewer.masks["s1"][last] and mask_viewer.message.value.startswith("error: this is the last")


def test_rows_and_columns_do_what_a_click_does(mask_viewer):
    hidden = mask_viewer.masks["s1"][2 * 5 + 3]
    mask_viewer.row.value, mask_viewer.column.value = 2, 3
    key = next(b for b in walk(mask_viewer) if getattr(b, "description", "") == "hide/show in S1")
    key.click()
    assert mask_viewer.masks["s1"][2 * 5 + 3] != hidden


def test_what_the_encoder_receives_is_counted(mask_viewer):
    assert "The encoder receives 6 + 6 + 1 (CLS) tokens." in mask_viewer.description
    mask_viewer.flip("s1", int(np.flatnonzero(mask_viewer.masks["s1"])[0]))
    assert "The encoder receives 7 + 6 + 1 (CLS) tokens." in mask_viewer.description


def test_visible_patches_are_laid_out_in_reading_order():
    rgb = np.arange(16).reshape(4, 4, 1).repeat(3, axis=2) / 16
    page = visible_patches(rgb, np.array([True, False, True, False]))
    assert np.array_equal(page[:2, :2], rgb[:2, 2:]) and np.array_equal(page[:2, 2:], rgb[2:, 2:])
    assert (page[2:] == 1).all()


def test_masks_keep_nothing(mask_viewer):
    memory_is_flat(mask_viewer.seed, range(8))
