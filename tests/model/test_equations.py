"""Equations 1-11 against the independent NumPy computation of paper_reference.py, in float64."""

from __future__ import annotations

import numpy as np
import paper_reference as paper
import pytest
import torch

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.model.masking import sample_masks, visible_indices

FUSIONS = ("xae", "xad", "both", "none")
SMALL = {"image_size": 24, "width": 16, "depth": 3, "heads": 4, "decoder_width": 8, "decoder_heads": 2}
TOLERANCE = 1e-12


def build(fusion: str, masking: str = "independent"):
    """A small model with every weight drawn at random (no zeros or ones that would hide an error), and its inputs."""
    torch.manual_seed(1)
    model = FusMAE(ModelConfig(fusion=fusion, masking=masking, **SMALL)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
        # The package stores positions in single precision; the comparison is about the equations, not about that.
        for module in model.modules():
            if type(module).__name__ == "Positions":
                module.table.copy_(torch.from_numpy(paper.sincos(model.config.grid, module.table.shape[1])))
    images = {"s1": torch.randn(2, 2, 24, 24).double(), "s2": torch.randn(2, 12, 24, 24).double()}
    masks = sample_masks(
        masking, 2, model.config.tokens, model.config.kept, ("s1", "s2"), torch.Generator().manual_seed(2)
    )
    return model, images, masks, {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def sample(images, masks, b):
    arrays = {name: image[b].numpy() for name, image in images.items()}
    return arrays, {name: visible_indices(mask)[b].tolist() for name, mask in masks.items()}


def deviation(a, b) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def test_positions_are_the_textbook_table():
    model = FusMAE(ModelConfig(**SMALL))
    assert deviation(model.positions.table.detach(), paper.sincos(model.config.grid, 16)) < 1e-6


def test_eq_1_tokens():
    model, images, masks, w = build("none")
    tokens = model.embed(images, masks)
    for b in range(2):
        arrays, visible = sample(images, masks, b)
        for name in ("s1", "s2"):
            expected = paper.input_tokens(w, arrays[name], name, visible[name], model.config.grid)
            assert deviation(tokens[name][b].detach(), expected) < TOLERANCE


def test_eqs_4_5_cross_attention():
    model, _, _, w = build("xae")
    x, y = torch.randn(1, 5, 16).double(), torch.randn(1, 7, 16).double()
    got = model.xattn_encoder.attentions["s1"](x, y)[0].detach()
    expected = paper.cross_attention(w, "xattn_encoder.attentions.s1", x[0].numpy(), y[0].numpy(), 4)
    assert deviation(got, expected) < TOLERANCE


def test_eqs_2_3_xattn_encoder():
    model, _, _, w = build("xae")
    x, y = torch.randn(1, 5, 16).double(), torch.randn(1, 7, 16).double()
    got = model.xattn_encoder({"s1": x, "s2": y})[0].detach()
    expected = paper.xattn_encoder(w, "xattn_encoder", x[0].numpy(), y[0].numpy(), 4)
    assert deviation(got, expected) < TOLERANCE


def test_eqs_10_11_xattn_decoder():
    model, _, _, w = build("xad")
    z = {"s1": torch.randn(1, 5, 16).double(), "s2": torch.randn(1, 7, 16).double()}
    got = model.xattn_decoder(z)
    for mine, other in (("s1", "s2"), ("s2", "s1")):
        expected = paper.xattn_decoder(w, "xattn_decoder", mine, z[mine][0].numpy(), other, z[other][0].numpy(), 4)
        assert deviation(got[mine][0].detach(), expected) < TOLERANCE


@pytest.mark.parametrize("fusion", FUSIONS)
def test_eqs_6_8_encoder(fusion):
    model, images, masks, w = build(fusion)
    latents = model.encode(images, masks).tokens
    for b in range(2):
        expected = paper.encoder(w, *sample(images, masks, b), model.config)
        for name, z in zip(("s1", "s2"), expected, strict=True):
            assert deviation(latents[name][b].detach(), z) < TOLERANCE


@pytest.mark.parametrize("masking", ["independent", "consistent"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_section_3_from_pixels_to_loss(fusion, masking):
    model, images, masks, w = build(fusion, masking)
    result = model(images, masks)
    losses = []
    for b in range(2):
        predictions, loss = paper.forward(w, *sample(images, masks, b), model.config)
        losses.append(loss)
        for name, expected in predictions.items():
            assert deviation(result.patches[name][b].detach(), expected) < TOLERANCE
    assert float(result.loss.detach()) == pytest.approx(np.mean(losses), rel=1e-12)
