"""Pixels are what they are taken for: other units, offsets, gaps and other places are refused or put right."""

import os
import pickle
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from small_archives import change_value, make_encoded, make_reben, make_rico, make_v1, refused, v2_name
from test_sen12ms import TRAIN, igbp, path_of, write

from fusmae_lite.core.sensors import S1, S2, Modality
from fusmae_lite.course.cli import main
from fusmae_lite.data.archives import Archive, Patch, open_archive
from fusmae_lite.data.archives.geotiff import band_files, read_images
from fusmae_lite.data.archives.lmdb_store import release
from fusmae_lite.data.archives.pixels import check_pixels, first_with_offset, obviously_right, pack, unpack
from fusmae_lite.data.archives.sample import check_archive
from fusmae_lite.data.archives.sen12ms import LAND_COVER
from fusmae_lite.data.encoded import layout_of
from fusmae_lite.data.pairs import PairDataset

SAMPLES = Path(__file__).resolve().parents[2] / "data_samples"
SENSORS = {"s1": S1, "s2": S2}
Change = Callable[[np.ndarray], np.ndarray]


def read_bands(folder: Path, modality: Modality):
    return read_images(band_files(folder, modality), modality)


@pytest.fixture
def pair(tmp_path, archive) -> dict[str, Path]:
    """Writable folders of one original pair: sensor -> folder."""
    folders = {}
    for sensor, top in (("s1", "BigEarthNet-S1-v1.0"), ("s2", "BigEarthNet-v1.0")):
        name = archive.keys(0)[sensor]
        folders[sensor] = Path(shutil.copytree(SAMPLES / top / name, tmp_path / top / name))
    return folders


def rewrite(folder: Path, change: Change, bands=None, scale=None, transform=None, **profile) -> None:
    """Change every band (or the given ones) of a patch's folder, and what its files say of themselves."""
    for path in folder.glob("*.tif"):
        if bands and path.stem.split("_")[-1] not in bands:
            continue
        with rasterio.open(path) as file:
            pixels, kept = change(file.read()), file.profile
        kept = {key: kept[key] for key in ("driver", "count", "crs", "transform")}
        if transform is not None:
            kept["transform"] = transform(kept["transform"])
        size = {"height": pixels.shape[1], "width": pixels.shape[2], "count": len(pixels), "dtype": pixels.dtype.name}
        path.unlink()
        with rasterio.open(path, "w", **{**kept, **size, **profile}) as file:
            file.write(pixels)
            if scale is not None:
                file.scales, file.offsets = [scale[0]] * len(pixels), [scale[1]] * len(pixels)


def same(pixels: np.ndarray) -> np.ndarray:
    return pixels


def patched(value: float, share: float = 0.3) -> Change:
    """Put a value into the left part of each band, as a gap at the edge of a swath does."""
    return lambda pixels: np.where(np.arange(pixels.shape[-1]) < share * pixels.shape[-1], value, pixels).astype(
        pixels.dtype
    )


#: (sensor, what is done to every band, parts of the message)
UNITS = [
    ("s1", lambda x: 10 ** (x / 10), ("VV", "linear power", "10 * log10")),
    ("s1", lambda x: 10 ** (x / 20), ("linear power (or amplitude)", "20 * log10")),
    ("s1", lambda x: x * 100, ("VV", "decibels times 100", "divide by 100")),
    ("s1", lambda x: x * 10, ("decibels times 10", "divide by 10")),
    ("s1", patched(-9999), ("-9999", "no data", "remove")),
    ("s1", patched(-32768, 0.9), ("-32768", "no data")),
    ("s1", patched(-99), ("-99", "no data")),
    ("s1", patched(3.4028235e38, 0.01), ("3.40282e+38", "no data")),
    ("s1", patched(-3.4028235e38), ("-3.40282e+38", "no data")),
    ("s1", patched(0), ("0 in all bands", "no data")),
    ("s1", patched(0, 1), ("0 at", "no data")),
    ("s2", patched(65535, 0.1), ("65535", "no data")),
    ("s2", patched(55537), ("55537", "no data")),  # -9999 as uint16
    ("s2", patched(32768, 0.1), ("32768", "no data")),  # -32768 as uint16
    ("s2", patched(0, 0.2), ("0 in all bands", "no data")),
    ("s2", patched(0, 1), ("0 in all bands", "no data")),
]


