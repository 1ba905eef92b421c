"""Scenes of any size: what is written is where and what it says, no data is a mask, the rest is refused in one line."""

from __future__ import annotations

import datetime
import json

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from scene_files import LEFT, TOP, images, write, write_scene
from small_archives import MAKERS, refused

from fusmae_lite.core.architecture import ModelConfig
from fusmae_lite.core.sensors import S1, S2
from fusmae_lite.course.cli import main
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.grids import Box
from fusmae_lite.data.pairs import PairDataset, normalise
from fusmae_lite.data.scenes import Hidden, Raster, Scene
from fusmae_lite.systems import build_model
from fusmae_lite.systems.scenes import embed, embed_tokens, predict
from fusmae_lite.systems.weights import load_pretrained


@pytest.fixture(scope="session")
def model():
    return load_pretrained("xae-lite")


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture
def optics(files):
    """The twelve bands at 10 m, uint16."""
    return np.rint(Raster(files[1], S2).read(Box(0, 0, 240, 300))[0]).astype(np.uint16)


def vectors(model, scene) -> dict[Box, torch.Tensor]:
    return {box: v for made in embed(model, scene) for box, v in zip(made.boxes, made.values, strict=True)}


def encoded(model, scene, box, masks=None):
    pixels, _ = scene.read(box)
    batch = {name: normalise(torch.from_numpy(image), name)[None] for name, image in pixels.items()}
    with torch.inference_mode():
        return model.encode(batch, masks)


def test_embed_writes_geoparquet_that_geopandas_opens(files, tmp_path, model, capsys):
    out = tmp_path / "v.parquet"
    assert main(["embed", *map(str, files), str(out), "--tokens", str(tmp_path / "t.tif")]) == 0
    assert "6 vectors" in (said := capsys.readouterr().out) and "no data or the edge cuts 2 of their images" in said
    table, field = geopandas.read_parquet(out), pq.read_schema(out).field("embedding")
    assert table.crs == "EPSG:32633" and len(table) == 6 and list(table.date) == [datetime.date(2017, 6, 13)] * 6
    assert field.type == pa.list_(pa.float32(), 128)
    facts = json.loads(pq.read_metadata(out).metadata[b"fusmae-lite"])
    assert facts == json.loads(pq.read_schema(out).metadata[b"fusmae-lite"])  # where pandas and arrow look
    assert facts["model"] == "xae-lite" and len(facts["digest"]) == 12
    assert json.loads(pq.read_metadata(out).metadata[b"geo"])["columns"]["geometry"]["bbox"] == [
        LEFT, TOP - 2400, LEFT + 3000, TOP
    ]  # fmt: skip
    first = table[table.name.str.endswith("_120_120")].iloc[0]
    assert first.geometry.bounds == (LEFT + 1200, TOP - 2400, LEFT + 2400, TOP - 1200) and first.seen == 1
    pairs = PairDataset(open_archive(), indices=[4])
    own = model.encode({name: x[None] for name, x in pairs[0]["images"].items()}).pooled()[0].detach().numpy()
    # As the pair of the archive, but for what the coarse bands know of their neighbours
    assert np.corrcoef(first.embedding, own)[0, 1] > 0.999
    with rasterio.open(tmp_path / "t.tif") as tokens:
        assert tokens.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and tokens.tags()["digest"] == facts["digest"]
        assert (tokens.crs, tokens.transform) == (table.crs, from_origin(LEFT, TOP, 80, 80))
        assert tokens.shape == (30, 37) and tokens.count == 128 and np.isfinite(tokens.read()).all()


def test_a_scene_of_one_image_is_that_image(files, tmp_path, model):
    s1 = write(tmp_path / "s1.tif", images(S1, [[4]]))
    scene = Scene(s1, write(tmp_path / "s2.tif", np.rint(images(S2, [[4]])).astype(np.uint16)))
    z = encoded(model, scene, scene.whole)
    ((_, value),) = vectors(model, scene).items()
    assert torch.equal(value, z.pooled()[0])
    ((box, tokens),) = embed_tokens(model, scene)
    mean = torch.stack(list(z.tokens.values())).mean(dim=0)[0].T.reshape(-1, 15, 15)
    assert box == (0, 0, 15, 15) and np.allclose(tokens, mean, atol=1e-5)


