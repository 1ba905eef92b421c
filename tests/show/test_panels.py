"""Panels, curves and histograms: pixels at the places where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from viewer_helpers import pixels

from fusmae_lite.show import panels
from fusmae_lite.show.pictures import MASK_GREY


def test_panels_put_pictures_at_known_places():
    red = np.zeros((3, 3, 3))
    red[..., 0] = 1
    page = pixels(panels.draw_panels([[panels.Panel(red, "red", "caption")] * 2], "title"))
    middle = 24 + panels.HEAD + panels.SIDE // 2
    for left in (panels.GAP, 2 * panels.GAP + panels.SIDE):
        assert page[middle, left].tolist() == page[middle, left + panels.SIDE - 1].tolist() == [255, 0, 0]
        assert page[middle, left - 1].tolist() == [255, 255, 255]


def test_scale_clips_and_shows_hidden_patches_grey():
    rgb = panels.Scale("viridis", 0, 1, "").paint([[0, 1, -5, 9, np.nan]])[0]
    assert np.array_equal(rgb[0], rgb[2]) and np.array_equal(rgb[1], rgb[3])
    assert rgb[4].tolist() == [MASK_GREY] * 3


def test_curves_end_in_a_dot_of_their_colour_at_the_last_place():
    page = pixels(panels.draw_curves({"a": panels.Curve([1, 2, 3], [4, 2, 1], "#0072B2")}, "step", "loss"))
    rows, columns = np.nonzero((page == [0, 0x72, 0xB2]).all(axis=2) & (np.arange(len(page)) > 50)[:, None])
    assert columns.max() == panels.GAP + panels.CURVE[0] - 24 + 3
    assert rows[columns == columns.max()].mean() > rows[columns == columns.min()].mean(), "it falls"


def test_curves_below_zero_stay_on_the_page():
    page = pixels(panels.draw_curves({"a": panels.Curve([1, 2, 3], [1, 0, -2], "#0072B2")}, "step", "loss"))
    rows, columns = np.nonzero((page == [0, 0x72, 0xB2]).all(axis=2) & (np.arange(len(page)) > 50)[:, None])
    assert rows.max() < panels.CURVE[1] - 14 and columns.max() == panels.GAP + panels.CURVE[0] - 24 + 3
    flat = panels.draw_curves({"a": panels.Curve([1, 2], [0, 0], "#0072B2")}, "step", "loss")
    assert pixels(flat).shape == page.shape


@pytest.mark.parametrize("width", [100, 300, 600])
def test_a_title_ends_where_the_page_does(width):
    title = "12: a pair with a long name (Coniferous forest, Mixed forest, Transitional woodland, Inland waters)"
    cut = panels.fitting(title, width)
    assert panels.font(13).getlength(cut) <= width < panels.font(13).getlength(title)
    assert cut.endswith("…") and title.startswith(cut[:-1]) and panels.fitting("short", width) == "short"