@pytest.mark.parametrize(("sensor", "change", "parts"), UNITS)
def test_other_units_and_gaps_are_refused_from_files_and_from_an_lmdb(pair, sensor, change, parts):
    modality = SENSORS[sensor]
    bands = {band: change(array[None])[0].astype(array.dtype) for band, array in _bands(pair, sensor).items()}
    rewrite(pair[sensor], lambda pixels: change(pixels).astype(pixels.dtype))
    refused(lambda: read_bands(pair[sensor], modality), pair[sensor], *parts)
    layout = layout_of({sensor: bands})[sensor]
    refused(lambda: unpack(pack(bands), layout, "data.mdb: key", modality), "data.mdb: key", *parts)


def _bands(pair: dict[str, Path], sensor: str) -> dict[str, np.ndarray]:
    return read_bands(pair[sensor], SENSORS[sensor])[0]


@pytest.mark.parametrize(
    ("sensor", "change", "parts"),
    [
        ("s1", lambda x: (x * 100).astype("int16"), ("VV is int16", "times 100", "float32")),
        ("s1", lambda x: (10 ** (x / 20) * 500).astype("uint16"), ("VV is uint16", "20 * log10")),
        ("s2", lambda x: (x / 10_000).astype("float32"), ("B01 is float32", "times 10,000")),
        ("s2", lambda x: np.where(np.arange(x.shape[-1]) < 9, -9999, x.astype("int16")), ("B01 is int", "uint16")),
    ],
)
def test_other_types_are_refused_from_the_header_with_what_they_are_likely_to_hold(pair, sensor, change, parts):
    rewrite(pair[sensor], change)
    refused(lambda: read_bands(pair[sensor], SENSORS[sensor]), pair[sensor], *parts)


@pytest.mark.parametrize("fill", [S1.valid[0] + 1, -60.0, 30.0])
def test_still_water_and_ships_pass(pair, fill):
    rewrite(pair["s1"], patched(fill, 0.05))
    assert read_bands(pair["s1"], S1)[0]["VH"][5, 0] == np.float32(fill)


@pytest.mark.parametrize("change", [patched(28_000), patched(1, 1), lambda x: x])
def test_snow_glint_and_deep_water_pass(pair, change):
    rewrite(pair["s2"], change)
    rewrite(pair["s2"], patched(0), bands=("B11", "B12"))
    assert (read_bands(pair["s2"], S2)[0]["B12"][:, 0] == 0).all()


def test_what_the_quick_look_passes_the_close_look_passes_on_all_bundled_pairs(archive):
    quick = 0
    for index in range(len(archive)):
        for sensor, bands in archive.read(index).bands.items():
            check_pixels(bands, SENSORS[sensor], "here")
            quick += obviously_right(np.concatenate([array.ravel() for array in bands.values()]), SENSORS[sensor])
    assert quick > len(archive)  # or an LMDB would gain nothing by it


def test_a_sensor_without_a_range_is_not_checked():
    free = Modality("free", "Free", ("x",), (10,), "dB", "float32", (0.0,), (1.0,))
    check_pixels({"x": np.full((3, 3), 1e9, "float32")}, free, "here")
    assert obviously_right(np.full(9, 1e9, "float32"), free) and not obviously_right(np.full(9, np.nan), free)


@pytest.mark.parametrize(("scale", "added"), [((1e-4, 0), 0), ((1, 0), 0), ((1e-4, -0.1), 1000), ((1, -1000), 1000)])
def test_declared_reflectances_are_applied(pair, scale, added):
    before = _bands(pair, "s2")
    rewrite(pair["s2"], lambda x: x + x.dtype.type(added), scale=scale)
    after = _bands(pair, "s2")
    for band in S2.bands:
        assert after[band].dtype == np.uint16 and np.array_equal(after[band], before[band])


def test_an_offset_below_zero_is_clipped(pair):
    rewrite(pair["s2"], patched(990), scale=(1, -1000), bands=("B04",))
    assert _bands(pair, "s2")["B04"][3, 0] == 0


