"""Fine-tuning: it learns from its labels, layer by layer as told, and leaves the encoder it was given alone."""

from __future__ import annotations

import pytest
import torch
from conftest import TINY

from fusmae_lite.core.config import load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation.converged import prior_head
from fusmae_lite.evaluation.finetune import (
    Classifier,
    FineTuneSettings,
    fine_tune,
    layer_groups,
    rate_at,
    set_drop_path,
)
from fusmae_lite.systems import build_model

QUICK = FineTuneSettings(epochs=4, batch_size=15, learning_rate=1e-2, augment="flips")


@pytest.fixture(scope="module")
def pairs(archive):
    return {split: PairDataset(archive, split, cache=True) for split in ("train", "test")}


def make(system: str = "fusmae", **changes) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(load_preset("smoke", system=system, **{**TINY, **changes})).eval()


@pytest.mark.parametrize(("system", "sensors"), [("fusmae", ("s1", "s2")), ("late", ("s2",)), ("satvit", ("s1",))])
def test_it_learns_follows_its_seed_and_spares_the_encoder(system, sensors, pairs):
    encoder = make(system)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    result = fine_tune(encoder, pairs["train"], pairs["test"], sensors, QUICK)
    assert result.scores.shape == (18, 19) and result.scores.isfinite().all()
    assert len(result.losses) == 4 and result.losses[-1] < 0.95 * result.losses[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    moved = result.model.encoder.state_dict()
    assert any(not torch.equal(before[n], moved[n]) for n in before if "blocks.0" in n and "decoder" not in n)
    assert all(torch.equal(before[name], moved[name]) for name in before if "decoder" in name)
    if system == "satvit":
        assert torch.equal(fine_tune(encoder, pairs["train"], pairs["test"], sensors, QUICK).scores, result.scores)


def test_layers_learn_slower_the_deeper_they_lie():
    encoder = make("fusmae", depth=3, fusion="xae")
    model = Classifier(encoder, prior_head(torch.randn(4, 16), torch.ones(4, 19)), "mean")
    scale = {}
    for group in layer_groups(model, FineTuneSettings(layer_decay=0.5)):
        scale |= {id(parameter): group["lr_scale"] for parameter in group["params"]}
    named = {name: scale.get(id(parameter)) for name, parameter in model.named_parameters()}
    assert named["head.weight"] == named["encoder.norm.weight"] == 1
    assert named["encoder.blocks.1.mlp.fc1.weight"] == named["encoder.blocks.1.norm1.weight"] == 0.5
    assert named["encoder.blocks.0.attn.qkv.weight"] == 0.25
    for first in ("projections.s1.proj.weight", "cls_token", "xattn_encoder.norm.weight", "xattn_encoder.mlp.fc1.bias"):
        assert named[f"encoder.{first}"] == 0.125
    assert all(value is None for name, value in named.items() if "decoder" in name)
    assert all(value for name, value in named.items() if "decoder" not in name and "positions" not in name)


def test_drop_path_grows_over_the_encoder_and_spares_the_decoders():
    model = make("late", depth=3)
    set_drop_path(model, 0.1)
    rates = {name: module.drop_prob for name, module in model.named_modules() if name.endswith("drop_path1") and
             hasattr(module, "drop_prob")}  # fmt: skip
    assert rates == {f"encoders.{s}.blocks.{i}.drop_path1": pytest.approx(0.05 * i) for s in ("s1", "s2") for i in
                     range(3)}  # fmt: skip


def test_schedule_and_bad_input(pairs):
    assert rate_at(1.0, 10) == 1.0 and rate_at(10, 10) == pytest.approx(0) and 0 < rate_at(0, 10) < rate_at(0.5, 10) < 1
    with pytest.raises(InputError, match="0 patches to train on"):
        fine_tune(make(), pairs["train"], pairs["test"], ("s1",), QUICK, rows=[])