def test_a_window_reads_what_the_whole_does(files):
    raster = Raster(files[1], S2)
    whole, _ = raster.read(Box(0, 0, 240, 300))
    for box in (Box(0, 0, 120, 120), Box(57, 101, 180, 300), Box(239, 299, 240, 300)):
        pixels, there = raster.read(box)
        assert there.all() and np.allclose(pixels, whole[:, *box.slices], atol=1e-2)


def test_no_data_is_hidden_and_left_out_of_vectors(files, tmp_path, model, optics):
    radar = images(S1)[:, :240, :300]
    radar[:, 10:20, 10:20], radar[:, :, 120:240] = np.nan, np.nan
    gaps = optics.copy()
    gaps[:, 100:, :60] = 0
    gaps[:, 120:, 120:240] = 0
    gaps[3, 5, 5] = 0  # one band of dark water is no gap
    scene = Scene(write(tmp_path / "s1.tif", radar), write(tmp_path / "s2.tif", gaps, nodata=0))
    found = vectors(model, scene)
    assert Box(120, 120, 240, 240) not in found and len(found) == 5
    masks = {name: torch.zeros(1, 15, 15, dtype=torch.bool) for name in ("s1", "s2")}
    masks["s1"][:, 1:3, 1:3], masks["s2"][:, 12:, :8] = True, True  # 8 px of no data begin within a patch
    z = encoded(model, scene, Box(0, 0, 120, 120), {name: mask.flatten(1) for name, mask in masks.items()})
    assert torch.allclose(found[Box(0, 0, 120, 120)], z.pooled()[0], atol=1e-5)
    (alone,) = (v for b, v in found.items() if b == Box(0, 120, 120, 240))  # optics only
    pixels = normalise(torch.from_numpy(scene.read(Box(0, 120, 120, 240))[0]["s2"]), "s2")[None]
    assert torch.allclose(alone, model.encode({"s2": pixels}).pooled()[0], atol=1e-5)


def test_predict_fills_what_is_hidden_and_sees_none_of_it(files, tmp_path, model, optics, capsys):
    mask = np.zeros((1, 240, 300), np.uint8)
    mask[:, 60:110, 60:170] = 1
    hidden = write(tmp_path / "mask.tif", mask)
    made = []
    for number, value in enumerate((0, 9000)):
        s2 = optics.copy()
        s2[:, mask[0] > 0] += np.uint16(value)
        path = write(tmp_path / f"s2_{number}.tif", s2)
        out = tmp_path / f"filled_{number}.tif"
        assert main(["predict", str(files[0]), str(path), str(out), "--hidden", str(hidden)]) == 0
        with rasterio.open(out) as file:
            made.append(file.read())
            assert file.crs == "EPSG:32633" and file.transform == from_origin(LEFT, TOP, 10, 10)
            assert file.descriptions == S2.bands and set(file.units) == {"reflectance"} and file.scales[0] == 1e-4
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert float(file.tags()["hidden_share"]) == pytest.approx(mask.mean()) and len(file.tags()["digest"]) == 12
    assert "5500 of 5500 hidden pixels" in capsys.readouterr().out
    visible = mask[0] == 0
    assert np.array_equal(made[0][:, visible], optics[:, visible])
    assert np.array_equal(made[0], made[1]), "hidden pixels reach the encoder"
    deviation = np.array(S2.std)[:, None]
    error = np.square((made[0] - optics)[:, ~visible] / deviation).mean()
    mean = optics[:, visible].mean(axis=1, keepdims=True)
    assert error < 0.7 * np.square((mean - optics[:, ~visible]) / deviation).mean()
    assert Scene(files[0], tmp_path / "filled_0.tif").date is None  # it can be read again


