"""The viewers driven from Python: controls are set, patches clicked, and the picture compared before and after."""

from __future__ import annotations

import gc
import io
import json
import tracemalloc
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import rasterio
import torch
from matplotlib.figure import Figure
from PIL import Image
from small_archives import MAKERS

from fusmae_lite import FusMAE, InputError, ModelConfig, panels
from fusmae_lite.pictures import MASK_GREY
from fusmae_lite.viewers import AttentionViewer, MaskViewer, PatchViewer, ReconstructionViewer, TrainingMonitor
from fusmae_lite.viewers.attention import entropy, weights_between
from fusmae_lite.viewers.mask import visible_patches
from fusmae_lite.viewers.patch import position, same_side

SMALL = {"width": 16, "depth": 2, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}


@pytest.fixture(scope="module")
def model() -> FusMAE:
    torch.manual_seed(0)
    return FusMAE(ModelConfig(patch_size=24, **SMALL))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def holds_still(viewer, control, values) -> None:
    """Every one of these values gives a picture of its own, the same one again, and leaves nothing behind."""
    start, seen = control.value, [viewer.picture()]
    for value in values:
        control.value = value
        assert viewer.message.value == ""
        assert viewer.picture() not in seen, f"{control.description} {value} changed nothing"
        assert viewer.description
        seen.append(viewer.picture())
    control.value = start
    assert viewer.picture() == seen[0]
    assert not plt.get_fignums(), "no figure stays alive"


def memory_is_flat(viewer, control, values, updates: int = 30) -> None:
    """Bytes that Python and NumPy hold after many updates, beside those after a few."""
    tracemalloc.start()
    for number in range(updates + 6):
        control.value = values[number % len(values)]
        if number == 5:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 200_000, f"{after - before} bytes more after {updates} updates"


