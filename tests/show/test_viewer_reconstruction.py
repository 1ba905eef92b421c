"""ReconstructionViewer driven from Python: masks, models, cross-sensor reconstruction, files."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from viewer_helpers import SMALL, holds_still, memory_is_flat, pixels, small_model

from fusmae_lite import FusMAE, InputError, ModelConfig
from fusmae_lite.show import panels
from fusmae_lite.show.pictures import mask_pixels
from fusmae_lite.show.viewers import ReconstructionViewer
from fusmae_lite.show.viewers.models import name_of
from fusmae_lite.systems.weights import digest_of


@pytest.fixture(scope="module")
def model() -> FusMAE:
    return small_model()


@pytest.fixture
def reconstruction(archive, model) -> ReconstructionViewer:
    return ReconstructionViewer(archive, [model], pair=0)


def test_each_control_of_the_reconstruction_changes_the_picture(reconstruction):
    viewer = reconstruction
    for control, values in (
        (viewer.pair, (5,)), (viewer.percent, (0, 99)), (viewer.seed, (7,)), (viewer.strategy, ("consistent", "cloud")),
        (viewer.looks["s2"], ("swir",)), (viewer.cross, viewer.cross.options[1:]),
    ):  # fmt: skip
        holds_still(viewer, control, values)


def test_cross_sensor_masks_leave_one_patch_or_one_sensor(reconstruction):
    reconstruction.cross.value = "S2 hidden but one patch"
    masks = reconstruction.masks
    assert (~masks["s2"]).sum() == 1 and (~masks["s1"]).sum() == 6
    assert "Sentinel-2: the encoder sees 1 of 25 patches" in reconstruction.description
    reconstruction.cross.value = "S1 encoded alone"
    assert list(reconstruction.predictions["model 1"]) == ["s1"]
    reconstruction.strategy.value, reconstruction.cross.value = "cloud", "S1 shown whole"
    assert not reconstruction.masks["s1"].any() and (~reconstruction.masks["s2"]).sum() == 6
    assert "Sentinel-1: the encoder sees 25 of 25 patches" in reconstruction.description


def test_visible_patches_are_pasted_back_and_hidden_ones_predicted(reconstruction):
    raw, pasted = reconstruction.predictions["model 1"], reconstruction.pasted("model 1")
    for name, mask in reconstruction.masks.items():
        hidden = np.kron(mask.reshape(5, 5), np.ones((24, 24), bool))
        np.testing.assert_array_equal(pasted[name][:, ~hidden], reconstruction.originals[name][:, ~hidden])
        np.testing.assert_array_equal(pasted[name][:, hidden], raw[name][:, hidden])


def test_two_models_stand_side_by_side(archive, model):
    one, two = (pixels(ReconstructionViewer(archive, [model] * number).picture()) for number in (1, 2))
    assert two.shape[1] - one.shape[1] == 2 * (panels.SIDE + panels.GAP) + panels.SCALE


def test_a_mapping_names_the_models(archive, model):
    viewer = ReconstructionViewer(archive, {"mine": model, "theirs": model})
    assert list(viewer.predictions) == ["mine", "theirs"]
    assert "error of mine at hidden" in viewer.description and "error of theirs at hidden" in viewer.description


def test_a_checkpoint_is_called_after_its_folder():
    assert name_of("runs/laptop/pretrain/step-00000100/model.safetensors") == "step-00000100"
    assert name_of("xae-lite") == "xae-lite" and name_of("weights/mine.safetensors") == "mine.safetensors"


def test_patch_normalised_predictions_are_told(archive):
    viewer = ReconstructionViewer(archive, [FusMAE(ModelConfig(patch_size=24, normalize_target=True, **SMALL))])
    assert "are the true ones" in viewer.description


def test_geotiff_lies_where_the_patch_lies(reconstruction, archive, tmp_path):
    reconstruction.folder = tmp_path
    reconstruction.save_png_button.click()
    reconstruction.save_tiff_button.click()
    name, patch = archive.names[0], archive.read(0)
    (picture,), (raster,) = tmp_path.glob("*.png"), tmp_path.glob("*.tif")
    assert picture.read_bytes() == reconstruction.picture() and picture.name.startswith(name)
    with rasterio.open(raster) as file:
        assert file.crs == patch.crs and tuple(file.bounds) == patch.bounds and file.shape == (120, 120)
        assert file.descriptions[:3] == ("S1 VV reconstruction", "S1 VH reconstruction", "S2 B01 reconstruction")
        assert file.count == 30 and file.descriptions[-2:] == ("S1 hidden", "S2 hidden")
        pasted, originals = reconstruction.pasted("model 1"), reconstruction.originals
        parts = [part[sensor] for part in (pasted, originals) for sensor in ("s1", "s2")]
        np.testing.assert_array_equal(file.read(range(1, 29)), np.concatenate(parts))
        hidden = file.read(30) == 1
        assert np.array_equal(hidden, mask_pixels(reconstruction.masks["s2"], 120, 120))
        np.testing.assert_array_equal(file.read(3)[~hidden], file.read(17)[~hidden])
        red = file.colorinterp.index(ColorInterp.red)
        assert file.descriptions[red] == "S2 B04 reconstruction"
        tags, model = file.tags(), reconstruction.models["model 1"]
        assert tags["weights_sha256"] == digest_of(model.state_dict()) and tags["model"] == "model 1"
        assert tags["seed"] == str(reconstruction.seed.value) and float(tags["hidden_share_s2"]) == hidden.mean().round(
            4
        )
    assert "wrote" in reconstruction.message.value
    reconstruction.seed.value += 1
    reconstruction.save_tiff_button.click()
    assert len(list(tmp_path.glob("*.tif"))) == 2, "another mask is another file"
    reconstruction.seed.value -= 1


def test_save_buttons_write_into_their_folder_only(reconstruction, archive, tmp_path, monkeypatch):
    reconstruction.folder = tmp_path / "pictures"
    reconstruction.folder.mkdir()
    monkeypatch.setattr(archive, "names", ["../outside", *archive.names[1:]])
    for button in (reconstruction.save_png_button, reconstruction.save_tiff_button):
        reconstruction.say("")
        button.click()
        assert "is no name of a patch" in reconstruction.message.value and not list(tmp_path.glob("outside*"))


def test_reconstruction_keeps_nothing(reconstruction):
    memory_is_flat(reconstruction.seed, range(8))


def test_a_stored_viewer_is_a_picture(reconstruction):
    bundle, metadata = reconstruction._repr_mimebundle_()
    stored = base64.b64decode(bundle["image/png"])
    assert "application/vnd.jupyter.widget-view+json" in bundle and json.dumps(bundle)
    assert bundle["text/plain"].startswith("Reconstruction: 0: ")
    assert metadata["image/png"]["alt"] == bundle["text/plain"]
    shown, kept = (
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float) for png in (reconstruction.picture(), stored)
    )
    assert len(stored) < 0.6 * len(reconstruction.picture())
    assert shown.shape == kept.shape and np.abs(shown - kept).mean() < 3, "256 colours look the same"


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
    assert reconstruction.said.startswith("error: ")
