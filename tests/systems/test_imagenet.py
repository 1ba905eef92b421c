"""ImageNet's ViT on other channels: timm's fitting checked by hand, weights never random unasked."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from fusmae_lite.core.config import load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.systems import build_model, imagenet_encoder

NAME = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file as ImageNet's would be: 3 channels, patches of 16 pixels, a grid of 14 x 14, a head of 1000 classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("imagenet") / "vit.safetensors"
    save_file(timm.create_model(NAME).state_dict(), path)
    return path


@pytest.mark.parametrize("sensors", [("s1",), ("s2",), ("s1", "s2")])
def test_a_checkpoint_is_fitted_to_the_channels_and_the_grid(checkpoint, sensors):
    bands = {"s1": 2, "s2": 12}
    model = imagenet_encoder(sensors, checkpoint, NAME, patch_size=16, image_size=112)
    channels = sum(bands[name] for name in sensors)
    original = timm.create_model(NAME)
    timm.models.load_checkpoint(original, str(checkpoint))
    kernel, rgb = model.vit.patch_embed.proj.weight, original.patch_embed.proj.weight
    expected = torch.cat([rgb] * 5, dim=1)[:, :channels] * (3 / channels)
    assert torch.allclose(kernel, expected, atol=1e-5)
    assert torch.equal(model.vit.blocks[3].mlp.fc1.weight, original.blocks[3].mlp.fc1.weight)
    assert model.vit.pos_embed.shape == (1, 1 + 49, 192)
    images = {name: torch.randn(2, bands[name], 112, 112) for name in sensors}
    with torch.no_grad():
        latents = model.encode(images)
    assert latents.pooled().shape == latents.pooled("cls").shape == (2, 192)
    assert not torch.equal(latents.pooled(), latents.pooled("cls"))
    assert model.config.width == 192 and model.title == "ImageNet"


def test_weights_are_random_only_when_asked(monkeypatch):
    def offline(*_, pretrained=False, **__):
        raise OSError("no route to host\nand more")

    first, again, other = (imagenet_encoder(("s1",), "random", NAME, seed=seed) for seed in (0, 0, 1))
    assert first.vit.pos_embed.shape == (1, 1 + 225, 192)
    weight = "vit.blocks.0.attn.qkv.weight"
    assert torch.equal(first.state_dict()[weight], again.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match="neither found nor fetched .no route to host.*weights='random'") as caught:
        imagenet_encoder(("s1",), name=NAME)
    assert "\n" not in str(caught.value)


def test_misfits_are_refused(checkpoint, tmp_path):
    with pytest.raises(InputError, match="no weights at"):
        imagenet_encoder(("s1",), tmp_path / "absent.pth", NAME)
    with pytest.raises(InputError, match="does not hold the weights"):
        imagenet_encoder(("s1",), checkpoint, "vit_small_patch16_224")
    with pytest.raises(InputError, match="has no ViT"):
        imagenet_encoder(("s1",), "random", "resnet18")
    model = imagenet_encoder(("s1",), "random", NAME)
    with pytest.raises(InputError, match="this model takes s1"):
        model.encode({"s1": torch.zeros(1, 2, 120, 120), "s2": torch.zeros(1, 12, 120, 120)})
    with pytest.raises(InputError, match="not pretrained here"):
        build_model(load_preset("smoke", system="imagenet"))