def test_own_gaps_are_filled_and_what_lies_too_far_is_not(files, tmp_path, model, optics):
    optics[:, 30:50, 30:50] = 0
    optics[:, :, 170:] = 0
    scene = Scene(files[0], write(tmp_path / "s2.tif", optics, nodata=0))
    ((box, pixels, hidden),) = predict(model, scene)
    assert box == scene.whole and hidden.sum() == 400 + 130 * 240
    assert np.isfinite(pixels[:, :, :280]).all() and np.isnan(pixels[:, :, 280:]).all()
    with pytest.raises(ValueError, match="no pixels of s3"):
        next(predict(model, scene, "s3"))


@pytest.mark.parametrize("system", ["late", "satvit", "dino"])
def test_other_systems_embed_scenes(files, tmp_path, system, optics):
    torch.manual_seed(0)
    small = {"width": 32, "depth": 2, "heads": 2, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
    other = build_model(ModelConfig(system=system, **small)).eval()
    radar = images(S1)[:, :240, :300]
    radar[:, :8, :8] = np.nan
    scene = Scene(write(tmp_path / "s1.tif", radar), files[1])
    found = vectors(other, scene)
    assert len(found) == (3 if system == "dino" else 6), "DINO takes whole images alone"
    assert all(v.isfinite().all() for v in found.values())


@pytest.mark.parametrize("kind", ["reben", "encoded"])
def test_an_archive_in_place_of_a_scene(archive, tmp_path, kind, model, capsys):
    root, out = MAKERS[kind](tmp_path / "archive", archive), tmp_path / "v.parquet"
    assert main(["embed", str(root), str(out)]) == 0
    assert "4 vectors of pairs" in capsys.readouterr().out
    table, opened = geopandas.read_parquet(out), open_archive(root)
    assert list(table.name) == list(opened.names) and table.crs.to_string() == "OGC:CRS84"
    pairs = PairDataset(opened, "all")
    for row, (_, entry) in enumerate(table.iterrows()):
        patch = opened.read(row)
        left, bottom, right, top = geopandas.GeoSeries([entry.geometry], crs=table.crs).to_crs(patch.crs)[0].bounds
        assert np.abs(np.subtract((left, bottom, right, top), patch.bounds)).max() < 5  # half a pixel
        assert tuple(entry.labels) == patch.labels and str(entry.date) == patch.meta["acquisition_date"]
        batch = {name: x[None] for name, x in pairs[row]["images"].items()}
        assert np.allclose(entry.embedding, model.encode(batch).pooled()[0].detach(), atol=1e-5)


def test_bands_are_found_by_description_and_offsets_applied(files, tmp_path, optics):
    order = np.random.default_rng(0).permutation(12)
    names = [f"sentinel {S2.bands[i].replace('B0', 'b')}" for i in order]
    plain = Raster(write(tmp_path / "a.tif", optics), S2).read(Box(0, 0, 240, 300))[0]
    for number, (pixels, changes) in enumerate(
        [
            (optics[order], {"descriptions": names}),
            (optics + 1000, {"offsets": [-1000] * 12}),
            (optics.astype(np.float32), {}),
            (np.concatenate([optics, optics[:1]]), {"descriptions": [*S2.bands, "SCL"]}),
        ]
    ):
        read, there = Raster(write(tmp_path / f"{number}.tif", pixels, **changes), S2).read(Box(0, 0, 240, 300))
        assert there.all() and np.array_equal(read, plain)


def test_the_folder_of_a_product_as_downloaded(tmp_path, optics):
    product = tmp_path / "S2A_MSIL2A_20170613T101031_N0205_R022_T33UUP_20170613T101604.SAFE"
    images = product / "GRANULE" / "L2A_T33UUP_A010313_20170613T101608" / "IMG_DATA"
    for band, metres, pixels in zip(S2.bands, S2.resolution, optics, strict=True):
        for side in {metres, 60}:  # coarser copies of a band lie beside it
            name = images / f"R{side}m" / f"T33UUP_{band}_{side}m.jp2"
            cut = pixels[None, :: side // 10, :: side // 10]
            write(name, cut, side, driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE=True, tags=None)
    raster = Raster(product, S2)
    read, there = raster.read(Box(0, 0, 240, 300))
    assert raster.date == datetime.date(2017, 6, 13) and there.all()
    assert all(np.array_equal(read[c], optics[c]) for c in range(12) if S2.resolution[c] == 10)


def test_radar_is_predicted_too(files, tmp_path, model):
    radar = images(S1)[:, :240, :300]
    radar[:, 100:140, 100:140] = -9999
    scene = Scene(write(tmp_path / "s1.tif", radar, nodata=-9999), files[1])
    ((_, pixels, hidden),) = predict(model, scene, "s1")
    assert hidden.sum() == 1600 and np.isfinite(pixels).all() and np.array_equal(pixels[:, ~hidden], radar[:, ~hidden])
    assert -25 < pixels[0, hidden].mean() < -3


def bad_inputs(tmp_path, s1, s2, radar, optics):
    """(S1, S2, what the line says) of scenes that are refused."""
    shifted = from_origin(LEFT + 100, TOP, 10, 10)
    yield s1, write(tmp_path / "1.tif", optics, crs=None, transform=None), "georeference"
    yield s1, write(tmp_path / "2.tif", optics, crs="EPSG:32634"), "EPSG:32634"
    yield s1, write(tmp_path / "3.tif", optics, transform=shifted), "another extent"
    yield s1, write(tmp_path / "4.tif", optics, transform=from_origin(LEFT + 9e4, TOP, 10, 10)), "does not overlap"
    yield s1, write(tmp_path / "5.tif", optics, 20), "pixels of 20 m"
    yield s1, write(tmp_path / "6.tif", optics, crs="EPSG:4326", transform=from_origin(12, 47, 1e-4, 1e-4)), "degrees"
    yield s1, write(tmp_path / "7.tif", optics[:11]), "11 bands, expected 12"
    yield s2, s1, "no file of band VV"
    yield tmp_path / "none.tif", s2, "none.tif: Sentinel-1 is missing"
    yield write(tmp_path / "8.tif", 10 ** (radar / 10)), s2, "linear power"
    yield write(tmp_path / "9.tif", (radar * 100).astype(np.int16)), s2, "decibels times 100"
    yield write(tmp_path / "10.tif", radar * 100), s2, "decibels times 100"
    yield s1, write(tmp_path / "11.tif", (optics / 1e4).astype(np.float32)), "multiply by 10,000"
    yield s1, write(tmp_path / "12.tif", optics + 1000), "baseline 04.00"
    yield s1, write(tmp_path / "S2A_MSIL2A_20240613T101031_N0510_R022_T33UUP.tif", optics), "no offset is declared"
    yield (
        s1,
        write(tmp_path / "13.tif", optics, transform=from_origin(LEFT, TOP, 10, 10) @ rasterio.Affine.rotation(5)),
        "rotated",
    )
    undeclared = radar.copy()
    undeclared[:, :50] = -9999
    yield write(tmp_path / "14.tif", undeclared), s2, "-a_nodata"
    cut = write(tmp_path / "15.tif", optics)
    cut.write_bytes(cut.read_bytes()[:-100_000])
    yield s1, cut, "truncated"
    yield s1, write(tmp_path / "16.tif", optics, descriptions=[*S2.bands[:11], "B01"]), "described as"
    yield write(tmp_path / "17.tif", radar, descriptions=["HH", "HV"]), s2, "described as HH"
    empty = tmp_path / "folder"
    empty.mkdir()
    yield s1, empty, "no file of band B01"
    yield (
        write(tmp_path / "17.tif", np.full_like(radar, np.nan)),
        write(tmp_path / "18.tif", optics * 0),
        "nothing to write",
    )
    small = write(tmp_path / "19.tif", radar[:, :100, :100]), write(tmp_path / "20.tif", optics[:, :100, :100])
    yield *small, "smaller than an image of 120 px"


def test_bad_scenes_are_refused_in_one_line_and_nothing_is_left(files, tmp_path, optics, capsys):
    out = tmp_path / "out" / "v.parquet"
    for s1, s2, part in bad_inputs(tmp_path, *files, images(S1)[:, :240, :300], optics):
        assert main(["embed", str(s1), str(s2), str(out)]) == 2, part
        error = capsys.readouterr().err
        assert part in error and error.count("\n") == 1 and "; " in error, error
        assert not list(out.parent.iterdir())


def test_bad_outputs_and_masks_are_refused(files, tmp_path, optics, capsys):
    s1, s2 = map(str, files)
    own, there = tmp_path / "s1.tif", tmp_path / "there.parquet"
    own.write_bytes(files[0].read_bytes())
    there.write_text("mine")
    locked = tmp_path / "file"
    locked.write_text("")
    tokens = write(tmp_path / "tokens.tif", optics[:1])
    mask = str(write(tmp_path / "mask.tif", optics[:1, :120]))
    for command, part in [
        (["embed", s1, s2, str(there)], "--overwrite"),
        (["embed", s1, s2, str(tmp_path / "v.tif")], ".parquet"),
        (["embed", s1, s2, str(tmp_path / "v.parquet"), "--tokens", str(tokens)], "--overwrite"),
        (["embed", s1, str(tmp_path / "v.parquet")], "both sensors"),
        (["embed", s1], "paths"),
        (["embed", s1, s2, str(locked / "v.parquet")], "cannot be written"),
        (["embed", s1, s2, str(tmp_path / "v.parquet"), "--weights", "none"], "no pretrained model"),
        (["predict", str(own), s2, str(own), "--overwrite"], "is an input"),
        (["predict", s1, s2, str(tmp_path / "p.tif"), "--hidden", mask], "another extent"),
        (["predict", s1, s2, str(tmp_path / "p.tif"), "--hidden", s2], "is a folder"),
        (["predict", s1, s2, str(tmp_path / "p.tif"), "--hidden", s1], "2 bands, expected 1"),
        (["predict", s1, s2, str(tmp_path / "p.tif")], "nothing to predict"),
    ]:
        before = sorted(tmp_path.iterdir())
        assert main(command) == 2, part
        error = capsys.readouterr().err
        assert part in error and error.count("\n") == 1, error
        assert sorted(tmp_path.iterdir()) == before and there.read_text() == "mine"
    refused(lambda: Hidden(tmp_path / "none.tif", Scene(*files)), "none.tif")
    assert main(["embed", s1, s2, str(there), "--overwrite"]) == 0 and there.read_bytes()[:4] == b"PAR1"


def test_boxes_leave_no_trace(files, tmp_path, model, monkeypatch, optics):
    """A scene worked off in small boxes gives what one box gives."""
    mask = np.random.default_rng(0).random((1, 30, 38)).repeat(8, 1).repeat(8, 2)[:, :240, :300] < 0.4
    hidden = write(tmp_path / "mask.tif", mask.astype(np.uint8))
    scene = Scene(files[0], write(tmp_path / "s2.tif", optics))

    def made():
        whole = np.full((12, 240, 300), np.nan, np.float32)
        for box, values, _ in predict(model, scene, "s2", Hidden(hidden, scene)):
            whole[:, *box.slices] = values
        return whole, vectors(model, scene)

    filled, found = made()
    monkeypatch.setattr("fusmae_lite.systems.scenes.BOX", 80)
    again, others = made()
    assert np.isfinite(filled).all() and np.allclose(filled, again, rtol=1e-4, atol=0.05)
    assert found.keys() == others.keys() and all(torch.allclose(v, others[b], atol=1e-5) for b, v in found.items())