def walk(widget):
    """A widget and all below it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


# --- panels


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


# --- ReconstructionViewer


@pytest.fixture
def reconstruction(archive, model) -> ReconstructionViewer:
    return ReconstructionViewer(archive, [model])


def test_each_control_of_the_reconstruction_changes_the_picture(reconstruction):
    viewer = reconstruction
    for control, values in (
        (viewer.pair, (5,)), (viewer.percent, (0, 99)), (viewer.seed, (7,)), (viewer.strategy, ("consistent",)),
        (viewer.looks["s2"], ("swir",)), (viewer.cross, viewer.cross.options[1:]),
    ):  # fmt: skip
        holds_still(viewer, control, values)


def test_cross_sensor_masks_leave_one_patch_or_one_sensor(reconstruction):
    reconstruction.cross.value = "S2 hidden but one patch"
    made = reconstruction.predictions["model 1"]
    assert (~made.masks["s2"]).sum() == 1 and (~made.masks["s1"]).sum() == 6
    assert "Sentinel-2: the encoder sees 1 of 25 patches" in reconstruction.description
    reconstruction.cross.value = "S1 encoded alone"
    assert list(reconstruction.predictions["model 1"].original) == ["s1"]


def test_visible_patches_are_pasted_back_and_hidden_ones_predicted(reconstruction):
    made = reconstruction.predictions["model 1"]
    for name, mask in made.masks.items():
        hidden = np.kron(mask.reshape(5, 5), np.ones((24, 24), bool))
        np.testing.assert_allclose(made.pasted[name][:, ~hidden], made.original[name][:, ~hidden], rtol=1e-4, atol=1e-2)
        np.testing.assert_array_equal(made.pasted[name][:, hidden], made.raw[name][:, hidden])


def test_two_models_stand_side_by_side(archive, model):
    one, two = (pixels(ReconstructionViewer(archive, [model] * number).picture()) for number in (1, 2))
    assert two.shape[1] - one.shape[1] == 2 * (panels.SIDE + panels.GAP) + panels.SCALE


def test_patch_normalised_predictions_are_told(archive):
    viewer = ReconstructionViewer(archive, [FusMAE(ModelConfig(patch_size=24, normalize_target=True, **SMALL))])
    assert "are the true ones" in viewer.description


def test_geotiff_lies_where_the_patch_lies(reconstruction, archive, tmp_path):
    reconstruction.folder = tmp_path
    reconstruction.save_png_button.click()
    reconstruction.save_tiff_button.click()
    name, patch = archive.names[0], archive.read(0)
    assert (tmp_path / f"{name}_reconstruction.png").read_bytes() == reconstruction.picture()
    with rasterio.open(tmp_path / f"{name}_reconstruction.tif") as file:
        assert file.crs == patch.crs and tuple(file.bounds) == patch.bounds and file.shape == (120, 120)
        assert file.descriptions[:3] == ("S1 VV", "S1 VH", "S2 B01") and file.count == 14
        pasted = reconstruction.predictions["model 1"].pasted
        np.testing.assert_array_equal(file.read(), np.concatenate([pasted["s1"], pasted["s2"]]))
    assert "wrote" in reconstruction.message.value


def test_reconstruction_keeps_nothing(reconstruction):
    memory_is_flat(reconstruction, reconstruction.seed, range(8))


def test_a_stored_viewer_is_a_picture(reconstruction):
    bundle = reconstruction._repr_mimebundle_()
    assert bundle["image/png"] and "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"].startswith("Reconstruction: 0: ") and json.dumps(bundle)


def test_bad_input_of_the_reconstruction_is_told_in_one_line(archive, model, reconstruction, tmp_path):
    for options in (
        {"models": []}, {"models": ["no-such-model"]}, {"models": [model], "pair": 999},
        {"models": [model, FusMAE(ModelConfig(patch_size=12, **SMALL))]},
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            ReconstructionViewer(archive, **options)
        assert "\n" not in str(caught.value) and ";" in str(caught.value)
    for save in (reconstruction.save_png, reconstruction.save_geotiff):
        with pytest.raises(InputError, match="folder"):
            save(tmp_path / "absent" / "file")
    reconstruction.folder = tmp_path / "absent"
    reconstruction.save_tiff_button.click()
    assert reconstruction.message.value.startswith("error: ")


# --- MaskViewer


@pytest.fixture
def mask_viewer(archive) -> MaskViewer:
    return MaskViewer(archive, ModelConfig(patch_size=24, **SMALL))


def test_each_control_of_the_masks_changes_the_picture(mask_viewer):
    viewer = mask_viewer
    for control, values in (
        (viewer.pair, (5,)), (viewer.percent, (0, 99)), (viewer.seed, (7,)), (viewer.strategy, ("consistent",))
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
    memory_is_flat(mask_viewer, mask_viewer.seed, range(8))


# --- PatchViewer


@pytest.fixture
def patch_viewer(archive) -> PatchViewer:
    return PatchViewer(archive)


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
    assert position(replace(patch, crs=None)) == "No map position in the files"


def test_bands_of_any_side_come_to_one_side_pixel_on_pixel():
    bands = {"a": np.array([[1, 2], [3, 4]]), "b": np.arange(16).reshape(4, 4)}
    both = same_side(bands, ["b", "a"])
    assert np.array_equal(both[0], bands["b"]) and np.array_equal(both[1], np.kron(bands["a"], np.ones((2, 2))))


def test_histogram_counts_and_draws_the_normalisation():
    page = panels.histogram(np.full(10, 0.6), (0.0, 1.0), mean=0.25, std=0.1, colour="#0072B2")
    blue = np.isclose(page, np.array([0, 0x72, 0xB2]) / 255).all(axis=2)
    assert set(np.flatnonzero(blue.any(axis=0)) // 4) == {int(0.6 * (panels.SIDE // 4))}
    assert (page[:, panels.SIDE // 4] == 0).all(axis=1).any(), "the mean is a black line"
    assert page[5, panels.SIDE // 5].tolist() == [0.9] * 3, "the deviation is grey"


@pytest.mark.parametrize("format_", ["reben", "encoded"])
def test_patches_of_other_archives(archive, tmp_path, format_):
    viewer = PatchViewer(MAKERS[format_](tmp_path, archive))
    assert viewer.message.value == "" and viewer.picture()


def test_patches_keep_nothing(patch_viewer):
    memory_is_flat(patch_viewer, patch_viewer.band, [band for _, band in patch_viewer.band.options])


def test_bad_input_of_the_patches_is_told_in_one_line(tmp_path, archive):
    with pytest.raises(InputError, match="no pair -1"):
        PatchViewer(archive, pair=-1)
    with pytest.raises(InputError):
        PatchViewer(tmp_path)


# --- AttentionViewer


@pytest.fixture
def attention(archive, model) -> AttentionViewer:
    return AttentionViewer(archive, model)


def test_each_control_of_the_attention_changes_the_picture(attention):
    viewer = attention
    holds_still(viewer, viewer.pair, (5,))
    for control in (viewer.direction, viewer.layer, viewer.head):
        holds_still(viewer, control, [value for _, value in control.options[1:]])
    holds_still(viewer, viewer.row, (0, 4))
    holds_still(viewer, viewer.column, (0, 4))


def test_a_click_chooses_who_asks(attention):
    before = attention.picture()
    attention.grids["s2"].buttons[3 * 5 + 1].click()
    assert attention.direction.value == ("s2", "s1") and (attention.row.value, attention.column.value) == (3, 1)
    assert attention.picture() != before
    assert "The patch in row 3, column 1 of Sentinel-2 looks at Sentinel-1" in attention.description
    frame = pixels(attention.grids["s1"].image.value)[3 * 48, 48 + 5]
    assert frame.tolist() in ([255] * 3, [0] * 3)


def test_weights_are_those_of_the_model(attention):
    maps = attention.maps
    cross = weights_between(maps, ("cross", 0), "s1", "s2", 1)
    np.testing.assert_allclose(cross, maps["cross"]["s1"][0, 1].numpy() * 25, rtol=1e-6)
    np.testing.assert_allclose(cross.mean(axis=1), 1, rtol=1e-5)
    plain = weights_between(maps, ("self", 0), "s2", "s1", None)
    np.testing.assert_allclose(plain, maps["self"][0][0].mean(0)[25:50, :25].numpy() * 51, rtol=1e-5)


def test_entropy_of_one_and_of_all():
    assert entropy(np.eye(4)) == pytest.approx(np.zeros(4), abs=1e-9)
    assert entropy(np.full((2, 8), 3.0)).tolist() == [3, 3]


@pytest.mark.parametrize(("fusion", "layers"), [("none", 2), ("xad", 3), ("both", 3)])
def test_attention_of_the_other_variants(archive, fusion, layers):
    viewer = AttentionViewer(archive, FusMAE(ModelConfig(patch_size=24, fusion=fusion, **SMALL)))
    assert len(viewer.layer.options) == layers and viewer.message.value == ""
    holds_still(viewer, viewer.layer, [viewer.layer.options[-1][1]])


def test_attention_keeps_nothing(attention):
    memory_is_flat(attention, attention.row, range(5))


def test_attention_needs_two_sensors(archive):
    with pytest.raises(InputError, match="has one sensor, s1; choose"):
        AttentionViewer(archive, FusMAE(ModelConfig(patch_size=24, modalities=("s1",), **SMALL)))


# --- TrainingMonitor


def write_metrics(folder, epochs: int, end: str = "") -> None:
    rows = [{"step": 6 * e, "epoch": e, "loss_s1": 1 / e, "loss_s2": 2 / e} for e in range(1, epochs + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + end, encoding="utf-8")


def test_a_growing_run_is_followed(tmp_path):
    monitor = TrainingMonitor(tmp_path)
    assert monitor.message.value.startswith("error: no ") and monitor.picture()
    (tmp_path / "pretrain").mkdir()
    seen = [monitor.picture()]
    for epochs in (3, 5):
        write_metrics(tmp_path / "pretrain", epochs)
        monitor.follow.value += 1  # what the browser does while the play button is down
        assert f"Epoch {epochs}, step {6 * epochs}" in monitor.description and monitor.message.value == ""
        assert monitor.picture() not in seen
        seen.append(monitor.picture())
    monitor.again.click()
    assert monitor.picture() == seen[-1]


def test_each_control_of_the_monitor_changes_the_picture(tmp_path):
    write_metrics(tmp_path, 20)
    monitor = TrainingMonitor(tmp_path / "metrics.jsonl")
    holds_still(monitor, monitor.x, ("epoch",))
    holds_still(monitor, monitor.skip, (50, 95))


def test_half_a_row_waits_and_a_broken_file_is_told(tmp_path):
    write_metrics(tmp_path, 2, end='{"step": 18, "loss_s1"')
    monitor = TrainingMonitor(tmp_path)
    assert "Epoch 2" in monitor.description and monitor.message.value == ""
    write_metrics(tmp_path, 2, end='{"loss": NaN, "step": 18}\nbroken\n{}\n')
    monitor.refresh()
    assert "line 4 is no JSON" in monitor.message.value and "Epoch 2" in monitor.description
    with pytest.raises(InputError, match="positive"):
        TrainingMonitor(tmp_path, every=0)


def test_monitor_keeps_no_figure(tmp_path):
    write_metrics(tmp_path, 8)
    monitor = TrainingMonitor(tmp_path)
    gc.collect()
    assert not plt.get_fignums() and monitor.picture()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Figure)]