def test_declared_decibels_are_applied(pair):
    before = _bands(pair, "s1")
    rewrite(pair["s1"], lambda x: np.round(x * 100).astype("int16"), scale=(0.01, 0))
    after = _bands(pair, "s1")
    for band in S1.bands:
        assert after[band].dtype == np.float32
        np.testing.assert_allclose(after[band], before[band], atol=0.0051)
    rewrite(pair["s1"], lambda x: x, scale=(1, -83.0))
    refused(lambda: _bands(pair, "s1"), "VV")  # a calibration applied twice leaves the range


@pytest.mark.parametrize("scale", [(2, 0), (1e-4, 0.1), (1e-4, -0.05), (0.0, 0), (1, float("nan")), (1e-3, 0)])
def test_scales_nobody_knows_are_refused(pair, scale):
    rewrite(pair["s2"], same, scale=scale)
    refused(lambda: _bands(pair, "s2"), pair["s2"], "B01.tif", "scale", "-unscale")


@pytest.mark.parametrize(("sensor", "value"), [("s1", -9999.0), ("s1", -55.5), ("s2", 0), ("s2", 7), ("s2", 65535)])
def test_declared_no_data_is_refused_where_it_occurs_only(pair, sensor, value):
    band = SENSORS[sensor].bands[0]
    rewrite(pair[sensor], lambda x: np.where(x == value, value + 1, x).astype(x.dtype), nodata=value)
    _bands(pair, sensor)
    rewrite(pair[sensor], patched(value, 0.02), bands=(band,), nodata=value)
    refused(lambda: _bands(pair, sensor), f"{band}.tif", f"{value:g}", "no data", "remove")


LATE = "S2A_MSIL2A_20220613T101031_N{}_R022_T33UUP_26_57"


@pytest.mark.parametrize(("baseline", "refuse"), [("0400", 1), ("0510", 1), ("1000", 1), ("0301", 0), ("9999", 0)])
def test_the_processing_baseline_in_a_name(pair, tmp_path, baseline, refuse):
    name = LATE.format(baseline)
    folder = tmp_path / name
    folder.mkdir()
    for path in pair["s2"].glob("*.tif"):
        shutil.copy(path, folder / f"{name}_{path.stem.split('_')[-1]}.tif")
    assert (first_with_offset([LATE.format("9999"), LATE.format("0214"), name]) == name) is bool(refuse)
    if not refuse:
        assert read_bands(folder, S2)[0]["B02"].any()
        return
    refused(lambda: read_bands(folder, S2), folder, "04.00", "subtract 1000")
    rewrite(folder, lambda x: x + np.uint16(1000), scale=(1e-4, -0.1))
    assert np.array_equal(read_bands(folder, S2)[0]["B02"], _bands(pair, "s2")["B02"])


@pytest.mark.parametrize("maker", [make_reben, make_rico])
def test_late_baselines_are_refused_when_an_archive_is_opened(maker, archive, tmp_path, monkeypatch):
    monkeypatch.setattr("small_archives.v2_name", lambda *parts: v2_name(*parts).replace("N9999", "N0510"))
    root = maker(tmp_path, archive, (0,))
    refused(lambda: open_archive(root), "_N0510_", "subtract 1000")


def shifted(archive: Archive, sensor: str, change: Change) -> Archive:
    """The archive as it would be, had every image of a sensor been changed."""
    read = archive.read

    def changed(index: int, modalities=None) -> Patch:
        patch = read(index, modalities)
        if sensor in patch.bands:
            bands = {band: change(array).astype(array.dtype) for band, array in patch.bands[sensor].items()}
            patch = Patch(patch.name, {**patch.bands, sensor: bands}, patch.labels, patch.meta)
        return patch

    archive.read = changed  # type: ignore[method-assign]
    return archive


