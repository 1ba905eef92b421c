"""The systems Fus-MAE is compared with: one interface, one training loop, each faithful to its own method."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from conftest import TINY
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block
from torch import nn

from fusmae_lite.core.config import RunConfig, load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.evaluation import evaluate, frozen_features
from fusmae_lite.model.masking import random_mask
from fusmae_lite.model.tokens import patchify, unpatchify
from fusmae_lite.systems import SatViT, build_model
from fusmae_lite.systems.weights import load_model, save_model
from fusmae_lite.train.checkpoints import Progress, read_progress
from fusmae_lite.train.pretrain import pretrain

MASKED = ("late", "satvit")  # trained as masked autoencoders
SUBSETS = (("s1",), ("s2",), ("s1", "s2"))


def config_of(system: str, folder: object = "", **changes) -> RunConfig:
    return load_preset("smoke", run_dir=str(folder), system=system, **{**TINY, **changes})


def make(system: str, **changes) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(config_of(system, **changes)).eval()


def pair(batch: int = 3) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    return {name: torch.randn(batch, bands, 120, 120, generator=rng) for name, bands in (("s1", 2), ("s2", 12))}


def only(images: dict[str, torch.Tensor], names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return {name: images[name] for name in names}


@pytest.mark.parametrize("sensors", SUBSETS)
@pytest.mark.parametrize("system", ["fusmae", *MASKED])
def test_any_subset_of_sensors_encodes(system, sensors):
    model, images = make(system), pair()
    features = model.encode(only(images, sensors)).pooled()
    joined = len(sensors) if system == "late" else 1
    assert features.shape == (3, 16 * joined) and features.isfinite().all()
    assert not torch.equal(features[0], features[1])
    assert set(model(only(images, sensors)).losses) == set(sensors)


def test_late_encoders_never_see_the_other_sensor():
    model, images = make("late"), pair()
    both = model.encode(images).pooled()
    assert torch.equal(both[:, :16], model.encode(only(images, ("s1",))).pooled())
    assert torch.equal(both[:, 16:], model.encode(only(images, ("s2",))).pooled())
    model(images, generator=torch.Generator().manual_seed(1)).losses["s1"].backward()
    assert all(p.grad is None for p in model.encoders["s2"].parameters())


def test_satvit_fills_a_missing_sensor_with_the_mean_and_has_no_cls():
    model, images = make("satvit"), pair()
    zeros = {**images, "s1": torch.zeros_like(images["s1"])}
    latents = model.encode(only(images, ("s2",)))
    assert torch.equal(latents.pooled(), model.encode(zeros).pooled())
    assert latents.tokens["s1+s2"].shape == (3, 25, 16)
    with pytest.raises(InputError, match="pooling 'cls'"):
        latents.pooled("cls")


def test_satvit_loss_is_the_mean_over_hidden_numbers_of_normalised_stacked_patches():
    model, images = make("satvit"), pair()
    assert model.config.normalize_target and model.config.masking == "consistent"
    mask = random_mask(3, 25, model.config.kept, torch.Generator().manual_seed(4))
    result = model(images, {"s1": mask, "s2": mask})
    stacked = patchify(torch.cat([images["s1"], images["s2"]], dim=1), 24)
    target = (stacked - stacked.mean(-1, keepdim=True)) / stacked.std(-1, keepdim=True)
    predicted = torch.cat([result.patches["s1"], result.patches["s2"]], dim=-1)
    assert result.loss.item() == pytest.approx((predicted - target)[mask].square().mean().item(), rel=1e-4)
    assert result.images()["s2"].shape == (3, 12, 120, 120)


@pytest.mark.parametrize("system", MASKED)
def test_masked_pixels_never_reach_the_encoder(system):
    model, images = make(system), pair()
    mask = random_mask(3, 25, model.config.kept, torch.Generator().manual_seed(4))
    changed = {}
    for name, image in images.items():
        hidden = torch.where(mask.unsqueeze(-1), torch.nan, patchify(image, 24))
        changed[name] = unpatchify(hidden, 24, image.shape[1])
    masks = dict.fromkeys(images, mask)
    assert torch.equal(model.encode(images, masks).pooled(), model.encode(changed, masks).pooled())
    with pytest.raises(InputError, match="no mask"):
        model.encode(images, {"s1": mask})


@pytest.mark.parametrize("system", MASKED)
def test_gradients_reach_every_parameter(system):
    model = make(system).train()
    model(pair(), generator=torch.Generator().manual_seed(0)).loss.backward()
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("system", MASKED)
def test_it_learns_and_a_resumed_run_is_bit_identical(system, archive, tmp_path):
    change = {"epochs": 6, "learning_rate": 3e-3, "drop_path": 0.2}
    whole = pretrain(config_of(system, tmp_path / "whole", **change), archive, quiet=True)
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]
    pretrain(config_of(system, tmp_path / "parts", max_steps=7, **change), archive, quiet=True)
    parts = pretrain(config_of(system, tmp_path / "parts", **change), archive, quiet=True)
    assert parts.resumed_from == 7 and parts.heldout == whole.heldout
    one, other = whole.model.state_dict(), parts.model.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("system", MASKED)
def test_saved_loaded_and_frozen(system, archive, tmp_path):
    model = make(system)
    save_model(tmp_path / "m.safetensors", model)
    again = load_model(tmp_path / "m.safetensors")
    assert type(again) is type(model)
    features = frozen_features(again, archive, "test", ("s1", "s2"))
    assert torch.equal(features.x, frozen_features(model, archive, "test", ("s1", "s2")).x)
    with pytest.raises(InputError, match="system"):
        load_model(tmp_path / "m.safetensors", config_of("fusmae"))


def test_a_run_older_than_the_field_goes_on(tiny, archive):
    result = pretrain(RunConfig(**{**tiny.model_dump(), "max_steps": 1}), archive, quiet=True)
    state = result.checkpoint / "state.json"
    state.write_text(state.read_text().replace('  "system": "fusmae",\n', ""))
    assert '"system"' not in state.read_text()
    now = Progress(0, {}, "fp32", json.loads(state.read_text())["data"], tiny.model_dump(mode="json"))
    assert read_progress(result.checkpoint, now).step == 1
    with pytest.raises(InputError, match="system='fusmae'"):
        read_progress(result.checkpoint, replace(now, config=config_of("late").model_dump(mode="json")))


BAD = {
    "fusion": (lambda: config_of("late", fusion="xae"), "no fusion xae"),
    "masking": (lambda: config_of("satvit", masking="independent"), "consistent"),
    "system": (lambda: config_of("croma"), "croma"),
    "sensor": (lambda: make("late").encode({"dem": torch.zeros(1)}), "'dem'"),
    "nothing": (lambda: make("satvit").encode({}), "no modality"),
    "shape": (lambda: make("satvit").encode({"s1": torch.zeros(1, 3, 120, 120)}), "(1, 3, 120, 120)"),
    "masks": (lambda: make("satvit")(pair(1), _unlike()), "differ"),
}


def _unlike() -> dict[str, torch.Tensor]:
    mask = random_mask(1, 25, 6, torch.Generator().manual_seed(0))
    return {"s1": mask, "s2": mask.flip(1)}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_names_it(case):
    act, named = BAD[case]
    with pytest.raises(InputError) as caught:
        act()
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_titles_and_types():
    assert isinstance(make("satvit"), SatViT)
    assert [make(s).title for s in ("fusmae", *MASKED)] == ["Fus-MAE XAE", "late fusion", "SatViT"]


def test_a_baseline_has_its_own_rows_in_the_table_and_learns_from_a_share_of_the_labels(archive, tmp_path):
    config = config_of("satvit", tmp_path, max_steps=1, label_fraction=0.6)
    with pytest.raises(InputError, match="no checkpoint in"):
        evaluate(config, archive)
    with pytest.raises(InputError, match="weights are of system 'fusmae', not 'satvit'"):
        evaluate(config, archive, "xae-lite")
    pretrain(config, archive, quiet=True)
    rows = evaluate(config, archive)
    assert rows.system.tolist() == ["class prior", *["band statistics", "random encoder", "SatViT"] * 3]
    assert {*zip(rows.train, rows.test, strict=True)} == {(27, 18)}
    assert rows.equals(evaluate(config, archive))
    with pytest.raises(InputError, match="too few to show all"):
        evaluate(RunConfig(**{**config.model_dump(), "label_fraction": 0.05}), archive)


@pytest.mark.parametrize("system", ["fusmae", "late", "satvit", "dino"])
def test_epsilons_are_ours_whatever_timms_default(system, monkeypatch):
    defaults = tuple(nn.LayerNorm if value is LayerNorm else value for value in Block.__init__.__defaults__)
    assert defaults != Block.__init__.__defaults__
    monkeypatch.setattr(Block.__init__, "__defaults__", defaults)  # 1e-5
    norms = [module for module in build_model(config_of(system)).modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) > 4 and {module.eps for module in norms} == {1e-6}
