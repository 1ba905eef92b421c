"""Panels: pixels at the places where they belong."""

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
    rgb = panels.Scale("viridis", 1, "").paint([[0, 1, -5, 9, np.nan]])[0]
    assert np.array_equal(rgb[0], rgb[2]) and np.array_equal(rgb[1], rgb[3])
    assert rgb[4].tolist() == [MASK_GREY] * 3


@pytest.mark.parametrize("width", [100, 300, 600])
def test_a_title_ends_where_the_page_does(width):
    title = "12: a pair with a long name (Coniferous forest, Mixed forest, Transitional woodland, Inland waters)"
    cut = panels.fitting(title, width)
    assert panels.font(13).getlength(cut) <= width < panels.font(13).getlength(title)
    assert cut.endswith("…") and title.startswith(cut[:-1]) and panels.fitting("short", width) == "short"