@pytest.mark.parametrize(
    ("sensor", "change", "parts"),
    [
        ("s2", lambda x: x + 1000, ("each of 16 pairs", "1000", "04.00", "subtract 1000")),
        ("s2", lambda x: x // 128, ("16 pairs", "8 bits")),
        ("s1", lambda x: x / 100, ("16 pairs", "-3 dB", "10 * log10")),
    ],
)
def test_what_only_an_archive_can_tell_is_refused_before_anything_is_trained(sensor, change, parts):
    spoilt = shifted(open_archive(SAMPLES), sensor, change)
    refused(lambda: PairDataset(spoilt, "train"), SAMPLES, *parts)
    PairDataset(spoilt, "train", modalities=["s1" if sensor == "s2" else "s2"])  # nobody reads the spoilt one


def test_an_offset_in_the_values_of_an_lmdb(archive, tmp_path):
    rows = (0, 1, 6, 15)
    root = make_encoded(tmp_path, archive, rows)
    lmdb = open_archive(root)
    sound = {lmdb.keys(index)["s2"]: lmdb.read(index).bands["s2"] for index in range(len(lmdb))}
    release(root)
    for key, bands in sound.items():
        change_value(root, key, lambda _, bands=bands: pack({band: x + np.uint16(1000) for band, x in bands.items()}))
    refused(lambda: PairDataset(open_archive(root), "all"), root, "each of 4 pairs", "subtract 1000")


def test_the_sample_is_drawn_once_and_a_sound_archive_is_cleared_by_its_first_pair(monkeypatch):
    opened, reads = open_archive(SAMPLES), []
    read = type(opened).read
    monkeypatch.setattr(type(opened), "read", lambda self, *args: reads.append(args) or read(self, *args))
    PairDataset(opened, "train")
    assert len(reads) == 2  # one pair for each sensor
    check_archive(opened)
    check_archive(pickle.loads(pickle.dumps(opened)))
    assert len(reads) == 2


@pytest.mark.parametrize("rows", [(0, 1)])
def test_two_cloudy_pairs_are_no_proof(archive, tmp_path, rows):
    two = shifted(open_archive(make_v1(tmp_path, archive, rows)), "s2", lambda x: x + 1000)
    check_archive(two)


def test_the_doctor_reads_a_sample_and_says_what_it_found(pair, tmp_path, archive, capsys):
    assert main(["doctor", "--check", "-p", "device=cpu"]) == 0
    text = capsys.readouterr().out
    assert "64 of 84 pairs: 0 refused" in text and "further than" not in text
    assert "dB: -5" in text and "reflectance x 10,000: 1" in text and "64 of 64 pairs say where they lie" in text
    (tmp_path / "train.csv").write_text(f"{archive.names[0]},{archive.keys(0)['s1']}\n")
    rewrite(pair["s2"], lambda x: x + np.uint16(3000))
    assert main(["doctor", "--all", "-p", f"data_dir={tmp_path}", "-p", "device=cpu"]) == 0
    text = capsys.readouterr().out
    assert "further than 1 deviation" in text and "B02 by" in text
    rewrite(pair["s1"], patched(-9999))
    assert main(["doctor", "--all", "-p", f"data_dir={tmp_path}", "-p", "device=cpu"]) == 1
    text = capsys.readouterr().out
    assert "1 of 1 pairs: 1 refused, 1 of them for no data" in text and "VV.tif" in text


# ---- headers and places


@pytest.mark.parametrize("shape", [(20_000, 2, 2), (1, 200_000, 200_000)])
def test_sizes_are_refused_from_the_header(pair, shape):
    path = next(pair["s1"].glob("*_VV.tif"))
    path.unlink()
    size = {"count": shape[0], "height": shape[1], "width": shape[2], "dtype": "float32", "SPARSE_OK": True}
    tiles = {"tiled": True, "blockxsize": 16384, "blockysize": 16384} if shape[1] > 2 else {}
    with rasterio.open(path, "w", driver="GTiff", compress="deflate", **size, **tiles):
        pass
    started = time.process_time()
    refused(lambda: read_bands(pair["s1"], S1), path, f"{shape[1]} x {shape[2]} pixels", "120 x 120")
    assert time.process_time() - started < 2


def test_what_is_no_file_is_refused_without_opening_it(pair):
    path = next(pair["s2"].glob("*_B03.tif"))
    for make, what in ((os.mkfifo, "pipe"), (os.mkdir, "folder"), (lambda p: p.symlink_to("/dev/zero"), "device")):
        path.unlink()
        make(path)
        refused(lambda: read_bands(pair["s2"], S2), path, f"is a {what}")
        path.rmdir() if what == "folder" else None
        path.touch() if what == "folder" else None


@pytest.mark.parametrize("code", [34712, 50002, 12345])
def test_a_codec_the_wheel_lacks_is_called_that(pair, code):
    path = next(pair["s1"].glob("*_VH.tif"))
    data = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", data, 4)[0]
    entries = [first + 2 + 12 * entry for entry in range(struct.unpack_from("<H", data, first)[0])]
    place = next(entry for entry in entries if struct.unpack_from("<H", data, entry)[0] == 259)  # Compression
    struct.pack_into("<H", data, place + 8, code)
    path.write_bytes(data)
    refused(lambda: read_bands(pair["s1"], S1), f"{path}: this rasterio cannot decode", "codec", "COMPRESS=DEFLATE")


def moved(metres: float) -> Callable[[rasterio.Affine], rasterio.Affine]:
    return lambda grid: rasterio.Affine.translation(metres, 0) * grid


@pytest.mark.parametrize(
    ("transform", "part"),
    [
        (lambda grid: grid * rasterio.Affine.rotation(10), "rotated"),
        (lambda grid: grid * rasterio.Affine.shear(5), "sheared"),
        (lambda grid: grid * rasterio.Affine.scale(1, -1), "mirrored"),
        (lambda grid: rasterio.Affine(float("nan"), *grid[1:6]), "NaN"),
        (lambda grid: rasterio.Affine(grid.a, 0, float("inf"), 0, grid.e, grid.f), "NaN"),
    ],
)
def test_grids_that_are_none(pair, transform, part):
    rewrite(pair["s2"], same, transform=transform, bands=("B05",))
    refused(lambda: read_bands(pair["s2"], S2), "B05.tif", part)


def test_bands_of_several_places(pair):
    rewrite(pair["s2"], same, bands=("B8A",), transform=moved(1200))
    refused(lambda: read_bands(pair["s2"], S2), "B01.tif", "B8A.tif", "two places")


def test_bands_of_several_reference_systems(pair):
    rewrite(pair["s2"], same, bands=("B8A",), crs=CRS.from_epsg(32601))
    refused(lambda: read_bands(pair["s2"], S2), "B8A.tif", "32601")


@pytest.mark.parametrize("metres", [10, -1200])
def test_a_pair_is_one_place(pair, tmp_path, archive, metres):
    name, s1_name = archive.names[0], archive.keys(0)["s1"]
    (tmp_path / "train.csv").write_text(f"{name},{s1_name}\n")
    place = open_archive(tmp_path).read(0)
    assert (place.crs, place.bounds) == (archive.read(0).crs, archive.read(0).bounds)
    rewrite(pair["s1"], same, transform=moved(4))
    open_archive(tmp_path).read(0)
    rewrite(pair["s1"], same, transform=moved(metres - 4))
    refused(lambda: open_archive(tmp_path).read(0), s1_name, name, "two places")
    open_archive(tmp_path).read(0, ["s1"])
    rewrite(pair["s1"], same, crs=None, transform=lambda grid: rasterio.Affine.identity())
    assert open_archive(tmp_path).read(0).bounds == place.bounds  # what a file does not say is not compared


def test_a_triplet_is_one_place_and_its_bands_are_checked(tmp_path):
    write(tmp_path, TRAIN, igbp((1, 256)))
    path = path_of(tmp_path, TRAIN, "s1")
    archive = open_archive(tmp_path)
    rewrite(path.parent, same, transform=moved(10))
    refused(lambda: archive.read(0), "_s1_", "_s2_", "two places")
    rewrite(path.parent, lambda x: 10 ** (x / 10), transform=moved(-10))
    refused(lambda: archive.read(0), path, "VV", "10 * log10")
    rewrite(path_of(tmp_path, TRAIN, "s2").parent, lambda x: x + np.uint16(1000), scale=(1, -1000))
    assert archive.read(0, ["s2"]).bands["s2"]["B02"][0, 0] == 200
    bands, place = read_images({path_of(tmp_path, TRAIN, "lc"): ("IGBP", "2", "3", "4")}, LAND_COVER, 256)
    assert (bands["IGBP"] == 1).all() and place.crs.to_string() == "EPSG:32631"
