"""Exported encoders give what the model gives; misfits are one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from fusmae_lite.core.architecture import DinoConfig
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.sensors import S2, get_modality
from fusmae_lite.course.cli import main
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.systems import build_model, export, imagenet_encoder
from fusmae_lite.systems.export import named_tokens, save_timm, to_onnx, to_timm, token_before
from fusmae_lite.systems.tensors import read_tensors
from fusmae_lite.systems.weights import load_pretrained

SMALL = {
    "width": 32, "depth": 3, "heads": 4, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2, "patch_size": 24,
}  # fmt: skip
SYSTEMS = [
    {"fusion": "none"}, {"fusion": "xad"}, {"fusion": "xae"}, {"fusion": "both"},
    {"fusion": "none", "positions": "learned"}, {"system": "late"}, {"system": "satvit"},
    {"system": "dino", "head_outputs": 16},
]  # fmt: skip


def build(**fields):
    torch.manual_seed(3)
    model = build_model(DinoConfig(**SMALL, **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms, biases and tables must count, too
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def images(names, batch=3, side=120):
    return {name: torch.randn(batch, {"s1": 2, "s2": 12}[name], side, side) for name in names}


def timm_of(state, arguments):
    vit = VisionTransformer(**arguments)
    vit.load_state_dict(state)  # strict
    return vit.eval()


@pytest.mark.parametrize("sensor", ["s1", "s2"])
@pytest.mark.parametrize("fields", SYSTEMS, ids=lambda fields: "-".join(map(str, fields.values())))
@torch.no_grad()
def test_timm_gives_the_same_tokens_and_cls(fields, sensor):
    model = build(**fields)
    vit, x = timm_of(*to_timm(model, sensor)), images([sensor])
    latents = model.encode(x)
    tokens = next(iter(named_tokens(latents).values()))
    found = vit.forward_features(x[sensor])
    assert found.shape[1] == tokens.shape[1] + (fields.get("system") != "satvit")
    assert torch.allclose(found[:, -tokens.shape[1] :], tokens, atol=1e-5)
    assert torch.allclose(vit(x[sensor]), latents.pooled("mean"), atol=1e-5)
    if fields.get("system") != "satvit":
        assert torch.allclose(found[:, 0], latents.pooled("cls"), atol=1e-5)


@torch.no_grad()
def test_the_shipped_models_on_a_real_pair_through_a_file(archive, tmp_path):
    image = PairDataset(archive, "val")[0]["images"]
    for name in ("xae-lite", "xad-lite"):
        model = load_pretrained(name)
        for sensor in ("s1", "s2"):
            state, metadata = read_tensors(save_timm(tmp_path / "vit.safetensors", model, sensor))
            vit = timm_of(state, json.loads(metadata["timm"]))
            found, latents = vit.forward_features(image[sensor][None]), model.encode({sensor: image[sensor][None]})
            assert torch.allclose(found[:, 1:], latents.tokens[sensor], atol=1e-5)
            assert torch.allclose(found[:, 0], latents.cls, atol=1e-5)
        assert json.loads(metadata["sensors"]) == {
            "s2": {"bands": list(S2.bands), "mean": list(S2.mean), "std": list(S2.std)}
        }
    assert [path.name for path in tmp_path.iterdir()] == ["vit.safetensors"]


@pytest.mark.parametrize("system", ["satvit", "dino"])
@torch.no_grad()
def test_stacked_systems_export_both_sensors(system):
    model, x = build(system=system), images(("s1", "s2"))
    vit = timm_of(*to_timm(model, "s1,s2"))
    assert torch.allclose(vit(torch.cat([x["s1"], x["s2"]], dim=1)), model.encode(x).pooled("mean"), atol=1e-5)


def test_newton_finds_the_token_before_the_first_block():
    for seed in range(3):
        torch.manual_seed(seed)
        encoder = build(fusion="xae").xattn_encoder
        wanted = torch.randn(32)
        c = token_before(encoder.norm, encoder.mlp, wanted)
        encoder.double()
        assert torch.allclose(c + encoder.mlp(encoder.norm(c)), wanted.double(), atol=1e-9)


def test_a_token_that_cannot_be_found_is_said(monkeypatch):
    monkeypatch.setattr(export, "STARTS", 2)
    monkeypatch.setattr(export, "TOKEN_TOLERANCE", 0.0)
    with pytest.raises(InputError, match="no CLS token found.*onnx"):
        to_timm(build(fusion="xae"), "s1")


def test_an_imagenet_vit_leaves_as_it_came():
    encoder, x = imagenet_encoder(("s2",), "random", "vit_tiny_patch16_224", patch_size=24), images(["s2"])
    with torch.no_grad():
        assert torch.allclose(timm_of(*to_timm(encoder, "s2"))(x["s2"]), encoder.encode(x).pooled(), atol=1e-5)


def test_what_is_no_single_vit_is_refused():
    with pytest.raises(InputError, match="one sensor"):
        to_timm(build(fusion="none"), ("s1", "s2"))
    with pytest.raises(InputError, match="'s3'"):
        to_timm(build(fusion="none"), "s3")


def run_onnx(path, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {name: image.numpy() for name, image in x.items()})
    return dict(zip(names, found, strict=True)), session.get_modelmeta().custom_metadata_map


@pytest.mark.parametrize("sensors", [("s1",), ("s2",), ("s1", "s2")], ids="+".join)
def test_onnxruntime_gives_what_pytorch_gives_on_real_pairs(archive, tmp_path, sensors):
    model, dataset = load_pretrained("xae-lite"), PairDataset(archive, "val")
    path = to_onnx(model, tmp_path / "encoder.onnx", sensors)
    assert [p.name for p in tmp_path.iterdir()] == ["encoder.onnx"]
    for batch in (1, 4):
        x = {name: torch.stack([dataset[i]["images"][name] for i in range(batch)]) for name in sensors}
        found, metadata = run_onnx(path, x)
        with torch.no_grad():
            latents = model.encode(x)
        wanted = {"features": latents.pooled(), **{f"tokens_{k}": v for k, v in latents.tokens.items()}}
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value.numpy(), atol=1e-4)
    assert list(json.loads(metadata["sensors"])) == list(sensors)
    assert {name: get_modality(name).units for name in sensors} == json.loads(metadata["units"])
    assert "bilinear" in metadata["resampling"]


@pytest.mark.parametrize("fields", [{"system": "dino", "head_outputs": 16}, {"system": "satvit"}, {"system": "late"}])
def test_other_systems_as_onnx(tmp_path, fields):
    model = build(**fields)
    sensors = ("s2",) if fields["system"] == "satvit" else ("s1", "s2")
    path, x = to_onnx(model, tmp_path / "encoder.onnx", sensors), images(sensors, batch=5)
    found, _ = run_onnx(path, x)
    with torch.no_grad():
        np.testing.assert_allclose(found["features"], model.encode(x).pooled("mean").numpy(), atol=1e-4)


def test_a_graph_that_differs_gets_no_name(tmp_path, monkeypatch):
    write, other = torch.onnx.export, build(fusion="none")

    def damaged(graph, *rest, **options):
        return write(export.Graph(other, graph.names, graph.pooling), *rest, **options)

    monkeypatch.setattr(torch.onnx, "export", damaged)
    torch.nn.init.normal_((model := build(fusion="none")).norm.bias)
    with pytest.raises(RunError, match="differs"):
        to_onnx(model, tmp_path / "x.onnx", "s1")
    assert not list(tmp_path.iterdir())


def test_missing_packages_and_bad_poolings_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="pooling"):
        to_onnx(build(system="satvit"), tmp_path / "x.onnx", "s1", pooling="cls")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"fusmae-lite\[export\]"):
        to_onnx(build(fusion="none"), tmp_path / "x.onnx", "s1")


def test_the_console_command(tmp_path, capsys):
    target = tmp_path / "s2.safetensors"
    command = ["export", "xae-lite", "--format", "timm", "--output", str(target), "--sensors"]
    assert main([*command, "s2"]) == 0 and json.loads(read_tensors(target)[1]["timm"])["in_chans"] == 12
    capsys.readouterr()
    for sensors, named in (("s3", "s3"), ("s1,s2", "one sensor")):
        assert main([*command, sensors]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and named in error and error.count("\n") == 1
    assert main(["export", "xae-heavy", "--format", "onnx", "--output", "x"]) == 2
    assert main([*command[:5], str(tmp_path), "--sensors", "s2"]) == 2
