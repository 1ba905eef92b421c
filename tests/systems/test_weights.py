"""Weights on disk: what is saved is what is loaded, and anything else is refused in one line."""

from __future__ import annotations

import json
import time

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file, save_file

from fusmae_lite.core.config import ModelConfig, load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.systems import build_model
from fusmae_lite.systems.weights import (
    digest_of,
    load_model,
    load_pretrained,
    read_tensors,
    save_model,
    shipped_weights,
)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = FusMAE(load_preset("smoke").architecture()).eval()
    path = tmp_path / "model.safetensors"
    save_model(path, model, {"command": "none"})
    return path, model


def rewrite(path, tensors=None, drop=(), **metadata):
    found, old = read_tensors(path)
    kept = {key: value for key, value in {**old, **metadata}.items() if key not in drop}
    save_file({**found} if tensors is None else tensors, path, kept)


def test_round_trip(saved):
    path, model = saved
    loaded = load_model(path)
    assert loaded.config == model.config and not loaded.training
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert json.loads(read_tensors(path)[1]["extra"]) == {"command": "none"}
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


@pytest.mark.parametrize("system", ["fusmae", "dino"])
def test_only_dino_keeps_the_fields_of_dino(tmp_path, system):
    """Files from before there was a DinoConfig list them for every system; they open with the same numbers."""
    config = load_preset("smoke", system=system, **{**TINY, "augment": "none"}, head_outputs=16, teacher_momentum=0.9)
    model, path = build_model(config), tmp_path / "model.safetensors"
    save_model(path, model)
    listed = json.loads(read_tensors(path)[1]["config"])
    assert ("teacher_momentum" in listed) == ("head_outputs" in listed) == (system == "dino")
    flat = {**listed, "head_outputs": 16, "global_crops": 2, "local_crops": 8, "sensor_drop": 0.5,
            "teacher_momentum": 0.9, "teacher_temperature": 0.04}  # fmt: skip
    rewrite(path, config=json.dumps(flat), drop=("digest",))
    read = load_model(path, config)
    assert read.config == model.config == config.architecture()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in read.state_dict().items())
    rewrite(path, config=json.dumps({**flat, "epochs": 3}), drop=("digest",))
    with pytest.raises(InputError, match="'epochs'"):
        load_model(path)


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


KINDS = {
    torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float64: "float64", torch.int64: "int64",
    torch.int8: "int8", torch.bool: "bool", torch.complex64: "complex64", torch.float8_e4m3fn: "float8_e4m3fn",
}  # fmt: skip


