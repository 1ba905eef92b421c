"""What a step of pretraining shows, the attention it computes, and the interpolations it is held against."""

from __future__ import annotations

import dataclasses
import importlib
import json

import numpy as np
import pytest
import torch
from conftest import TINY
from safetensors.torch import save_file
from timm.layers import Attention, build_sincos2d_pos_embed
from torch.nn import functional as F
from torch.utils.data import default_collate

from fusmae_lite.core.config import load_preset, project_root
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.seeding import derive
from fusmae_lite.data.augment import draw_jitter, jitter
from fusmae_lite.data.pairs import assemble
from fusmae_lite.evaluation import heldout_losses
from fusmae_lite.model.cross_attention import CrossAttention, SelfAttention
from fusmae_lite.model.masking import draw_together, sample_masks
from fusmae_lite.model.tokens import Positions
from fusmae_lite.systems import build_model
from fusmae_lite.systems.tensors import read_tensors
from fusmae_lite.systems.weights import load_model, save_model
from fusmae_lite.train.distributed import Processes, check_batch
from fusmae_lite.train.heldout import Hidden, choose_interpolations, hidden_pairs
from fusmae_lite.train.pretrain import pretrain
from fusmae_lite.train.showing import Showing


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_positions_have_a_temperature():
    assert torch.equal(Positions(15, 64).table, build_sincos2d_pos_embed([15, 15], 64))
    assert torch.equal(Positions(15, 64, temperature=20).table, build_sincos2d_pos_embed([15, 15], 64, temperature=20))
    for system in ("fusmae", "satvit", "dino"):
        tables = [
            build_model(load_preset("smoke", system=system, position_temperature=t, positions="sincos")).state_dict()
            for t in (20, 10_000)
        ]
        names = [name for name in tables[0] if name.endswith("positions.table")]
        assert names and not any(torch.equal(tables[0][name], tables[1][name]) for name in names)


def test_weights_older_than_the_temperature_have_the_usual_one(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, build_model(load_preset("smoke", position_temperature=20)))
    assert load_model(path).config.position_temperature == 20
    save_model(path, build_model(load_preset("smoke", position_temperature=10_000)))
    tensors, metadata = read_tensors(path)
    config = json.loads(metadata["config"])
    del config["position_temperature"]
    del metadata["digest"]  # older still
    save_file(tensors, path, {**metadata, "config": json.dumps(config)})
    assert load_model(path).config.position_temperature == 10_000
    with pytest.raises(InputError, match="position_temperature"):
        load_model(path, load_preset("smoke", position_temperature=20))


@pytest.mark.parametrize("shapes", [(7, 7), (5, 9)])
def test_attention_is_the_same_whichever_kernel_computes_it(shapes):
    attention = CrossAttention(24, 3)
    x, y = (torch.randn(2, n, 24, generator=seeded(i)) for i, n in enumerate(shapes))
    fused = F.scaled_dot_product_attention(*attention.split(x, y)).transpose(1, 2).flatten(2)
    exact = attention.proj(fused)
    assert torch.equal(attention(x, y), exact)
    half = attention.bfloat16()(x.bfloat16(), y.bfloat16())
    assert half.dtype == torch.bfloat16 and torch.allclose(half.float(), exact, atol=0.03)


def test_on_the_processor_bf16_takes_two_products_and_fp32_the_fused_kernel(monkeypatch):
    model = build_model(load_preset("smoke"))
    images = {"s1": torch.zeros(1, 2, 120, 120), "s2": torch.zeros(1, 12, 120, 120)}
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *_, **__: pytest.fail("the fused kernel"))
    with torch.autocast("cpu", torch.bfloat16):
        model(images).loss.backward()
    with pytest.raises(pytest.fail.Exception, match="fused"):
        model(images)


def test_self_attention_is_timms():
    ours, theirs = (kind(16, 2, qkv_bias=True) for kind in (SelfAttention, Attention))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 5, 16, generator=seeded())
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


def test_sensor_dropout_shows_all_together_or_each_alone():
    both, alone, rng = [("s1", "s2")], [("s1",), ("s2",)], seeded()
    assert all(draw_together(both[0], 0.0, rng) == both for _ in range(20))
    assert all(draw_together(both[0], 1.0, rng) == alone for _ in range(20))
    assert draw_together(("s2",), 1.0, rng) == [("s2",)]
    drawn = [draw_together(both[0], 0.3, rng) for _ in range(1000)]
    assert 0.65 < np.mean([found == both for found in drawn]) < 0.75 and alone in drawn


