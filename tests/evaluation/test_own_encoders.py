"""Others' encoders and vectors: any torch module that keeps to the protocol, any Parquet file of names and lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from torch import nn

from fusmae_lite.core.config import load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.course.cli import main
from fusmae_lite.data.pairs import PairDataset, denormalise
from fusmae_lite.data.synthetic import synthesise
from fusmae_lite.evaluation import evaluate, floors, frozen_features
from fusmae_lite.evaluation.own import Own

QUICK = {"image_size": 24, "probe": "nearest", "probe_seeds": 1}


class Encoder(nn.Module):
    """A small one with everything that differs between training and evaluation."""

    def __init__(self, change=lambda x, images: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(14, 8, 5, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.change = change

    def forward(self, images):
        return self.change(self.body(torch.cat([images["s1"], images["s2"]], dim=1)).mean(dim=(2, 3)), images)


def of(change):
    return Encoder(lambda x, images: change(x))


@pytest.fixture
def pairs(archive):
    return PairDataset(archive, "val", size=24, cache=True)


def features(model, archive, pairs, **options):
    return frozen_features(model, archive, "val", ("s1", "s2"), dataset=pairs, **options).x


def test_a_module_in_two_lines_beside_its_control_and_floors(archive, monkeypatch, tmp_path):
    monkeypatch.setattr("fusmae_lite.core.config.project_root", lambda: tmp_path)
    module = Encoder()
    table = evaluate(module, archive, **QUICK)
    assert table.system.tolist() == ["class prior", "band statistics", "shuffled weights", "Encoder"]
    assert table.sensors.tolist()[1:] == ["S1+S2"] * 3 and table.attrs["weights"] == "Encoder"
    assert table.micro[3] != table.micro[2] and not any(tmp_path.iterdir()), "nothing is written unasked"
    assert evaluate(module, archive, **QUICK).equals(table)
    again = evaluate(load_preset("smoke", run_dir=str(tmp_path / "run"), patch_size=1, **QUICK), archive, module)
    assert again.equals(table) and (tmp_path / "run" / "evaluation" / "table-linear.md").is_file()


@pytest.mark.slow
def test_one_class_a_patch_gives_the_columns_of_table_2(tmp_path):
    root = synthesise(tmp_path / "sen12ms", 40, format="sen12ms", seed=3)
    table = evaluate(Encoder(), root, **QUICK)
    assert table.system.tolist() == ["band statistics", "shuffled weights", "Encoder"]
    assert table.sensors.tolist() == ["S1+S2"] * 3 and (table.top1 <= table.top3).all()


def test_a_module_is_left_as_it_was(archive, pairs):
    module = Encoder().train()
    module.body[1].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    x = features(module, archive, pairs)
    assert [m.training for m in (module, *module.body)] == [True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not x.requires_grad
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    with torch.no_grad():
        images = torch.utils.data.default_collate([pairs[i]["images"] for i in range(len(pairs))])
        assert torch.allclose(x, module.eval()(images), atol=1e-6)


def test_numbers_drawn_by_a_module_are_the_same_every_time(archive, pairs):
    noisy = of(lambda x: x + torch.randn_like(x))
    first = features(noisy, archive, pairs)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    Own(noisy, load_preset("smoke", image_size=24).architecture())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(features(noisy, archive, pairs), first)


def test_a_module_that_changes_its_input_changes_nothing_else(archive, pairs):
    def spoil(x, images):
        for image in images.values():
            image.zero_()
        images.clear()
        return x

    spoiler = Encoder(spoil)
    assert torch.equal(features(spoiler, archive, pairs), features(Encoder(), archive, pairs))
    assert torch.equal(features(spoiler, archive, pairs), features(Encoder(), archive, pairs))
    floor = floors(load_preset("smoke", image_size=24).architecture(), ("s1", "s2"))["statistics"]
    assert (features(floor, archive, pairs) != 0).float().mean() > 0.9


def test_a_module_may_fill_one_tensor_again(archive, pairs):
    out = torch.empty(5, 8)
    again = of(lambda x: out[: len(x)].copy_(x))
    x = frozen_features(again, archive, "val", ("s1", "s2"), dataset=pairs, batch_size=5).x
    assert torch.allclose(x, features(Encoder(), archive, pairs))


def test_a_module_of_others_is_never_taken_from_the_cache(archive, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("fusmae_lite.evaluation.features.digest_of", lambda _: pytest.fail("hashed for nothing"))
    first = features(Encoder(), archive, pairs, cache_dir=tmp_path)
    assert torch.equal(features(of(lambda x: 2 * x), archive, pairs, cache_dir=tmp_path), 2 * first)
    assert not list(tmp_path.iterdir())


def test_other_precisions_and_a_module_without_weights(archive, pairs):
    x = features(Encoder(), archive, pairs)
    assert features(of(lambda x: x.bfloat16()), archive, pairs).dtype == torch.float32
    assert torch.allclose(features(of(lambda x: x.double()), archive, pairs), x)

    class Means(nn.Module):
        def forward(self, images):
            return images["s2"].mean(dim=(2, 3))

    assert features(Means(), archive, pairs).shape == (21, 12)
    assert "shuffled weights" not in set(evaluate(Means(), archive, **QUICK).system)


WRONG = {
    "tokens": (lambda x: x[:, None], "returns float32 (2, 1, 8) for 2 pairs"),
    "one pair": (lambda x: x[:1], "returns float32 (1, 8) for 2 pairs"),
    "no numbers": (lambda x: x[:, :0], "returns float32 (2, 0) for 2 pairs"),
    "classes": (lambda x: x.argmax(dim=1, keepdim=True), "returns int64 (2, 1) for 2 pairs"),
    "a tuple": (lambda x: (x, x), "returns tuple, not a tensor"),
    "an array": (lambda x: x.numpy(), "returns ndarray, not a tensor"),
    "nothing": (lambda x: None, "returns NoneType, not a tensor"),
    "an error": (lambda x: x @ x, "fails on s1 (2, 2, 24, 24), s2 (2, 12, 24, 24) (RuntimeError: mat1 and mat2"),
    "NaN": (lambda x: x / 0 * 0, "features of patch 0 are not finite"),
    "other widths": (lambda x: x[:, : len(x)], "returns 5 numbers, before 2"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_an_encoder_that_breaks_the_protocol_is_one_line(archive, pairs, kind):
    change, message = WRONG[kind]
    with pytest.raises(InputError) as refusal:
        frozen_features(of(change), archive, "val", ("s1", "s2"), dataset=pairs, batch_size=5)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_broken_encoder_is_refused_before_the_archive_is_read(archive, monkeypatch, tmp_path):
    monkeypatch.setattr(archive, "read", lambda *_: pytest.fail("the archive was read"))
    with pytest.raises(InputError, match="KeyError: 's1'"):
        evaluate(Encoder(), archive, modalities="s2", **QUICK)
    with pytest.raises(InputError, match="nowhere"):
        evaluate(Encoder(), tmp_path / "nowhere")
    for wrong in (3, lambda images: images["s2"]):
        with pytest.raises(InputError, match="give a torch module"):
            evaluate(wrong, archive)
    with pytest.raises(InputError, match="finetune"):
        evaluate(Encoder(), archive, protocol="finetune", **QUICK)
    with pytest.raises(InputError, match="load_preset"):
        evaluate(load_preset("smoke"), archive, Encoder(), probe="nearest")
    with pytest.raises(InputError, match="did you mean 'probe'"):
        evaluate(Encoder(), archive, prob="nearest")


def test_the_control_keeps_every_number_and_moves_it():
    own = Own(Encoder(), load_preset("smoke", image_size=24).architecture())
    control, again, other = own.shuffled(0), own.shuffled(0), own.shuffled(1)
    weight, moved = own.module.body[0].weight, control.module.body[0].weight
    assert torch.equal(weight.flatten().sort()[0], moved.flatten().sort()[0]) and not torch.equal(weight, moved)
    assert torch.equal(moved, again.module.body[0].weight) and not torch.equal(moved, other.module.body[0].weight)


def test_a_vit_of_torchgeos_form_loads_through_the_adapter_of_the_docs(archive, pairs):
    page = (Path(__file__).parents[2] / "docs" / "interoperability.md").read_text(encoding="utf-8")
    source = next(part for part in page.split("```python\n")[1:] if "class SentinelTwo" in part).split("```")[0]
    scope: dict[str, object] = {}
    exec(source.split("\nvit = ")[0], scope)
    seen = {}

    class Looks(nn.Module):
        def forward(self, x):
            seen["x"] = x
            return x.mean(dim=(2, 3))

    adapter = scope["SentinelTwo"](Looks(), side=24)
    frozen_features(adapter, archive, "val", ("s2",), dataset=pairs)
    reflectance = denormalise(pairs[20]["images"]["s2"], "s2") / 10_000
    bands = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, None, 10, 11]  # B1 .. B8, B8a, B9, B10, B11, B12
    for channel, band in enumerate(bands):
        expected = torch.zeros(24, 24) if band is None else reflectance[band]
        assert torch.allclose(seen["x"][-1, channel], expected, atol=1e-5)
    state = timm.create_model("vit_tiny_patch16_224", in_chans=13).state_dict()
    vit = timm.create_model("vit_tiny_patch16_224", in_chans=13, num_classes=0)
    assert not vit.load_state_dict(state, strict=False).missing_keys
    two = PairDataset(archive, indices=archive.split("val")[:2], modalities=("s2",), size=24)
    assert frozen_features(scope["SentinelTwo"](vit), archive, "val", ("s2",), dataset=two).x.shape == (2, 192)


def written(path, names, vectors, key="patch_id", column="embedding", **more):
    pq.write_table(pa.table({key: pa.array(names), column: vectors, **more}), path)
    return path


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 4), pa.large_list(pa.float64())])
def test_vectors_are_joined_by_name(archive, tmp_path, kind):
    names = list(archive.names)
    order = np.random.default_rng(0).permutation(len(names))
    vectors = np.random.default_rng(1).random((len(names), 4), dtype=np.float32)
    path = written(
        tmp_path / "v.parquet", [names[i] for i in order] + ["elsewhere"],
        pa.array([vectors[i].tolist() for i in order] + [[0.0] * 4], kind),
        labels=pa.array([["a"]] * (len(names) + 1)), geometry=pa.array([b"wkb"] * (len(names) + 1)),
    )  # fmt: skip
    found = frozen_features(path, archive, "test", ("s1", "s2"))
    assert np.array_equal(found.x.numpy(), vectors[archive.split("test")])
    assert np.array_equal(found.y.numpy(), archive.labels[archive.split("test")])
    assert evaluate(path, archive, **QUICK).system.tolist() == ["class prior", "band statistics", "v.parquet"]


def test_the_command_scores_a_file_of_vectors(archive, tmp_path, capsys):
    path = written(tmp_path / "v.parquet", list(archive.names), [[1.0, float(i % 3)] for i in range(84)], key="name")
    options = ["-p", "probe=nearest", "-p", "probe_seeds=1", "-p", f"run_dir={tmp_path / 'run'}"]
    assert main(["evaluate", "--features", str(path), *options]) == 0
    assert "| v.parquet |" in capsys.readouterr().out
    for wrong in (["--features", "v.csv"], ["--features", str(path), "--weights", "xae-lite"]):
        assert main(["evaluate", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


NAMES = ["a", "b", "c"]
BAD = {
    "twice": (["a", "b", "a"], [[1.0]] * 3, "patch a occurs twice"),
    "ragged": (NAMES, [[1.0], [1.0, 2.0], [1.0]], "row 1 (b) has 2 numbers, row 0 1"),
    "empty list": (NAMES, pa.array([[], [], []], pa.list_(pa.float32())), "row 0 (a) has 0 numbers"),
    "no list": (NAMES, [[1.0], None, [1.0]], "row 1 (b) has 0 numbers"),
    "no name": (["a", None, "c"], [[1.0]] * 3, "row 1 (None)"),
    "NaN": (NAMES, [[1.0], [1.0], [float("nan")]], "the vector of c is not finite"),
    "a gap": (NAMES, [[1.0], [None], [1.0]], "the vector of b is not finite"),
    "beyond float32": (NAMES, [[1.0], [1e300], [1.0]], "the vector of b is not finite"),
    "no rows": (pa.array([], pa.string()), pa.array([], pa.list_(pa.float32())), "has no rows"),
    "texts": (NAMES, [["x"], ["y"], ["z"]], "no column of names, or of lists of numbers"),
    "missing": (NAMES, [[1.0], [2.0], [3.0]], "no row for 21 of 21 patches"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_vectors_are_one_line_with_the_file(archive, tmp_path, kind):
    names, vectors, message = BAD[kind]
    path = written(tmp_path / "v.parquet", names, vectors)
    with pytest.raises(InputError) as refusal:
        frozen_features(path, archive, "val", ("s1", "s2"))
    assert message in str(refusal.value) and str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_files_that_are_no_table_of_vectors_are_one_line(archive, tmp_path):
    written(tmp_path / "key.parquet", NAMES, [[1.0]] * 3, key="id")
    written(tmp_path / "two.parquet", NAMES, [[1.0]] * 3, column="x", y=pa.array([[1.0]] * 3))
    (tmp_path / "text.parquet").write_text("name,embedding\n")
    (tmp_path / "folder.parquet").mkdir()
    for name in ("key", "two", "text", "folder", "absent"):
        with pytest.raises(InputError) as refusal:
            evaluate(tmp_path / f"{name}.parquet", archive)
        assert f"{name}.parquet" in str(refusal.value) and "\n" not in str(refusal.value)