@pytest.mark.parametrize("dtype", KINDS)
def test_weights_of_another_dtype_are_refused(saved, dtype):
    path, _ = saved
    rewrite(path, {**load_file(path), "norm.weight": load_file(path)["norm.weight"].to(dtype)})
    with pytest.raises(InputError, match=f"norm.weight holds {KINDS[dtype]}, not float32") as caught:
        load_model(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused(saved, value):
    path, _ = saved
    tensors = load_file(path)
    tensors["blocks.0.attn.qkv.weight"][3, 5] = value
    rewrite(path, tensors)
    with pytest.raises(InputError, match="blocks.0.attn.qkv.weight holds NaN or infinite"):
        load_model(path)


@pytest.mark.parametrize("name", ["positions.table", "decoders.s2.positions.table"])
def test_a_changed_fixed_table_of_positions_is_refused(saved, name):
    path, _ = saved
    tensors = load_file(path)
    tensors[name][7, 3] += 0.01
    rewrite(path, tensors, drop=("digest",))
    with pytest.raises(InputError, match=f"{name} is not the fixed sine-cosine table"):
        load_model(path)


HEADERS = {
    "config": ["", "{", "null", "[]", "3", '"x"', '{"width": "wide"}', '{"colour": 1}', '{"self": 1}', "[" * 100_000,
               '{"modalities": 3}', '{"system": "imagenet"}', '{"image_size": 1e30}', '{"mask_ratio": NaN}'],
    "sensors": ["", "null", "[]", "{}", '{"s1": 3}', "[" * 100_000],
    "format": ["", "fusmae-lite 2", "pt"],
}  # fmt: skip


@pytest.mark.parametrize("field", HEADERS)
def test_a_header_of_other_types_is_one_line(saved, field):
    path, _ = saved
    whole = path.read_bytes()
    for text in HEADERS[field]:
        path.write_bytes(whole)
        rewrite(path, **{field: text}, drop=("digest",))
        with pytest.raises(InputError) as caught:
            load_model(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value), text


SIZES = [
    {"width": 10**6}, {"depth": 10**5}, {"width": 65_536}, {"depth": 1000}, {"decoder_depth": 1000}, {"mlp_ratio": 64},
    {"image_size": 10_000, "patch_size": 2}, {"decoder_width": 65_536}, {"system": "dino", "head_outputs": 10_000_000},
    {"width": 65_536, "heads": 4, "system": "late", "fusion": "none"}, {"system": "satvit", "fusion": "none"},
]  # fmt: skip


def test_sizes_of_a_header_are_compared_before_anything_of_that_size_is_made(saved, monkeypatch):
    """In an address space that would not hold the largest of them."""
    path, model = saved
    made = []
    monkeypatch.setattr(torch.nn.Module, "to_empty", lambda self, **_: made.append(self))
    whole = path.read_bytes()
    for size in SIZES:
        path.write_bytes(whole)
        values = {**model.config.model_dump(mode="json"), **size}
        rewrite(path, config=json.dumps(values), drop=("digest",))
        began = time.perf_counter()
        with pytest.raises(InputError) as caught:
            load_model(path)
        assert str(path) in str(caught.value) and time.perf_counter() - began < 10 and not made, size


@pytest.mark.parametrize("system", ["fusmae", "late", "satvit", "dino"])
def test_loading_takes_every_number_from_the_file(tmp_path, system):
    torch.manual_seed(1)
    fusion = {"fusion": "both"} if system == "fusmae" else {}
    model = build_model(load_preset("smoke", system=system, drop_path=0.2, **fusion))
    save_model(tmp_path / "m.safetensors", model)
    state = torch.random.get_rng_state()
    loaded = load_model(tmp_path / "m.safetensors")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert digest_of(loaded.state_dict()) == digest_of(model.state_dict())
    trained = [[name for name, p in m.named_parameters() if p.requires_grad] for m in (model, loaded)]
    assert trained[0] == trained[1] and not any(t.is_meta for t in [*loaded.parameters(), *loaded.buffers()])
    rates = [[m.drop_prob for m in each.modules() if hasattr(m, "drop_prob")] for each in (model, loaded)]
    assert rates[0] == rates[1]


def test_the_digest_is_checked_and_files_from_before_it_still_open(saved):
    path, model = saved
    tensors, metadata = read_tensors(path)
    assert len(digest_of(tensors)) == 12 and digest_of(tensors) == digest_of(model.state_dict())
    for name in ("norm.weight", "decoders.s1.mask_token"):  # any byte counts, and where it stands
        changed = {**tensors, name: tensors[name] + 1e-3}
        assert digest_of(changed) != digest_of(tensors)
        save_file(changed, path, metadata)
        with pytest.raises(InputError, match="changed after it was written"):
            load_model(path)
    rewrite(path, tensors, config=metadata["config"].replace("0.75", "0.5"))
    with pytest.raises(InputError, match="changed after it was written"):
        load_model(path)
    rewrite(path, tensors, drop=("digest",))
    assert load_model(path).config.mask_ratio == 0.5
    assert all("digest" in read_tensors(shipped)[1] for shipped in shipped_weights().values())


def test_unknown_name():
    with pytest.raises(InputError, match="xae-lite"):
        load_pretrained("xae-heavy")


SHIPPED = {"xae-lite": "xae", "xad-lite": "xad"}


def test_what_is_shipped():
    assert set(shipped_weights()) == set(SHIPPED)
    card = (shipped_weights()["xae-lite"].parent / "README.md").read_text(encoding="utf-8")
    for name, fusion in SHIPPED.items():
        model, metadata = load_pretrained(name), read_tensors(shipped_weights()[name])[1]
        heldout = json.loads(metadata["extra"])["heldout"]
        assert model.config.fusion == fusion
        assert f"| {name} | {heldout['loss_s1']:.3f} | {heldout['loss_s2']:.3f} |" in card


@pytest.mark.parametrize(("name", "fusion"), SHIPPED.items())
def test_the_shipped_models_are_small_and_reconstruct_as_their_card_says(archive, name, fusion):
    from fusmae_lite.evaluation import heldout_losses

    path = shipped_weights()[name]
    assert path.stat().st_size < 8_000_000
    extra = json.loads(read_tensors(path)[1]["extra"])
    assert {"command", "data", "steps", "seed", "licence", "heldout"} <= set(extra)
    stated = extra["heldout"]
    for split in ("val", "test"):
        losses = heldout_losses(load_pretrained(name), archive, load_preset("laptop", fusion=fusion), split)
        for sensor in ("s1", "s2"):
            assert losses[f"loss_{sensor}"] < losses[f"interpolation_{sensor}"], (split, losses)
        if split == stated["split"]:
            assert losses["loss_s1"] < 0.95 * losses["interpolation_s1"]
            assert losses["loss_s2"] < 0.80 * losses["interpolation_s2"]
            numbers = {key: value for key, value in stated.items() if key != "split"}
            assert {key: losses[key] for key in numbers} == pytest.approx(numbers, rel=1e-3)


@pytest.mark.parametrize("system", ["fusmae", "late", "satvit", "dino"])
@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_a_model_takes_images_of_another_size(tmp_path, system, positions):
    torch.manual_seed(0)
    small = {"width": 32, "depth": 2, "heads": 2, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
    model = build_model(ModelConfig(system=system, image_size=40, positions=positions, **small)).eval()
    save_model(tmp_path / "model.safetensors", model)
    images = {"s1": torch.randn(2, 2, 40, 40), "s2": torch.randn(2, 12, 40, 40)}
    same, larger = (load_pretrained(tmp_path, image_size=size) for size in (40, 64))
    assert torch.equal(same.encode(images).pooled(), model.encode(images).pooled())
    assert larger.config.image_size == 64 and not larger.training
    large = {name: torch.nn.functional.pad(image, (0, 24, 0, 24)) for name, image in images.items()}
    assert all(len(z[0]) == 64 and z.isfinite().all() for z in larger.encode(large).tokens.values())
    tables = {n: (t, larger.state_dict()[n]) for n, t in model.state_dict().items() if n.endswith("positions.table")}
    assert tables and all(len(new) == 64 for _, new in tables.values())
    for old, new in tables.values():
        if positions == "sincos":  # rows are patches: those of the upper left are where they were
            assert torch.equal(new.view(8, 8, -1)[:5, :5].flatten(0, 1), old)
        else:  # interpolated: the mean of the whole table stays
            assert torch.allclose(new.mean(0), old.mean(0), atol=0.05)
    assert all(torch.equal(t, larger.state_dict()[n]) for n, t in model.state_dict().items() if n not in tables)
    with pytest.raises(InputError, match="patch_size 8 does not divide image_size 100"):
        load_pretrained(tmp_path, image_size=100)
