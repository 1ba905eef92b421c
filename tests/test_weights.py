"""Weights on disk: what is saved is what is loaded, and anything else is refused in one line."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fusmae_lite.config import load_preset
from fusmae_lite.errors import InputError
from fusmae_lite.model import FusMAE
from fusmae_lite.weights import load_model, load_pretrained, read_extra, read_tensors, save_model, shipped_weights


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = FusMAE(load_preset("smoke").architecture()).eval()
    path = tmp_path / "model.safetensors"
    save_model(path, model, {"command": "none"})
    return path, model


def rewrite(path, tensors=None, **metadata):
    found, old = read_tensors(path)
    save_file({**found} if tensors is None else tensors, path, {**old, **metadata})


def test_round_trip(saved):
    path, model = saved
    loaded = load_model(path)
    assert loaded.config == model.config and not loaded.training
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert read_extra(path) == {"command": "none"}
    assert load_pretrained(str(path)).config == model.config
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("keep", ["nothing of it", "one tensor less"])
def test_a_checkpoint_without_decoder_is_refused(saved, keep):
    path, _ = saved
    tensors = load_file(path)
    drop = [n for n in tensors if n.startswith("decoders.")]
    for name in drop if keep == "nothing of it" else drop[:1]:
        del tensors[name]
    rewrite(path, tensors)
    with pytest.raises(InputError, match="no decoder weights") as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_a_checkpoint_of_another_configuration_is_refused(saved):
    path, _ = saved
    with pytest.raises(InputError, match="fusion"):
        load_model(path, load_preset("smoke", fusion="xad"))
    with pytest.raises(InputError, match="width"):
        load_model(path, load_preset("laptop"))
    assert load_model(path, load_preset("smoke", mask_ratio=0.5))  # no shape depends on it


def test_other_statistics_or_band_order_are_refused(saved):
    path, _ = saved
    sensors = json.loads(read_tensors(path)[1]["sensors"])
    sensors["s1"]["bands"].reverse()
    rewrite(path, sensors=json.dumps(sensors))
    with pytest.raises(InputError, match="band order"):
        load_model(path)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "readable"),
        (lambda p: p.write_bytes(b"PK not safetensors"), "readable"),
        (lambda p: p.unlink(), "no weights"),
        (lambda p: save_file({"x": torch.zeros(1)}, p), "no configuration"),
        (lambda p: rewrite(p, {**load_file(p), "extra.weight": torch.zeros(1)}), "unknown"),
        (lambda p: rewrite(p, {**load_file(p), "cls_token": torch.zeros(1, 1, 3)}), "cls_token"),
        (lambda p: rewrite(p, {k: v for k, v in load_file(p).items() if k != "norm.weight"}), "norm.weight"),
    ],
)
def test_damaged_files_are_one_line(saved, damage, named):
    path, _ = saved
    damage(path)
    with pytest.raises(InputError, match=named) as caught:
        load_model(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_name():
    with pytest.raises(InputError, match="xae-lite"):
        load_pretrained("xae-heavy")


SHIPPED = {"xae-lite": "xae", "xad-lite": "xad"}


def test_what_is_shipped():
    assert set(shipped_weights()) == set(SHIPPED)
    card = (shipped_weights()["xae-lite"].parent / "README.md").read_text(encoding="utf-8")
    for name, fusion in SHIPPED.items():
        model, heldout = load_pretrained(name), read_extra(shipped_weights()[name])["heldout"]
        assert model.config.fusion == fusion
        assert f"| {name} | {heldout['loss_s1']:.3f} | {heldout['loss_s2']:.3f} |" in card


@pytest.mark.parametrize(("name", "fusion"), SHIPPED.items())
def test_the_shipped_models_are_small_and_reconstruct_as_their_card_says(archive, name, fusion):
    from fusmae_lite.evaluate import heldout_losses

    path = shipped_weights()[name]
    assert path.stat().st_size < 8_000_000
    extra = read_extra(path)
    assert {"command", "data", "steps", "seed", "licence", "heldout"} <= set(extra)
    stated = extra["heldout"]
    for split in ("val", "test"):
        losses = heldout_losses(load_pretrained(name), archive, load_preset("laptop", fusion=fusion), split)
        for sensor in ("s1", "s2"):
            assert losses[f"loss_{sensor}"] < 0.6 * losses[f"mean_{sensor}"], (split, losses)
        if split == stated["split"]:
            assert losses == pytest.approx({key: stated[key] for key in losses}, rel=1e-3)
