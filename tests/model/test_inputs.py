"""Images given to a model are checked in one place, whichever system it is and whichever way they come in."""

from functools import partial

import numpy as np
import pytest
import torch
from small_archives import refused

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.sensors import S1, S2
from fusmae_lite.data.pairs import PairDataset, normalise
from fusmae_lite.model.inputs import _check_values
from fusmae_lite.systems import build_model
from fusmae_lite.systems.imagenet import imagenet_encoder

SMALL = {"image_size": 40, "width": 16, "depth": 2, "heads": 2, "decoder_width": 8, "decoder_heads": 2}
SYSTEMS = ("fusmae", "late", "satvit", "dino", "imagenet")


def make(system: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if system == "imagenet":
        return imagenet_encoder(weights="random", image_size=40, patch_size=8, size=(16, 2, 2))
    return build_model(ModelConfig(system=system, **SMALL)).eval()


MODELS = {system: make(system) for system in SYSTEMS}


def pair(batch: int = 3) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {m.name: torch.randn(batch, m.channels, 40, 40, generator=rng) for m in (S1, S2)}


def ways(system: str):
    """Every way by which images come into a model of this system."""
    model = MODELS[system]
    yield model.encode
    if system != "imagenet":
        yield model
    if system == "fusmae":
        yield model.embed
        yield model.attention_maps


def with_value(value: float, name: str = "s1") -> dict[str, torch.Tensor]:
    images = pair()
    images[name][2, 1, 5, 6] = value
    return images


#: What is given, and parts of the message.
BAD = {
    "NaN": (lambda: with_value(float("nan")), ("'s1'", "NaN", "sample 2")),
    "infinite": (lambda: with_value(float("-inf"), "s2"), ("'s2'", "sample 2")),
    "no data left in": (lambda: with_value((-9999 + 19.29) / 5.464), ("'s1'", "VH", "normalise")),
    "reflectances": (lambda: {**pair(), "s2": 300 + 900 * torch.rand(3, 12, 40, 40)}, ("'s2'", "B01", "normalise")),
    "decibels": (lambda: {**pair(), "s1": -16 + pair()["s1"] * 4}, ("'s1'", "VV", "normalise")),
    "as on disk": (
        lambda: {"s2": torch.full((3, 12, 40, 40), 700, dtype=torch.uint16)},
        ("'s2'", "uint16", "normalise"),
    ),
    "whole numbers in NumPy": (lambda: {"s1": np.ones((3, 2, 40, 40), "int64")}, ("'s1'", "int64")),
    "objects": (lambda: {"s1": np.full((3, 2, 40, 40), None)}, ("'s1'", "object")),
    "yes and no": (lambda: {"s1": torch.ones(3, 2, 40, 40, dtype=torch.bool)}, ("'s1'", "bool")),
    "a list": (lambda: {"s1": [1.0]}, ("'s1'", "list")),
    "no dict": (lambda: pair()["s1"], ("Tensor", "dict")),
    "other numbers of samples": (lambda: {**pair(), "s2": pair(2)["s2"]}, ("3 of s1", "2 of s2")),
    "no sample": (lambda: pair(0), ("no sample",)),
    "NaN in float16": (lambda: {k: v.half() for k, v in with_value(float("nan")).items()}, ("NaN", "sample 2")),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("system", SYSTEMS)
def test_bad_images_are_refused_in_one_line_by_every_way_in(system, case):
    images, parts = BAD[case]
    for way in ways(system):
        given = images()
        if system == "imagenet" and isinstance(given, dict):  # fitted to exactly its sensors
            given = {**pair(), **given}
        with torch.no_grad():
            refused(partial(way, given), *parts)


@pytest.mark.parametrize("system", SYSTEMS)
def test_other_precisions_and_numpy_are_the_same_images(system):
    model, images = MODELS[system], pair()
    with torch.no_grad():
        plain = model.encode(images).pooled()
        for change in (
            lambda x: x.double(),
            lambda x: x.numpy(),
            lambda x: x.double().numpy(),
            lambda x: x.numpy().astype(">f4"),
            lambda x: np.asfortranarray(x.numpy()),
        ):
            assert torch.equal(model.encode({k: change(v) for k, v in images.items()}).pooled(), plain)
        half = model.encode({k: v.half() for k, v in images.items()}).pooled()
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, plain, atol=2e-2, rtol=0)


def test_a_model_of_another_precision_takes_what_it_can():
    model = make("fusmae").double()
    with torch.no_grad():
        assert model.encode(pair()).pooled().dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert MODELS["fusmae"].encode({k: v.double() for k, v in pair().items()}).cls.isfinite().all()


def test_every_bundled_pair_passes_and_none_of_them_in_physical_units(archive):
    black = 41  # water under a low sun: hardly a pixel above 1 in 10,000
    for item in PairDataset(archive, "all", normalise=False):
        for modality in (S1, S2):
            image = item["images"][modality.name][None]
            _check_values(normalise(image, modality), modality)
            if (item["index"], modality) != (black, S2):
                refused(partial(_check_values, image, modality), modality.name)


def test_hidden_pixels_may_be_anything_and_visible_ones_not():
    model = MODELS["fusmae"]
    mask = torch.ones(3, 25, dtype=torch.bool)
    mask[:, 5:11] = False
    masks, images = {"s1": mask, "s2": mask}, pair()
    images["s1"][2, 0, 0, 0] = torch.nan  # in patch 0
    assert model.encode(images, masks).cls.isfinite().all()
    images["s1"][2, 0, 8, 0] = torch.nan  # in patch 5, the first of the second row
    refused(lambda: model.encode(images, masks), "'s1'", "NaN", "sample 2")


def test_a_gpu_is_not_asked_for_values_in_training(monkeypatch):
    """A stand-in for a parameter on a GPU: the check must not read a value, which would make the processor wait."""
    from fusmae_lite.model import inputs

    looked: list[str] = []
    monkeypatch.setattr(inputs, "_check_values", lambda image, modality: looked.append(modality.name))
    model = make("fusmae")
    model.train()(pair())
    assert looked == ["s1", "s2"]
    monkeypatch.setattr(torch.nn.Parameter, "is_cuda", property(lambda self: True), raising=False)
    inputs.check_images(pair(), model)
    assert looked == ["s1", "s2"]
    inputs.check_images(pair(), model.eval())
    assert looked == ["s1", "s2"] * 2


def test_a_model_without_memory_takes_images_without_memory():
    config = ModelConfig(image_size=16, width=16, depth=2, heads=2, decoder_width=16, decoder_heads=2)
    with torch.device("meta"):
        model, images = build_model(config), {"s1": torch.empty(2, 2, 16, 16), "s2": torch.empty(2, 12, 16, 16)}
        assert model.encode(images).cls.shape == (2, 16)
