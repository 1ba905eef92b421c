"""Pictures, figures, charts and the overview, checked pixel by pixel where a pixel can be known."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from fusmae_lite.core.errors import InputError
from fusmae_lite.show import charts, diagrams, figures, panels, pictures

GRID, SIDE = 15, 120


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def pair() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    s1 = rng.normal(-15, 5, (2, SIDE, SIDE)).astype(np.float32)
    return {"s1": s1, "s2": rng.integers(0, 6000, (12, SIDE, SIDE)).astype(np.uint16)}


@pytest.fixture
def masks() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.permutation(GRID * GRID) >= 56 for name in ("s1", "s2")}


def picture_in(figure, row: int, column: int, columns: int = 4) -> np.ndarray:
    return np.asarray(figure.axes[row * columns + column].images[0].get_array())


def error_in(figure, row: int, modality: str) -> np.ndarray:
    """Errors read off the colours of the last panel of a row: NaN where it is hatched, else to 1/256 of the scale."""
    rgb = picture_in(figure, row, 3)
    colours = matplotlib.colormaps[panels.ERROR_MAP](np.linspace(0, 1, 256))[:, :3]
    steps = np.abs(rgb[:, :, None] - colours).sum(axis=-1)
    error = steps.argmin(axis=-1) / 255 * figures.ERROR_LIMITS[modality]
    hatched = np.isclose(rgb, pictures.hatched(*rgb.shape[:2])).all(axis=-1)
    return np.where(hatched, np.nan, error)


# --- stretches and composites


@pytest.mark.parametrize("gamma", [1.0, 1.6])
def test_stretch_limits_are_exact(gamma):
    values = pictures.stretch([-30.0, -25.0, 0.0, 3.0, np.nan], -25.0, 0.0, gamma)
    assert values.tolist() == [0, 0, 1, 1, 0]


def test_stretch_is_linear_without_gamma():
    assert pictures.stretch(-12.5, -25, 0) == pytest.approx(0.5)


def test_empty_stretch_is_refused():
    with pytest.raises(InputError, match="low < high"):
        pictures.stretch([0.0], 1, 1)


def test_true_colour_reads_the_right_bands():
    s2 = np.zeros((12, SIDE, SIDE), dtype=np.uint16)
    s2[3, :8, :8] = 3000  # B04 at 0.3, the top of the stretch
    s2[1:4, 8:16, :8] = 4000
    rgb = pictures.true_colour(s2)
    assert rgb.shape == (SIDE, SIDE, 3)
    assert rgb[0, 0].tolist() == [1, 0, 0]
    assert (rgb[8:16, :8] == 1).all(), "a bright patch is white"
    assert rgb[16:].max() == 0


@pytest.mark.parametrize(("name", "band"), [("false_colour", 7), ("swir", 11)])
def test_red_of_the_other_composites(name, band):
    s2 = np.zeros((12, 4, 4), dtype=np.uint16)
    s2[band] = 6000
    assert pictures.composite(name, "s2", s2)[0, 0].tolist() == [1, 0, 0]


def test_sar_composite_is_vv_vh_and_their_difference():
    s1 = np.zeros((2, 4, 4), dtype=np.float32)
    s1[0], s1[1] = -5.0, -25.0
    red, green, blue = pictures.composite("sar", "s1", s1)[0, 0]
    assert red == pytest.approx((-5 + 25) / 25)
    assert green == pytest.approx((-25 + 32) / 27)
    assert blue == pytest.approx(1.0)


def test_sar_is_grey_and_takes_limits():
    grey = pictures.sar(np.array([[-30.0, -5.0]]), -30, -5)
    assert grey.tolist() == [[[0, 0, 0], [1, 1, 1]]]


@pytest.mark.parametrize("name", pictures.COMPOSITES)
def test_every_composite_draws_and_states_its_stretch(name, pair):
    recipe = pictures.COMPOSITES[name]
    rgb = pictures.composite(name, recipe.modality, torch.as_tensor(pair[recipe.modality].astype(np.float32)))
    assert rgb.shape == (SIDE, SIDE, 3) and rgb.min() >= 0 and rgb.max() <= 1
    for low, high in recipe.layers.values():
        assert f"{low:g} to {high:g}" in recipe.caption


@pytest.mark.parametrize(
    ("name", "modality", "shape", "message"),
    [
        ("sar", "s2", (12, 4, 4), "choose one of true_colour"),
        ("nothing", "s1", (2, 4, 4), "choose one of sar"),
        ("sar", "s1", (3, 4, 4), "band order"),
        ("sar", "s1", (4, 4), "band order"),
        (None, "s9", (2, 4, 4), "no composite"),
    ],
)
def test_bad_composites_are_refused(name, modality, shape, message):
    with pytest.raises(InputError, match=message) as caught:
        pictures.composite(name, modality, np.zeros(shape))
    assert "\n" not in str(caught.value)


# --- masks


def test_token_index_is_row_times_grid_plus_column():
    mask = np.zeros(GRID * GRID, dtype=bool)
    mask[2 * GRID + 5] = True
    hidden = pictures.mask_pixels(mask, SIDE, SIDE)
    assert hidden[16:24, 40:48].all() and hidden.sum() == 64


def test_masked_patches_are_exactly_the_grey(pair, masks):
    rgb = pictures.true_colour(pair["s2"])
    before = rgb.copy()
    seen = pictures.show_mask(rgb, masks["s2"])
    hidden = pictures.mask_pixels(masks["s2"], SIDE, SIDE)
    assert (seen[hidden] == np.float32(pictures.MASK_GREY)).all()
    assert (seen[~hidden] == rgb[~hidden]).all()
    assert (rgb == before).all(), "the input is left alone"


def test_torch_masks_are_fine(masks):
    rgb = torch.zeros(SIDE, SIDE, 3)
    assert pictures.show_mask(rgb, torch.as_tensor(masks["s1"])).max() == np.float32(pictures.MASK_GREY)


@pytest.mark.parametrize("size", [224, 16 * 16 + 1, 49])
def test_a_mask_that_does_not_fit_is_refused(size):
    with pytest.raises(InputError, match="whole patches"):
        pictures.mask_pixels(np.zeros(size, dtype=bool), SIDE, SIDE)


def test_outline_frames_one_patch():
    framed = pictures.outline(np.zeros((SIDE, SIDE, 3)), GRID + 2, GRID)
    assert framed[8, 16].tolist() == framed[15, 23].tolist() == [1, 1, 1]
    assert (framed == 1).sum() == 3 * 28


# --- figures


def test_error_is_zero_for_a_perfect_reconstruction(pair, masks):
    figure = figures.show_reconstruction(pair, pair, masks)
    for row, name in enumerate(pair):
        hidden = pictures.mask_pixels(masks[name], SIDE, SIDE)
        error = error_in(figure, row, name)
        assert not error[hidden].any() and np.isnan(error[~hidden]).all()  # hatched, not "no error", where visible


def test_reconstruction_pastes_visible_patches_and_measures_hidden_ones(pair, masks):
    wrong = {"s1": pair["s1"] + 4.0, "s2": pair["s2"] + 200.0}
    figure = figures.show_reconstruction(pair, wrong, masks)
    for row, (name, error) in enumerate({"s1": 4.0, "s2": 0.02}.items()):
        hidden = pictures.mask_pixels(masks[name], SIDE, SIDE)
        shown, truth = picture_in(figure, row, 2), pictures.composite(None, name, pair[name])
        assert np.allclose(shown[~hidden], truth[~hidden])
        assert not np.allclose(shown[hidden], truth[hidden])
        assert np.allclose(error_in(figure, row, name)[hidden], error, atol=figures.ERROR_LIMITS[name] / 250)
        assert figure.axes[4 * row + 3].get_xlabel().split("\n")[1].split()[0] == f"{error:.2g}"
    assert any("pasted back" in axis.get_xlabel() for axis in figure.axes)


def test_a_batch_gives_a_row_per_sample_and_modality(pair, masks):
    batch = {name: np.stack([image] * 2) for name, image in pair.items()}
    both = {name: np.stack([mask] * 2) for name, mask in masks.items()}
    figure = figures.show_reconstruction(batch, batch, both, everywhere=True)
    assert len([axis for axis in figure.axes if axis.images]) == 4 * 5


def test_reconstruction_refuses_unequal_shapes(pair, masks):
    with pytest.raises(InputError, match="do not match"):
        figures.show_reconstruction(pair, {**pair, "s1": pair["s1"][:, :60]}, masks)


@pytest.mark.parametrize(
    "names", [("sar", "swir"), ("true_colour", "false_colour", "swir"), ("sar", "vv", "swir", "vh")]
)
def test_captions_of_a_pair_do_not_run_into_each_other(pair, names):
    figure = figures.show_pair(pair["s1"], pair["s2"], names=names)
    figure.canvas.draw()
    boxes = [axis.xaxis.label.get_window_extent() for axis in figure.axes]
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_pair_bands_histograms_and_masks_have_their_panels(pair, masks):
    assert len(figures.show_pair(pair["s1"], pair["s2"], "title").axes) == 2
    assert [axis.get_title() for axis in figures.show_bands(pair["s2"], "s2").axes][8] == "B8A"
    histogram = figures.show_histograms(np.stack([pair["s1"]] * 3), "s1")
    assert sum(bar.get_height() for bar in histogram.axes[0].patches[:50]) == 3 * SIDE * SIDE
    rgbs = {name: pictures.composite(None, name, image) for name, image in pair.items()}
    assert "56 of 225" in figures.show_masks(rgbs, masks).axes[1].get_xlabel()
    assert len(figures.show_gallery({str(i): rgbs["s1"] for i in range(5)}).axes) == 8


# --- charts


def test_attention_map_in_units_of_uniform_attention(pair):
    rgbs = [pictures.composite(None, name, image) for name, image in pair.items()]
    weights = np.full(GRID * GRID, 1 / 56)
    weights[56:] = np.nan
    figure = charts.show_attention_map(*rgbs, weights, 3 * GRID + 2)
    drawn = picture_in(figure, 0, 2)[3::8, 3::8].reshape(-1, 3)
    uniform = matplotlib.colormaps[panels.MATRIX_MAP](0.5)[:3]
    assert np.allclose(drawn[:56], uniform) and np.allclose(drawn[56:], pictures.MASK_GREY)
    framed = (picture_in(figure, 0, 0) != rgbs[0]).any(axis=-1)
    assert np.argwhere(framed).min(axis=0).tolist() == [3 * 8, 2 * 8] and framed.sum() == 28
    with pytest.raises(InputError, match="square grid"):
        charts.show_attention_map(*rgbs, weights[:-1], 0)


def test_block_shares_of_a_block_diagonal_matrix():
    slices = {"s1": slice(0, 2), "s2": slice(2, 4), "cls": slice(4, 5)}
    matrix = np.kron(np.eye(3), np.full((2, 2), 0.5))[:5, :5]
    matrix[4, 4] = 1
    shares = charts.block_shares(matrix, slices)
    assert shares["s1", "s1"] == shares["s2", "s2"] == shares["cls", "cls"] == 1
    assert shares["s1", "s2"] == 0
    texts = [text.get_text() for text in charts.show_attention_matrix(matrix, slices).axes[1].texts]
    assert texts.count("100%") == 3
    with pytest.raises(InputError, match="average"):
        charts.show_attention_matrix(matrix[None], slices)


def test_loss_curves_keep_the_colours_and_draw_the_baseline():
    history = [{"step": s, "loss_s1": 1 / s, "loss_s2": 2 / s, "loss": 3 / s} for s in (1, 2, 3)] + [{"step": 4}]
    figure = charts.show_loss_curves(history, {"s1": 0.9, "s2": 0.8}, {"s1": 0.5, "s2": 0.4})
    for axis, name, level in zip(figure.axes, ("s1", "s2"), (0.9, 0.8), strict=True):
        curve, _, baseline = axis.lines
        assert curve.get_color() == pictures.COLOURS[name] and len(curve.get_xdata()) == 3
        assert list(baseline.get_ydata()) == [level, level]
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        charts.show_loss_curves([{"step": 1}])


def test_calibration_draws_shares_with_their_intervals_beside_the_diagonal():
    covered = {"spread": ((0.2, 0.4), (0.1, 0.3), (0.25, 0.6)), "fitted": ((0.5, 0.9), (0.4, 0.8), (0.6, 1.0))}
    axis = charts.show_calibration((0.5, 0.9), covered).axes[0]
    assert axis.get_legend_handles_labels()[1] == ["as stated", "spread", "fitted"]
    lines, bars = axis.get_legend_handles_labels()[0][1].lines[0], axis.containers[0].lines[2][0].get_segments()
    assert np.allclose(lines.get_ydata(), (0.2, 0.4)) and np.allclose(bars[1][:, 1], (0.3, 0.6))


def test_loss_curves_leave_room_for_a_held_out_loss_on_top():
    figure = charts.show_loss_curves([{"step": s, "loss_s1": 1.0} for s in (1, 2)], heldout={"s1": 2.0})
    low, high = figure.axes[0].get_ylim()
    assert low == 0 and 2.1 < high < 2.4


def test_losses_below_zero_and_losses_of_any_name_are_drawn():
    history = [{"step": s, "loss_s1": 1.0 - s, "loss_dino": 0.0} for s in (1, 2, 3)]
    dino, s1 = charts.show_loss_curves(history).axes
    assert s1.get_ylim()[0] < -2 and dino.get_ylim() == (0, 1)
    assert [axis.get_title() for axis in (dino, s1)] == ["DINO", "Sentinel-1"]
    assert dino.lines[0].get_color() != s1.lines[0].get_color()


def test_scores_from_mappings():
    rows = [
        {"system": "class prior", "sensors": "none", "micro": 0.34, "macro": 0.158, "low": 0.3, "high": 0.38},
        {"system": "Fus-MAE", "sensors": "S1", "micro": 0.5, "macro": float("nan"), "low": 0.45, "high": 0.55},
    ]
    figure = charts.show_scores(rows)
    left, right = figure.axes
    assert [text.get_text() for text in left.texts] == ["0.340", "0.500"]
    assert [text.get_text() for text in right.texts] == ["0.158", ""]
    assert [label.get_text() for label in left.get_yticklabels()] == ["class prior", "Fus-MAE, S1"]
    with pytest.raises(InputError, match="at least one"):
        charts.show_scores([])


# --- overview


def edges(figure) -> dict[str, tuple[float, ...]]:
    return {patch.get_gid(): patch.get_edgecolor() for patch in figure.axes[0].patches if patch.get_gid()}


@pytest.mark.parametrize("part", diagrams.PARTS)
def test_highlight_changes_the_right_boxes_only(part):
    everything, one = edges(diagrams.overview()), edges(diagrams.overview({part}))
    assert set(everything) == set(one) == {f"{box.part}:{box.lane}" for box in diagrams.BOXES}
    for name in everything:
        assert (one[name] == everything[name]) == (name.split(":")[0] == part)


def test_overview_texts_fit_their_boxes_and_never_overlap():
    figure = diagrams.overview()
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [(t.get_text(), t.get_window_extent(renderer)) for t in figure.axes[0].texts if t.get_text()]
    boxes = [p.get_window_extent(renderer) for p in figure.axes[0].patches if p.get_gid()]
    for i, (text, extent) in enumerate(texts):
        assert not [other for other, b in texts[i + 1 :] if extent.overlaps(b)], text
        touching = [box for box in boxes if box.overlaps(extent)]
        assert all(b.x0 <= extent.x0 and extent.x1 <= b.x1 and b.y0 <= extent.y0 for b in touching), text
    assert min(t.get_fontsize() for t in figure.axes[0].texts) >= 8


def test_overview_covers_every_equation_and_refuses_unknown_parts():
    words = " ".join(text.get_text() for text in diagrams.overview("loss").axes[0].texts)
    assert all(number in words for number in ("eq. 1", "eqs. 2-5", "eqs. 6-8", "eq. 9", "eqs. 10-11"))
    with pytest.raises(InputError, match="choose among data"):
        diagrams.overview({"engine"})


def test_png_closes_its_figure():
    open_before = len(plt.get_fignums())
    for _ in range(50):
        data = pictures.png(figures.show_gallery({"grey": np.full((8, 8, 3), 0.5)}), dpi=20)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(plt.get_fignums()) == open_before


def test_coasts_lie_where_they_should_and_leave_the_limits_alone():
    figure, ((axes,),) = figures.new_figure(1, 1, 3, 3)
    axes.set(xlim=(-12, 33), ylim=(36, 68))
    pictures.draw_coast(axes)
    assert axes.get_xlim() == (-12, 33) and axes.get_ylim() == (36, 68)
    points = np.concatenate([line.vertices for line in axes.collections[0].get_paths()])
    assert (np.abs(points) <= (180, 90)).all()
    for shore in ((-8.9, 37.0), (24.9, 60.1), (-5.7, 50.1), (18.5, -34.1)):  # Algarve, Helsinki, Land's End, Cape Town
        assert np.hypot(*(points - shore).T).min() < 0.5
    plt.close(figure)