def test_a_step_of_sensors_alone_is_the_loss_of_each_alone(tiny, archive):
    """Also that each counts once, whatever the batch is cut into."""
    result = pretrain(tiny.model_copy(update={"sensor_dropout": 1.0, "max_steps": 1, "accumulate": 2}), archive, True)
    weights = load_model(result.checkpoint / "model.safetensors").state_dict()
    torch.manual_seed(derive("initialise", tiny.seed))
    model = build_model(tiny).train()
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moved = {name for name in fresh if not torch.equal(fresh[name], weights[name])}
    still = {name for name in fresh if ".attentions." in name and name.endswith("q.bias")}
    assert still and not still & moved and any(name.startswith("projections.s1") for name in moved)
    state = json.loads((result.checkpoint / "state.json").read_text())
    assert state["sums"]["loss"] == pytest.approx(state["sums"]["loss_s1"] + state["sums"]["loss_s2"])
    assert 1 < state["sums"]["loss_s1"] < 10  # a mean over the batch, once


def weights_after(config, archive, folder, **changes):
    """Weights and sums after one step in a folder of its own."""
    config = config.model_copy(update={"max_steps": 1, "run_dir": str(folder), **changes})
    result = pretrain(config, archive, True)
    return load_model(result.checkpoint / "model.safetensors").state_dict(), json.loads(
        (result.checkpoint / "state.json").read_text()
    )["sums"]


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_a_sensor_without_weight_teaches_its_decoder_nothing(tiny, archive, tmp_path, dropout):
    changes = {"sensor_dropout": dropout, "weight_decay": 0.0}
    plain, sums = weights_after(tiny, archive, tmp_path / "plain", **changes)
    light, weighted = weights_after(tiny, archive, tmp_path / "light", loss_weights={"s1": 0.0}, **changes)
    torch.manual_seed(derive("initialise", tiny.seed))
    fresh = build_model(tiny).state_dict()
    still = {
        name for name in fresh if torch.equal(fresh[name], light[name]) and not torch.equal(fresh[name], plain[name])
    }
    assert {name for name in still if name.startswith("decoders.s1")} and not any("decoders.s2" in n for n in still)
    assert weighted["loss"] == pytest.approx(sums["loss_s2"]) and weighted["loss_s1"] == pytest.approx(sums["loss_s1"])


def test_weights_of_losses_identify_a_run(tiny, archive, tmp_path):
    weights_after(tiny, archive, tmp_path / "run")
    with pytest.raises(InputError, match="loss_weights"):
        weights_after(tiny, archive, tmp_path / "run", loss_weights={"s2": 3.0})
    _, sums = weights_after(tiny, archive, tmp_path / "more", loss_weights={"s1": 3.0, "s2": 0.5})
    assert sums["loss"] == pytest.approx(3 * sums["loss_s1"] + 0.5 * sums["loss_s2"])


def test_dino_drops_sensors_its_own_way():
    assert load_preset("smoke", system="dino").sensor_dropout == 0
    with pytest.raises(InputError, match="sensor_drop"):
        load_preset("smoke", system="dino", sensor_dropout=0.5)


def test_jitter_changes_levels_and_nothing_else():
    images = {
        "s1": torch.randn(400, 2, 4, 4, generator=seeded()),
        "s2": torch.randn(400, 12, 4, 4, generator=seeded(1)),
    }
    drawn = draw_jitter(400, images, seeded(2))
    assert all(torch.equal(jitter(images, drawn, 0.0)[name], image) for name, image in images.items())
    changed = jitter(images, drawn)
    part = jitter({k: v[3:5] for k, v in images.items()}, {k: v[3:5] for k, v in drawn.items()})
    assert torch.equal(part["s2"], changed["s2"][3:5])  # each row by its own draw: processes can share a batch
    gains = changed["s2"].std(dim=(2, 3)) / images["s2"].std(dim=(2, 3))
    assert torch.allclose(gains, gains[:, :1].expand_as(gains), atol=1e-4)  # an image's own, the same in every band
    assert gains[:, 0].std() == pytest.approx(0.1, rel=0.15)
    offsets = (changed["s2"] - images["s2"] * gains[:, :1, None, None]).mean(dim=(2, 3))
    assert offsets.mean(dim=1).std() == pytest.approx(0.2, rel=0.15)
    assert (offsets - offsets.mean(dim=1, keepdim=True)).std() == pytest.approx(0.05, rel=0.15)


