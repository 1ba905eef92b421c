"""What the model promises beyond the equations: nothing leaks, every path agrees, every parameter learns."""

from __future__ import annotations

import pytest
import torch

from fusmae_lite.core.config import ModelConfig, load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import S1, Modality, get_modality, register
from fusmae_lite.model.cross_attention import CrossAttention
from fusmae_lite.model.fusmae import FusMAE, masked_mse
from fusmae_lite.model.masking import cloud_shapes, consistent_masks, independent_masks, sample_masks, visible_indices
from fusmae_lite.model.tokens import PatchProjection, patchify, unpatchify

FUSIONS = ("xae", "xad", "both", "none")
SMALL = {"image_size": 40, "width": 16, "depth": 3, "heads": 4, "decoder_width": 8, "decoder_heads": 2}


def make(fusion: str = "xae", **changes) -> FusMAE:
    torch.manual_seed(0)
    return FusMAE(ModelConfig(**{**SMALL, "fusion": fusion, **changes})).eval()


def pair(batch: int, side: int = 40) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    return {
        "s1": torch.randn(batch, 2, side, side, generator=rng),
        "s2": torch.randn(batch, 12, side, side, generator=rng),
    }


def masks_for(model: FusMAE, batch: int, strategy: str) -> dict[str, torch.Tensor]:
    c = model.config
    return sample_masks(strategy, batch, c.tokens, c.kept, c.modalities, torch.Generator().manual_seed(4))


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("strategy", ["independent", "consistent", "cloud"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_masked_pixels_never_reach_the_encoder(fusion, strategy, batch):
    model, images = make(fusion), pair(batch)
    masks = masks_for(model, batch, strategy)
    changed = {}
    for name, image in images.items():
        patches = patchify(image, model.config.patch_size)
        patches = torch.where(masks[name].unsqueeze(-1), torch.full_like(patches, float("nan")), patches)
        changed[name] = unpatchify(patches, model.config.patch_size, image.shape[1])
        assert changed[name].isnan().any()
    before, after = model.encode(images, masks), model.encode(changed, masks)
    assert torch.equal(before.cls, after.cls)
    for name in images:
        assert torch.equal(before.tokens[name], after.tokens[name])
        assert torch.equal(model(images, masks).patches[name], model(changed, masks).patches[name])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_visible_pixel_does_reach_both_sensors(fusion):
    model, images = make(fusion), pair(1)
    masks = masks_for(model, 1, "independent")
    before = model.encode(images, masks)
    row, column = divmod(int(visible_indices(masks["s1"])[0, 0]), model.config.grid)
    images["s1"][0, 0, row * 8, column * 8] += 1
    after = model.encode(images, masks)
    assert not torch.equal(before.tokens["s1"], after.tokens["s1"])
    assert not torch.equal(before.tokens["s2"], after.tokens["s2"])


def test_fused_and_unfused_cross_attention_agree():
    torch.manual_seed(0)
    ca, x, y = CrossAttention(32, 4).double(), torch.randn(2, 5, 32).double(), torch.randn(2, 9, 32).double()
    assert torch.allclose(ca(x, y), ca.forward_unfused(x, y), atol=1e-12)
    assert torch.allclose(ca.map(x, y).sum(-1), torch.ones(2, 4, 5).double())


def test_self_attention_maps_reproduce_timm_block():
    model = make("none").double()
    block, x = model.blocks[0], torch.randn(2, 7, 16).double()
    weights = block.attn.map(block.norm1(x), block.norm1(x))
    value = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)[2]
    attended = block.attn.proj((weights @ value).transpose(1, 2).flatten(2))
    assert torch.allclose(attended, block.attn(block.norm1(x)), atol=1e-12)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_attention_maps_shapes_and_sums(fusion):
    model, images = make(fusion), pair(2)
    maps = model.attention_maps(images)
    n = model.config.tokens
    early, late = fusion in ("xae", "both"), fusion in ("xad", "both")
    assert set(maps["cross"]) == ({"s1", "s2"} if early else set())
    assert set(maps["decoder"]) == ({"s1", "s2"} if late else set())
    assert len(maps["self"]) == model.config.depth - int(early)
    for weights in (*maps["cross"].values(), *maps["decoder"].values()):
        assert weights.shape == (2, 4, n, n)
        assert torch.allclose(weights.sum(-1), torch.ones(2, 4, n))
    for weights in maps["self"]:
        assert weights.shape == (2, 4, 2 * n + 1, 2 * n + 1)
    assert maps["slices"] == {"s1": slice(0, n), "s2": slice(n, 2 * n), "cls": slice(2 * n, 2 * n + 1)}


@pytest.mark.parametrize("positions", ["sincos", "learned"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_reach_every_parameter(fusion, positions):
    model = make(fusion, positions=positions).train()
    model(pair(2), generator=torch.Generator().manual_seed(0)).loss.backward()
    for name, parameter in model.named_parameters():
        fixed = positions == "sincos" and name.endswith("positions.table")
        assert parameter.requires_grad != fixed, name
        if not fixed:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("present", [("s1",), ("s2",), ("s1", "s2")])
def test_any_subset_of_sensors_encodes_and_reconstructs(fusion, present):
    model = make(fusion)
    images = {name: image for name, image in pair(3).items() if name in present}
    latents = model.encode(images)
    assert tuple(latents.tokens) == present
    assert latents.pooled("mean").shape == latents.pooled("cls").shape == (3, 16)
    assert set(model(images).losses) == set(present)


def test_order_of_the_dict_does_not_matter():
    model, images = make(), pair(2)
    swapped = {name: images[name] for name in ("s2", "s1")}
    assert torch.equal(model.encode(images).cls, model.encode(swapped).cls)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_three_sensors(fusion):
    with pytest.raises(InputError, match="unknown modality 'dem'"):
        get_modality("dem")  # no other test has left it behind
    register(Modality("dem", "Elevation", ("height",), (10,), "m", "float32", (300.0,), (200.0,)))
    model = make(fusion, modalities=("s1", "s2", "dem"))
    images = {**pair(2), "dem": torch.randn(2, 1, 40, 40)}
    result = model(images)
    result.loss.backward()
    assert set(result.losses) == {"s1", "s2", "dem"}
    before = model.encode(images).tokens["s1"]
    images["dem"] = images["dem"] + 1
    assert not torch.equal(before, model.encode(images).tokens["s1"])


@pytest.mark.parametrize("draw", [independent_masks, consistent_masks])
def test_masks_keep_exactly_a_quarter_and_follow_the_seed(draw):
    config = ModelConfig()
    assert (config.tokens, config.kept) == (225, 56)
    first, second = (draw(64, 225, 56, ("s1", "s2"), torch.Generator().manual_seed(5)) for _ in range(2))
    for name in ("s1", "s2"):
        assert ((~first[name]).sum(1) == 56).all()
        assert torch.equal(first[name], second[name])
    assert torch.equal(first["s1"], first["s2"]) == (draw is consistent_masks)
    shares = (~first["s1"]).float().mean(0)  # every position is drawn about equally often
    assert shares.min() > 0.02 and shares.max() < 0.6


def test_loss_counts_masked_patches_only():
    target, prediction = torch.zeros(1, 4, 2), torch.tensor([[[1.0, 1.0], [3.0, 3.0], [5.0, 5.0], [7.0, 7.0]]])
    mask = torch.tensor([[True, False, True, False]])
    assert masked_mse(prediction, target, mask) == pytest.approx((1 + 25) / 2)


def test_normalised_targets_have_zero_mean_and_unit_variance():
    target = make(normalize_target=True).target(pair(2)["s2"])
    assert torch.allclose(target.mean(-1), torch.zeros(2, 25), atol=1e-5)
    assert torch.allclose(target.var(-1), torch.ones(2, 25), atol=1e-3)


def test_patches_fold_back_and_projection_is_the_convolution():
    images = pair(2)["s2"]
    assert torch.equal(unpatchify(patchify(images, 8), 8, 12), images)
    projection = PatchProjection(12, 16, 8)
    expected = projection.proj(images).flatten(2).transpose(1, 2)
    assert torch.allclose(projection(images), expected, atol=1e-5)
    index = torch.tensor([[3, 7], [0, 24]])
    assert torch.allclose(projection(images, index)[1], expected[1, [0, 24]], atol=1e-5)


def test_paste_back_keeps_what_was_visible():
    model, images = make(), pair(2)
    masks = masks_for(model, 2, "independent")
    result = model(images, masks)
    pasted, raw = (patchify(result.images(paste_visible=paste)["s1"], 8) for paste in (True, False))
    original = patchify(images["s1"], 8)
    assert torch.equal(pasted[~masks["s1"]], original[~masks["s1"]])
    assert torch.equal(pasted[masks["s1"]], raw[masks["s1"]])
    assert not torch.equal(raw[~masks["s1"]], original[~masks["s1"]])


@pytest.mark.parametrize(("fusion", "millions"), [("xae", 91.9), ("xad", 103.7), ("both", 106.1), ("none", 89.5)])
def test_paper_size(fusion, millions):
    with torch.device("meta"):
        model = FusMAE(load_preset("paper", fusion=fusion).architecture())
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count / 1e6 == pytest.approx(millions, abs=0.05)
    assert len(model.blocks) == (11 if fusion in ("xae", "both") else 12)


BAD = {
    "unknown sensor": (lambda m, x, k: m.encode({**x, "s3": x["s1"]}), "s3"),
    "no sensor": (lambda m, x, k: m.encode({}), "no modality"),
    "wrong channels": (lambda m, x, k: m.encode({"s1": x["s2"]}), "images['s1']"),
    "wrong side": (lambda m, x, k: m.encode(pair(1, side=48)), "40"),
    "no mask for s2": (lambda m, x, k: m.encode(x, {"s1": k["s1"]}), "s2"),
    "mask of floats": (lambda m, x, k: m.encode(x, {**k, "s1": k["s1"].float()}), "bool"),
    "mask of another length": (lambda m, x, k: m.encode(x, {**k, "s1": k["s1"][:, :-1]}), "(2, 25)"),
    "everything masked": (lambda m, x, k: m.encode(x, {**k, "s1": torch.ones_like(k["s1"])}), "at least one"),
    "unequal rows": (lambda m, x, k: m.encode(x, {**k, "s1": _unequal(k["s1"])}), "same number"),
    "unknown pooling": (lambda m, x, k: m.encode(x).pooled("max"), "max"),
    "unknown masking": (lambda m, x, k: sample_masks("blocks", 1, 4, 1, ["s1"]), "blocks"),
    "patch size": (lambda m, x, k: patchify(x["s1"], 16), "16"),
}


def _unequal(mask: torch.Tensor) -> torch.Tensor:
    mask = mask.clone()
    mask[0, visible_indices(mask)[0, 0]] = True
    return mask


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_names_it(case):
    model, images = make(), pair(2)
    act, named = BAD[case]
    with pytest.raises(InputError) as caught:
        act(model, images, masks_for(model, 2, "independent"))
    message = str(caught.value)
    assert named in message and "\n" not in message and ";" in message


def test_sensor_table_is_consistent():
    assert S1.native_side("VV") == 120 and S1.band_index("VH") == 1
    with pytest.raises(InputError, match="B10"):
        S1.band_index("B10")
    with pytest.raises(InputError, match="taken"):
        register(Modality("s1", "Other", ("x",), (10,), "", "float32", (0.0,), (1.0,)))
    with pytest.raises(InputError, match="give one each"):
        Modality("odd", "Odd", ("x", "y"), (10,), "", "float32", (0.0,), (1.0,))


def test_a_cloud_hides_one_area_of_optical_sensors_and_leaves_radar_its_own_draw():
    masks = sample_masks("cloud", 20, 225, 56, ("s1", "s2"), torch.Generator().manual_seed(0))
    again = sample_masks("cloud", 20, 225, 56, ("s1", "s2"), torch.Generator().manual_seed(0))
    edges = {}
    for name, mask in masks.items():
        assert (mask.sum(dim=1) == 169).all() and torch.equal(mask, again[name])
        assert len({tuple(row.tolist()) for row in mask}) > 15
        grid = mask.view(-1, 15, 15)
        edges[name] = sum(grid.diff(dim=side).sum() for side in (1, 2)) / 20
    assert edges["s2"] < edges["s1"] / 3  # few borders between hidden and visible
    assert set(sample_masks("cloud", 1, 4, 1, ["s2"])) == {"s2"}


@pytest.mark.parametrize("hidden", [0, 1, 7, 8, 9])
def test_cloud_shapes_have_the_size_asked_for(hidden):
    shapes = cloud_shapes(5, 9, hidden, torch.Generator().manual_seed(1))
    assert shapes.dtype == torch.bool and shapes.shape == (5, 9) and (shapes.sum(dim=1) == hidden).all()
