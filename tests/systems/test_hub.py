"""A model as a Hugging Face folder: to the same bits and back, and a folder that is not whole is one line."""

from __future__ import annotations

import json
import shutil

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from fusmae_lite import FusMAE, InputError, load_pretrained
from fusmae_lite.core.config import ModelConfig, load_preset
from fusmae_lite.course.cli import main
from fusmae_lite.evaluation.chosen import choose_weights
from fusmae_lite.systems.weights import save_folder

SMALL = {"width": 16, "depth": 2, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return FusMAE(ModelConfig(**SMALL, patch_size=24, fusion="xad")).eval()


@pytest.fixture
def folder(model, tmp_path):
    return save_folder(tmp_path / "hub", model)


def same(one, other):
    states = one.state_dict(), other.state_dict()
    return one.config == other.config and all(torch.equal(states[0][n], states[1][n]) for n in states[0] | states[1])


def test_there_and_back_to_the_same_bits(model, folder):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert same(load_pretrained(folder), model) and same(load_pretrained(str(folder / "model.safetensors")), model)
    assert not load_pretrained(folder).training
    config = json.loads((folder / "config.json").read_text())
    assert config["config"]["width"] == 16 and config["sensors"]["s1"]["bands"] == ["VV", "VH"]
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n") and "340.77" in card and "{" not in card


def test_weights_written_again_by_other_tools_still_load(model, folder):
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", {"format": "pt"})
    assert same(load_pretrained(folder), model)


def test_the_command_writes_one_that_evaluation_reads(tmp_path, capsys):
    command = ["export", "xad-lite", "--format", "hf", "--output", str(tmp_path / "xad")]
    assert main(command) == 0
    assert same(load_pretrained(tmp_path / "xad"), load_pretrained("xad-lite"))
    assert choose_weights(load_preset("smoke"), tmp_path / "xad").model.config.fusion == "xad"
    capsys.readouterr()
    assert main(command) == 2 and "exists" in capsys.readouterr().err


def edit(folder, change):
    facts = json.loads((folder / "config.json").read_text())
    change(facts)
    (folder / "config.json").write_text(json.dumps(facts))


def retensor(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


BAD = {
    "no config": (lambda f: (f / "config.json").unlink(), "carries no configuration"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights at"),
    "only a pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pytorch_model.bin, a pickle",
    ),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json is unreadable"),
    "no object": (lambda f: (f / "config.json").write_text("[]"), "config.json is unreadable"),
    "another's config": (lambda f: (f / "config.json").write_text('{"model_type": "vit"}'), "carries no configuration"),
    "unknown field": (lambda f: edit(f, lambda c: c["config"].update(widht=3)), "unknown parameter 'widht'"),
    "wrong value": (lambda f: edit(f, lambda c: c["config"].update(heads=3)), "must be a multiple"),
    "config no object": (lambda f: edit(f, lambda c: c.update(config=[1])), "config.json: its metadata 'config'"),
    "other format": (lambda f: edit(f, lambda c: c.update(format="fusmae-lite 9")), "not 'fusmae-lite 1'"),
    "other sensors": (lambda f: edit(f, lambda c: c["sensors"]["s2"]["bands"].reverse()), "band order"),
    "other size": (lambda f: edit(f, lambda c: c["config"].update(width=32)), "has shape"),
    "other depth": (lambda f: edit(f, lambda c: c["config"].update(depth=3)), "is missing"),
    "extra tensor": (lambda f: retensor(f, lambda t: t.update(more=torch.zeros(1))), "tensor more is unknown"),
    "a tensor less": (lambda f: retensor(f, lambda t: t.pop("cls_token")), "tensor cls_token is missing"),
    "NaN": (lambda f: retensor(f, lambda t: t["cls_token"].fill_(float("nan"))), "holds NaN"),
    "half precision": (lambda f: retensor(f, lambda t: t.update(cls_token=t["cls_token"].half())), "holds float16"),
    "damaged": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "not a readable safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_folder_that_is_not_whole_is_one_line(folder, kind):
    change, message = BAD[kind]
    change(folder)
    with pytest.raises(InputError) as refusal:
        load_pretrained(folder)
    assert message in str(refusal.value) and str(folder) in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_changed_weight_is_noticed(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="its digest is another"):
        load_pretrained(folder)


def test_an_id_of_the_hub_is_fetched_and_nothing_else_asks_for_a_connection(model, folder, tmp_path, monkeypatch):
    asked = []

    def fetch(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(shutil.copytree(folder, tmp_path / "cache", dirs_exist_ok=True))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert same(load_pretrained("hf-hub:owner/name"), model)
    assert same(choose_weights(load_preset("smoke"), "hf-hub:owner/name").model, model)
    assert asked == [("owner/name", ["config.json", "model.safetensors"])] * 2
    for name in ("owner/name", "runs/smok"):
        with pytest.raises(InputError, match="no pretrained model"):
            load_pretrained(name)
    assert len(asked) == 2


def test_without_a_connection_it_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route\nand much more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError) as refusal:
        load_pretrained("hf-hub:owner/name")
    assert str(refusal.value).startswith("hf-hub:owner/name is neither in the cache nor can it be fetched (no route);")