@pytest.fixture(scope="module")
def showing(archive):
    config = load_preset("smoke", **{**TINY, "augment": "none", "synthetic": True, "batch_size": 6})
    showing = Showing(config, archive, Processes(0, 1, torch.device("cpu")))
    return showing, default_collate([showing.dataset[i] for i in range(3)])["bands"]


def test_half_of_a_batch_are_scenes_each_seen_once(showing, archive):
    made, bands = showing
    assert (made.pairs, made.batch) == (3, 6)
    first, again, second = (made.images(bands, step) for step in (0, 0, 1))
    for name, pairs in assemble(bands).items():
        assert torch.equal(first[name][:3], pairs) and torch.equal(first[name], again[name])
        assert not torch.isin(first[name][3:].mean(dim=(1, 2, 3)), second[name][3:].mean(dim=(1, 2, 3))).any()
        assert first[name].isfinite().all() and first[name].shape[0] == 6
    one = {k: {side: x[:1] for side, x in sides.items()} for k, sides in bands.items()}
    third = Showing(made.config, archive, Processes(1, 3, torch.device("cpu"))).images(one, 1)
    assert torch.equal(third["s2"][1], second["s2"][4])  # a process's share of the pairs, then of the scenes


def test_pairs_and_scenes_are_divided_each():
    check_batch(load_preset("smoke", batch_size=6, synthetic=True), 1)
    check_batch(load_preset("smoke", batch_size=8, synthetic=True), 2)
    with pytest.raises(InputError, match="synthetic"):
        check_batch(load_preset("smoke", batch_size=6, synthetic=True), 2)


# --- interpolation


@pytest.fixture(scope="module")
def train(archive):
    return list(hidden_pairs(archive, load_preset("smoke"), archive.split("train")[:6]))


def test_nothing_hidden_is_looked_at(archive, train):
    (pairs,) = hidden_pairs(archive, load_preset("smoke"), archive.split("val")[:3])
    spoilt = {}
    for name, image in pairs.images.items():
        grid = pairs.masks[name].unflatten(1, (15, 15)).repeat_interleave(8, 1).repeat_interleave(8, 2)
        spoilt[name] = torch.where(grid[:, None], 1e3, image)
    for name in pairs.images:
        for method, way in choose_interpolations(train, name).items():
            honest, other = way.fill(pairs, name), way.fill(dataclasses.replace(pairs, images=spoilt), name)
            assert torch.equal(honest[pairs.masks[name]], other[pairs.masks[name]]), method
            assert torch.allclose(honest[~pairs.masks[name]], pairs.means[name][~pairs.masks[name]]), method


def test_what_is_easy_costs_nothing(train):
    masks = sample_masks("independent", 2, 225, 150, ("s1",), seeded())
    flat = Hidden({"s1": torch.full((2, 2, 120, 120), 0.7)}, masks, 8)
    for method, way in choose_interpolations(train, "s1").items():
        if "ridge" not in method:
            assert way.errors(flat, "s1").max() < 1e-10, method
    inner = torch.zeros(1, 15, 15, dtype=torch.bool)
    inner[0, 4:9, 3:12] = True
    ramp = Hidden({"s1": torch.linspace(-1, 1, 120).expand(1, 2, 120, 120)}, {"s1": inner.flatten(1)}, 8)
    assert choose_interpolations(train, "s1")["harmonic per pixel"].errors(ramp, "s1") < 1e-10


def test_a_held_out_loss_stands_beside_an_interpolation(archive, train):
    config = load_preset("smoke")
    model = build_model(config).eval()
    losses = heldout_losses(model, archive, config, limit=4)
    for name in config.modalities:
        assert losses[f"interpolation_{name}"] < 0.6 * losses[f"mean_{name}"]
    normalised = config.model_copy(update={"normalize_target": True})
    assert set(heldout_losses(model, archive, normalised, limit=4)) == {"loss_s1", "loss_s2"}


def test_a_gain_is_paired_and_redraws_tiles(monkeypatch):
    monkeypatch.syspath_prepend(project_root() / "benchmarks")
    benchmark = importlib.import_module("weights")
    floor, tiles = np.array([1.0, 4.0, 2.0, 3.0]), np.array(["a", "a", "b", "b"])
    assert benchmark.gain(0.8 * floor, floor, tiles) == pytest.approx((0.2, 0.2, 0.2))
    share, low, high = benchmark.gain(np.array([0.5, 2.0, 2.0, 3.0]), floor, tiles)
    assert (share, low, high) == pytest.approx((0.25, 0.0, 0.5))  # only a, both, or only b
