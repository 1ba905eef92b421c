"""Tensors from patches: the one resampling, normalisation, and augmentation that keeps both sensors registered."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, default_collate

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import S1, S2
from fusmae_lite.data import augment as module
from fusmae_lite.data.archives import Patch, open_archive
from fusmae_lite.data.augment import augment
from fusmae_lite.data.pairs import PairDataset, TorchGeoDataset, assemble, denormalise, normalise, stack_bands

SAMPLES = Path(__file__).resolve().parents[2] / "data_samples"


@pytest.fixture(scope="module")
def archive():
    return open_archive(SAMPLES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(batch: int, channels: int, side: int) -> torch.Tensor:
    """Every pixel of an image has its own value, so that a permutation can be told from an interpolation."""
    return torch.arange(batch * channels * side * side, dtype=torch.float32).reshape(batch, channels, side, side)


def test_items_have_the_promised_shapes(archive):
    data = PairDataset(archive)
    assert len(data) == 45 and data.name(0) == archive.names[data.indices[0]]
    item = data[0]
    assert {name: tuple(image.shape) for name, image in item["images"].items()} == {
        "s1": (2, 120, 120),
        "s2": (12, 120, 120),
    }
    assert all(image.dtype == torch.float32 for image in item["images"].values())
    assert item["labels"].dtype == torch.float32 and item["index"] == data.indices[0]
    assert np.array_equal(item["labels"].numpy() == 1, archive.labels[item["index"]])


def test_splits_rows_and_modalities_can_be_chosen(archive):
    assert len(PairDataset(archive, "test")) == len(PairDataset(archive, split="test")) == 18
    chosen = PairDataset(archive, indices=[5, 2], modalities=["s2"], size=60)
    assert [item["index"] for item in (chosen[0], chosen[1])] == [5, 2]
    assert {name: tuple(image.shape) for name, image in chosen[0]["images"].items()} == {"s2": (12, 60, 60)}


def test_physical_units_come_back(archive):
    raw, scaled = PairDataset(archive, normalise=False)[4], PairDataset(archive)[4]
    for modality in (S1, S2):
        image = raw["images"][modality.name]
        torch.testing.assert_close(denormalise(scaled["images"][modality.name], modality), image, rtol=1e-5, atol=2e-3)
        # a 10 m band is the file's own pixels: nothing was resampled or scaled
        band = {"s1": "VH", "s2": "B08"}[modality.name]
        on_disk = archive.read(raw["index"]).bands[modality.name][band]
        assert np.array_equal(image[modality.band_index(band)].numpy(), on_disk.astype(np.float32))


def test_normalise_by_hand():
    image = torch.full((1, 2, 3, 3), -10.0)
    expected = [(-10 + 12.620) / 5.116, (-10 + 19.290) / 5.464]
    assert normalise(image, "s1")[0, :, 1, 1].tolist() == pytest.approx(expected)
    torch.testing.assert_close(denormalise(normalise(image[0], S1), S1), image[0])


def test_the_cache_gives_equal_items_and_reads_once(archive, monkeypatch):
    data, fresh = PairDataset(archive, cache=True), PairDataset(archive)
    first = data[1]
    monkeypatch.setattr(type(archive), "read", lambda *args: pytest.fail("read again"))
    again = data[1]
    assert torch.equal(first["images"]["s2"], again["images"]["s2"])
    again["images"].pop("s1")
    assert "s1" in data[1]["images"]  # an item's dict is the caller's own
    monkeypatch.undo()
    assert torch.equal(fresh[1]["images"]["s1"], first["images"]["s1"])


def test_batches_collate_in_loader_processes(archive):
    loader = DataLoader(PairDataset(archive, indices=range(4)), batch_size=2, num_workers=1)
    batches = list(loader)
    assert [tuple(batch["images"]["s2"].shape) for batch in batches] == [(2, 12, 120, 120)] * 2
    assert torch.cat([batch["index"] for batch in batches]).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [120, 128])
def test_going_up_is_torch_bilinear_band_by_band(size):
    generator = seeded()
    native = {
        band: torch.rand(3, S2.native_side(band), S2.native_side(band), generator=generator) * 4000 for band in S2.bands
    }
    stacked = stack_bands(native, S2, size)
    assert stacked.shape == (3, 12, size, size) and stacked.dtype == torch.float32
    for channel, band in enumerate(S2.bands):
        expected = F.interpolate(native[band][:, None], size=(size, size), mode="bilinear", align_corners=False)
        torch.testing.assert_close(stacked[:, channel], expected[:, 0], rtol=0, atol=1e-3)
        if S2.native_side(band) == size:
            assert torch.equal(stacked[:, channel], native[band])


def test_stack_bands_takes_the_files_own_type_and_any_band_order(archive):
    bands = archive.read(0).bands["s2"]
    native = {band: torch.from_numpy(array)[None] for band, array in reversed(bands.items())}
    assert native["B01"].dtype == torch.uint16
    assert torch.equal(stack_bands(native, "s2")[0], PairDataset(archive, "all", normalise=False)[0]["images"]["s2"])


def areas(side: int, size: int) -> torch.Tensor:
    """(size, side): the share that input pixel j has in output pixel i, from the definition."""
    edges = np.arange(size + 1) * side / size
    pixels = np.arange(side)
    shares = [np.clip(np.minimum(b, pixels + 1) - np.maximum(a, pixels), 0, None) for a, b in pairwise(edges)]
    return torch.from_numpy(np.stack(shares)) * size / side


@pytest.mark.parametrize("size", [60, 40, 50, 7, 1])
def test_going_down_is_the_mean_of_areas(size):
    native = {
        band: torch.rand(2, S2.native_side(band), S2.native_side(band), generator=seeded()) * 4000 for band in S2.bands
    }
    stacked = stack_bands(native, S2, size)
    for channel, band in enumerate(S2.bands):
        side = S2.native_side(band)
        if side > size:
            share = areas(side, size)
            expected = share @ native[band].double() @ share.T
            torch.testing.assert_close(stacked[:, channel].double(), expected, rtol=0, atol=2e-3)
            assert stacked[:, channel].mean().item() == pytest.approx(native[band].mean().item(), abs=1e-2)


@pytest.mark.parametrize("size", [60, 40, 30])
def test_a_checkerboard_becomes_grey(size):
    board = torch.from_numpy(np.indices((120, 120)).sum(axis=0) % 2 * 4000.0)[None]
    image = stack_bands(dict.fromkeys(S2.bands, board), S2, size)
    spread = 0 if 120 // size % 2 == 0 else 4000 / 9 / 2  # 4 or 5 white pixels of 9
    torch.testing.assert_close(image, torch.full_like(image, 2000.0), rtol=0, atol=spread + 1e-3)
    image = stack_bands({"VV": board / 200 - 20, "VH": board * 0 - 12.5}, S1, size)
    if not spread:  # the mean power of 0 and -20 dB is 0.505
        torch.testing.assert_close(image[:, 0], torch.full_like(image[:, 0], -2.967), rtol=0, atol=1e-3)
    torch.testing.assert_close(image[:, 1], torch.full_like(image[:, 1], -12.5))


def test_speckle_is_averaged():
    """Nine looks of exponential power have a ninth of its variance, and its mean is kept: both in linear power."""
    power = torch.from_numpy(np.random.default_rng(0).exponential(0.05, (8, 120, 120)).astype("float32"))
    image = stack_bands({"VV": 10 * power.log10(), "VH": 10 * power.log10()}, S1, 40)
    looks = 10 ** (image / 10)
    assert looks.mean().item() == pytest.approx(power.mean().item(), rel=1e-4)
    assert (looks.var() / power.var()).item() == pytest.approx(1 / 9, rel=0.05)


@pytest.mark.parametrize("size", [120, 50, 40])
def test_one_image_and_a_batch_native_or_not_are_the_same_bits(archive, size):
    single = PairDataset(archive, "val", size=size)
    native = default_collate([PairDataset(archive, "val", native=True)[i]["bands"] for i in range(3)])
    for name, image in assemble(native, size).items():
        assert torch.equal(image, torch.stack([single[i]["images"][name] for i in range(3)]))


class Odd:
    """An archive whose optical bands have the given side, each."""

    root, names, classes = Path("odd"), ("p0",), ("a",)

    def __init__(self, sides: list[int]) -> None:
        self.sides = sides

    def __len__(self) -> int:
        return 1

    def read(self, index, modalities=None):
        bands = {b: np.full((s, s), 500 + s, "uint16") for b, s in zip(S2.bands, self.sides, strict=True)}
        return Patch("p0", {"s2": bands}, (), {})


@pytest.mark.parametrize("sides", [[240, 120] * 6, [20, *[120] * 11], [60, *[120] * 10, 20], [64] * 12])
def test_bands_of_other_sides(sides):
    data = PairDataset(Odd(sides), indices=[0], modalities=["s2"], normalise=False)
    assert data[0]["images"]["s2"].mean(dim=(1, 2)).tolist() == [500 + side for side in sides]
    native = PairDataset(Odd(sides), indices=[0], modalities=["s2"], native=True)
    assert [len(band) for band in native[0]["bands"]["s2"].values()] == sides
    batch = default_collate([native[0]["bands"]])
    assert torch.equal(assemble(batch, normalised=False)["s2"][0], data[0]["images"]["s2"])


def test_upsampled_pixels_stay_where_they_are_on_the_ground():
    native = {band: torch.zeros(1, S2.native_side(band), S2.native_side(band)) for band in S2.bands}
    native["B01"][0, 10, 4] = 1.0  # a 60 m pixel: rows 60..65, columns 24..29 of the 10 m grid
    image = stack_bands(native, S2)[0, 0]
    weight = image / image.sum()
    centre = [(weight.sum(axis) * torch.arange(120)).sum().item() for axis in (1, 0)]
    assert centre == pytest.approx([62.5, 26.5], abs=1e-4)


@pytest.mark.parametrize("kind", ["none", "flips", "crops"])
def test_both_sensors_get_the_same_change(kind):
    image = torch.rand(16, 1, 24, 24, generator=seeded(1))
    out = augment({"s1": image.expand(-1, 2, -1, -1), "s2": image.expand(-1, 12, -1, -1)}, kind, seeded())
    assert out["s1"].shape == (16, 2, 24, 24) and out["s2"].shape == (16, 12, 24, 24)
    for channels in (out["s1"], out["s2"]):
        assert torch.equal(channels, out["s1"][:, :1].expand_as(channels))
    assert torch.equal(out["s1"], image.expand(-1, 2, -1, -1)) == (kind == "none")


def test_flips_move_pixels_and_change_none():
    image = ramp(256, 2, 6)
    out = augment({"s1": image}, "flips", seeded())["s1"]
    assert torch.equal(out.flatten(2).sort().values, image.flatten(2))
    base = image[0, 0]
    turns = [turned for k in range(4) for turned in (torch.rot90(base, k), torch.rot90(base, k).T)]
    seen = set()
    for sample, original in zip(out, image, strict=True):
        offset = original[0, 0, 0]
        matches = [k for k, turned in enumerate(turns) if torch.equal(sample[0] - offset, turned)]
        assert len(matches) == 1 and torch.equal(sample[1] - 36 - offset, turns[matches[0]])
        seen.update(matches)
    assert seen == set(range(8))  # all eight states of the square occur


def test_crops_stay_inside_differ_and_have_the_stated_size():
    side = 48
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    # a pixel's value is its own position, and no value is near 0, which padding would bring in
    place = 100 + torch.stack([rows, columns]).float().expand(400, -1, -1, -1)
    out = augment({"s1": place}, "crops", seeded())["s1"]
    assert out.min() >= 100 and out.max() <= 100 + side - 1
    middle = out[:, :, 12:36, 12:36]  # away from the edges, where the repeated outer half pixel flattens the ramp
    steps = (middle.diff(dim=2).abs().amax(dim=(2, 3)) + middle.diff(dim=3).abs().amax(dim=(2, 3))).mean(1)
    assert 0.5 - 1e-3 <= steps.min() < 0.55 and 0.95 < steps.max() <= 1 + 1e-3
    assert len({sample.numpy().tobytes() for sample in out}) == 400


def test_crops_never_sample_outside_the_image():
    draws = torch.rand(500, 3, generator=seeded(5))
    theta = module._crop_matrices(torch.randint(8, (500,), generator=seeded(6)), draws)
    share, centre = theta[:, :, :2].abs().sum(2), theta[:, :, 2].abs()
    assert (share + centre).max() <= 1 + 1e-6 and centre.max() > 0.4


def test_a_crop_of_full_size_is_a_flip():
    image = torch.rand(8, 3, 20, 20, generator=seeded(2))
    states = torch.arange(8)
    full = module._crop(image, states, torch.ones(8, 3))
    torch.testing.assert_close(full, module._turn(image, states), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["flips", "crops"])
def test_a_seed_gives_the_same_result_and_two_seeds_do_not(kind):
    images = {"s1": ramp(16, 2, 12)}
    first, again, other = (augment(images, kind, seeded(seed))["s1"] for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(images["s1"], ramp(16, 2, 12))  # the input is left alone


def test_the_cache_is_bounded_and_says_so(archive, monkeypatch, capsys):
    first = PairDataset(archive, "val", cache=True, native=True)
    size = sum(x.nbytes for bands in first[0]["bands"].values() for x in bands.values())
    monkeypatch.setattr("fusmae_lite.data.pairs.CACHE_GIB", 2.5 * size / 2**30)
    pairs = PairDataset(archive, "val", cache=True, native=True)
    items = [pairs[i] for i in range(6)]
    assert len(pairs._cache) == 3 and capsys.readouterr().out.count("keeps 3 of") == 1
    assert all(torch.equal(pairs[i]["bands"]["s1"]["VV"], item["bands"]["s1"]["VV"]) for i, item in enumerate(items))


def test_samples_of_torchgeos_form(archive):
    data, pairs = TorchGeoDataset(archive, "val", size=30, cache=True), PairDataset(archive, "val", size=30)
    batch = next(iter(DataLoader(data, batch_size=3)))
    assert set(batch) == {"image", "label", "crs", "bbox"} and batch["label"].dtype == torch.int64
    for i in range(3):
        item, row = pairs[i], int(pairs.indices[i])
        assert torch.equal(batch["image"][i, :2], item["images"]["s1"])
        assert torch.equal(batch["image"][i, 2:], item["images"]["s2"])
        assert torch.equal(batch["label"][i], item["labels"].long()) and batch["label"][i].any()
        patch = archive.read(row)
        assert batch["crs"][i] == patch.crs and tuple(batch["bbox"][i].tolist()) == patch.bounds
    assert all(torch.equal(data[0][name], batch[name][0]) for name in ("image", "label", "bbox"))
    assert set(pairs[0]) == {"images", "labels", "index"}


def test_samples_of_one_sensor_in_physical_units_and_of_no_place(archive, monkeypatch):
    data = TorchGeoDataset(archive, "val", modalities=("s1",), normalise=False)
    assert data[0]["image"].shape == (2, 120, 120) and data[0]["image"].mean() < -5
    read = archive.read
    monkeypatch.setattr(archive, "read", lambda *which: replace(read(*which), crs=None, bounds=None))
    assert data[0]["crs"] == "" and data[0]["bbox"].isnan().all()
    with pytest.raises(InputError, match="native"):
        TorchGeoDataset(archive, native=True)
