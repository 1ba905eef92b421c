"""SearchViewer driven from Python: what it finds, what it may find, and what a click on the map chooses."""

import numpy as np
import pytest
from viewer_helpers import holds_still, memory_is_flat

from fusmae_lite import InputError
from fusmae_lite.evaluation.retrieval import cosines
from fusmae_lite.show.viewers import SearchViewer
from fusmae_lite.show.viewers.search import ANY, FIELDS, FOUND, GRID_SIDE

ROWS = np.arange(0, 24, 2)
RNG = np.random.default_rng(0)
RADAR = RNG.normal(size=(12, 6))
RADAR[2] = RADAR[1] + 0.1  # of one tile
VECTORS = {"s1": RADAR, "s2": RADAR + 0.1 * RNG.normal(size=(12, 6)), "s1+s2": RNG.normal(size=(12, 9))}
TILES = np.arange(12) // 3


@pytest.fixture
def search_viewer(archive) -> SearchViewer:
    return SearchViewer(archive, VECTORS, rows=ROWS, groups=TILES, pair=1)


def test_each_control_changes_the_picture(search_viewer):
    viewer = search_viewer
    ways = ("s1", "s2"), ("s1+s2", "s1+s2")
    for control, values in ((viewer.pair, (5, 9)), (viewer.way, ways), (viewer.own, (ANY,))):
        holds_still(viewer, control, values)
    assert [label for label, _ in viewer.way.options] == [
        "S1 finds S1", "S1 finds S2", "S2 finds S1", "S2 finds S2", "S1+S2 finds S1+S2"
    ]  # fmt: skip


def test_it_finds_the_highest_cosines_of_other_tiles_and_names_rows_of_the_archive(search_viewer):
    similar = cosines(RADAR, RADAR)[1]
    wanted = [j for j in np.argsort(-similar) if TILES[j] != TILES[1]][:FOUND]
    assert search_viewer.found()[0].tolist() == wanted
    for place, j in enumerate(wanted, 1):
        assert f"{place}: pair {ROWS[j]} (" in search_viewer.description
    assert f"S1 of pair {ROWS[1]}: {search_viewer.archive.names[ROWS[1]]}" in search_viewer.description


def test_its_own_tile_and_its_partner_are_found_where_they_may_be(search_viewer):
    search_viewer.own.value = ANY
    assert 1 not in search_viewer.found()[0], "in its own sensor a pair does not find itself"
    search_viewer.way.value = ("s1", "s2")
    assert search_viewer.found()[0][0] == 1 and f"1: pair {ROWS[1]}, its partner" in search_viewer.description


def test_a_click_chooses_the_nearest_dot(search_viewer):
    places = search_viewer._places("s1")
    assert places.min() >= 0 and places.max() <= GRID_SIDE
    under = search_viewer.shown[0][0].picture
    target = int(np.ptp(places - places.mean(axis=0), axis=1).argmax())
    column, row = (places[target] * FIELDS // GRID_SIDE).astype(int)
    search_viewer.painted.value = f"map {row * FIELDS + column} 0"  # as the browser does
    assert search_viewer.pair.value == target and (search_viewer.shown[0][0].picture != under).any()


def test_one_tile_alone_finds_nothing_and_two_pairs_are_enough(archive):
    viewer = SearchViewer(archive, {"s1": np.eye(2)}, rows=[0, 1], groups=["a", "a"])
    assert not len(viewer.found()[0]) and viewer.description.endswith("left out: nothing.")
    viewer.own.value = ANY
    assert viewer.found()[0].tolist() == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": [0, 1]}, "12 vectors, 2 rows; give a vector, row and group for each pair"),
        ({"rows": ROWS, "pair": 12}, "no pair 12 among 12; choose 0 to 11"),
    ],
)
def test_what_does_not_match_is_refused(archive, options, message):
    with pytest.raises(InputError, match=message):
        SearchViewer(archive, VECTORS, **options)


def test_searches_keep_nothing(search_viewer):
    for pair in range(12):  # so that every picture is in the cache
        search_viewer.pair.value = pair
    memory_is_flat(search_viewer.pair, range(8))
