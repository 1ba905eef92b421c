"""Files of a run that something else has changed: refused in one line, or without influence on any number."""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file, save_file

from fusmae_lite.core.config import RunConfig, load_preset
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.systems.weights import digest_of
from fusmae_lite.train.checkpoints import list_checkpoints
from fusmae_lite.train.pretrain import PretrainResult, pretrain


def of(folder, **changes) -> RunConfig:
    return load_preset("smoke", run_dir=str(folder), **{**TINY, "epochs": 1, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory, archive):
    """A run stopped after steps 2 and 3 of 5, with both checkpoints, and what the whole run gives."""
    folder = tmp_path_factory.mktemp("made")
    for stop in (2, 3):
        pretrain(of(folder / "run", max_steps=stop), archive, quiet=True)
    return folder / "run", pretrain(of(folder / "whole"), archive, quiet=True)


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "run")
    return tmp_path / "run"


def newest(run):
    return list_checkpoints(run / "pretrain" / "checkpoints")[-1]


def go_on(run, archive) -> PretrainResult:
    return pretrain(of(run), archive, quiet=True)


def refusal(run, archive, kind=InputError) -> str:
    """The one line with which continuing ends; no checkpoint is changed by it."""
    before = {path: path.read_bytes() for path in run.rglob("step-*/*")}
    with pytest.raises(kind) as caught:
        go_on(run, archive)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in run.rglob("step-*/*")} == before
    return str(caught.value)


def split_header(content: bytes) -> tuple[dict, bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_header(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def edit(path, name, change):
    """Save the tensors anew as another program would, without our digest, one of them changed or (None) left out."""
    metadata = split_header(path.read_bytes())[0].get("__metadata__", {})
    metadata.pop("digest", None)
    tensors = load_file(path)
    changed = change(tensors.pop(name, None))
    save_file(tensors if changed is None else {**tensors, name: changed}, path, metadata)


MOMENTS = {
    "cls_token.exp_avg": (lambda t: torch.zeros(1, 1, 8), "has shape (1, 1, 8), not (1, 1, 16)"),
    "cls_token.exp_avg_sq": (lambda t: torch.zeros(1, 1, 64), "has shape (1, 1, 64), not (1, 1, 16)"),
    "norm.bias.exp_avg_sq": (lambda t: None, "is missing"),
    "norm.bias.step": (lambda t: None, "is missing"),
    "norm.bias.max_exp_avg_sq": (lambda t: torch.zeros(16), "is unknown"),
    "norm.bias.exp_avg": (lambda t: t.to(torch.int8), "holds int8, not float32"),
    "norm.weight.exp_avg_sq": (lambda t: t.half(), "holds float16, not float32"),
    "norm.weight.exp_avg": (lambda t: t.fill_(torch.nan), "holds NaN or infinite values"),
    "decoders.s1.head.bias.exp_avg_sq": (lambda t: t - 1, "holds negative values"),
    "norm.weight.step": (lambda t: t + 4, "is 7, not 3"),
    "decoders.s1.norm.bias.step": (lambda t: torch.full((2,), 3.0), "has shape (2,), not ()"),
}  # fmt: skip


@pytest.mark.parametrize("name", MOMENTS)
def test_moments_that_do_not_fit_the_model_are_refused_before_anything_is_loaded(run, archive, name):
    change, named = MOMENTS[name]
    edit(newest(run) / "optimizer.safetensors", name, change)
    message = refusal(run, archive)
    assert f"{name} {named}" in message and str(newest(run) / "optimizer.safetensors") in message
    assert f"remove {newest(run)} to continue from step-00000002" in message


def test_the_cure_works(run, made, archive):
    (newest(run) / "optimizer.safetensors").write_bytes(b"")
    shutil.rmtree(newest(run))
    result = go_on(run, archive)
    assert result.resumed_from == 2 and digest_of(result.model.state_dict()) == digest_of(made[1].model.state_dict())


STATES = {
    "step": ["3", 3.5, -1, None, True, [3], 10**30, 2],
    "sums": [None, [], {"loss": "1"}, {"loss": float("nan")}, {"x": 1.0}],
    "precision": [None, 32, "fp16", ["fp32"]], "data": [None, 1, {}], "config": [None, [], "{}", 3],
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_a_state_of_other_types_is_one_line(run, archive, name):
    path = newest(run) / "state.json"
    state = json.loads(path.read_text())
    for value in STATES[name]:
        path.write_text(json.dumps(state | {name: value}))
        message = refusal(run, archive)
        assert str(path) in message and ("remove" in message), (value, message)
    path.write_text(json.dumps({key: value for key, value in state.items() if key != name}))
    assert f"{path} is unreadable ({name}" in refusal(run, archive)


@pytest.mark.parametrize("text", ["null", "[]", "3", "{", "[" * 100_000, '{"step": 3}', "\x00"])
def test_a_state_that_is_no_object_is_one_line(run, archive, text):
    (newest(run) / "state.json").write_text(text)
    assert "state.json is unreadable" in refusal(run, archive)


def test_garbage_in_the_metrics_is_left_out(made, run, archive, capsys):
    good = json.dumps({"step": 1, "epoch": 1, "loss": 1.0, "loss_s1": 0.5, "loss_s2": 0.5, "grad_norm": 1.0})
    bad = ['{"step": 1', "null", "[1]", "{}", '{"step": "1"}', good.replace("0.5", "null"), good.replace("0.5", "NaN")]
    (run / "pretrain" / "metrics.jsonl").write_bytes("\n".join([good, *bad]).encode() + b"\n\xff\xfe\n")
    result = go_on(run, archive)
    assert result.history[0] == json.loads(good) and len(result.history) == 2
    assert "8 of 9 lines are no rows" in capsys.readouterr().out
    assert result.history[1]["loss"] == made[1].history[0]["loss"]


@pytest.mark.parametrize("what", ["grad_norm", "loss_s2"])
def test_a_step_that_is_not_finite_saves_nothing(run, archive, monkeypatch, what):
    loop = sys.modules["fusmae_lite.train.pretrain"]
    step, column = loop._step, {"loss_s2": 2, "grad_norm": 3}[what]

    def spoiled(run, bands, number):
        metrics = step(run, bands, number)
        metrics[column] = torch.inf if number == 4 else metrics[column]
        return metrics

    monkeypatch.setattr(loop, "_step", spoiled)
    message = refusal(run, archive, RunError)
    assert message.startswith(f"{what} is inf at step 4") and len(list_checkpoints(newest(run).parent)) == 2


@pytest.mark.parametrize("where", ["weights", "moments"])
def test_weights_and_moments_that_are_not_finite_are_not_saved(run, archive, monkeypatch, where):
    """A last update that overflows leaves a finite loss and gradient behind it."""
    loop = sys.modules["fusmae_lite.train.pretrain"]
    step = loop._step

    def spoiled(run, bands, number):
        metrics = step(run, bands, number)
        if number == 4:
            weight = run.system.norm.weight
            tensor = weight.data if where == "weights" else run.optimizer.state[weight]["exp_avg_sq"]
            tensor[0] = torch.inf
        return metrics

    monkeypatch.setattr(loop, "_step", spoiled)
    message = refusal(run, archive, RunError)
    assert message.startswith("norm.weight") and f"{newest(run)} is intact" in message


def test_weights_that_explode_in_the_last_step_are_not_kept(tmp_path, archive):
    """Finite weights of 1e30 give a held-out loss that is not: nothing of it is reported or stays on disk."""
    config = of(tmp_path / "run", max_steps=1)
    config = config.model_copy(update={"learning_rate": 1e30, "warmup_epochs": 0.0})
    with pytest.raises(RunError, match=r"held-out loss_s1 is (nan|inf) at step-00000001, which is not kept") as caught:
        pretrain(config, archive, quiet=True)
    assert "\n" not in str(caught.value) and not list(tmp_path.rglob("*.safetensors"))


def flip(rng, content: bytes) -> bytes:
    """One bit of it."""
    place, changed = rng.randrange(len(content)), bytearray(content)
    changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_early(rng, content: bytes) -> bytes:
    """One bit of the length of the header or of the header, where most is decided."""
    return flip(rng, content[:600]) + content[600:]


def cut(rng, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def grow(rng, content: bytes) -> bytes:
    return content + rng.randbytes(rng.randrange(1, 64))


def relabel(rng, content: bytes) -> bytes:
    """Another dtype, shape, place or type of one entry of the header."""
    header, data = split_header(content)
    name = rng.choice([name for name in header if name != "__metadata__"])
    key = rng.choice(["dtype", "shape", "data_offsets"])
    odd = {
        "dtype": ["F16", "I32", "U64", "BOOL", "C64", "F8_E4M3", "F4", "X", None],
        "shape": [[1], [-1], [2**62, 4], []],
        "data_offsets": [[0, 4], [0, 2**63], [8, 4], None],
    }
    header[name][key] = rng.choice(odd[key])
    return join_header(header, data)


def swap(rng, content: bytes) -> bytes:
    """Two tensors of one size change their names."""
    header, data = split_header(content)
    by_size: dict = {}
    for name, entry in header.items():
        if name != "__metadata__":
            by_size.setdefault(str(entry["shape"]), []).append(name)
    first, second = rng.sample(rng.choice([names for names in by_size.values() if len(names) > 1]), 2)
    header[first], header[second] = header[second], header[first]
    return join_header(header, data)


def retype(rng, content: bytes) -> bytes:
    """Another JSON type for a whole header, its metadata or one of them; for state.json, for one of its values."""
    odd = rng.choice([None, [], {}, 3, -1, "x", True, 1e308, [[]], {"a": {}}, float("nan")])
    if content[:1] == b"{":
        state = json.loads(content)
        part = rng.choice([state, state["config"], state["sums"]])
        part[rng.choice(list(part))] = odd
        return json.dumps(state).encode()
    header, data = split_header(content)
    where = rng.choice(["whole", "metadata", *header["__metadata__"]])
    if where == "whole":
        return join_header(odd, data)
    header["__metadata__"] = odd if where == "metadata" else {**header["__metadata__"], where: json.dumps(odd)}
    return join_header(header, data)


TENSORS, EVERY = ("model.safetensors", "optimizer.safetensors"), (flip, cut, grow, retype)
MUTATIONS = [(file, how) for file in TENSORS for how in (*EVERY, flip_early, flip_early, relabel, swap)]
MUTATIONS += [("state.json", how) for how in (*EVERY, retype, retype)]


@pytest.mark.parametrize("seed", range(3))
def test_a_changed_file_is_refused_in_one_line_or_changes_no_bit(made, run, archive, seed):
    wanted, folder = digest_of(made[1].model.state_dict()), newest(run)
    for number, (file, how) in enumerate(MUTATIONS):
        path, rng = folder / file, random.Random(100 * seed + number)
        whole = path.read_bytes()
        path.write_bytes(how(rng, whole))
        copy = run.with_name(f"copy-{number}")
        shutil.copytree(run, copy)
        try:
            result = pretrain(of(copy), archive, quiet=True)
        except (InputError, RunError) as error:
            assert "\n" not in str(error) and str(copy) in str(error), (file, how.__name__)
        else:
            assert digest_of(result.model.state_dict()) == wanted, (file, how.__name__)
        path.write_bytes(whole)
