"""The training loop: it learns, it resumes to the same bits, and it refuses what does not belong to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import TINY, pretrain_and_kill

from fusmae_lite.core.config import RunConfig, load_preset
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.train.checkpoints import latest_checkpoint, list_checkpoints
from fusmae_lite.train.optimise import build_optimizer, choose_device, learning_rate_at, parameter_groups
from fusmae_lite.train.pretrain import pretrain


def variant(config: RunConfig, **changes) -> RunConfig:
    return RunConfig(**{**config.model_dump(), **changes})


def same_weights(a: FusMAE, b: FusMAE) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture
def scored() -> None:
    """For the test that is about held-out pairs."""


@pytest.fixture(autouse=True)
def unscored(request, monkeypatch):
    """No others score them: that takes longer than to train a tiny model."""
    if "scored" not in request.fixturenames:
        monkeypatch.setattr(sys.modules["fusmae_lite.train.pretrain"], "heldout_losses", lambda *_: {})


@pytest.fixture(scope="module")
def finished(archive, tmp_path_factory):
    """An undisturbed run of three epochs, for all that compare with one or look at its files."""
    config = load_preset("smoke", run_dir=str(tmp_path_factory.mktemp("finished")), **TINY, tensorboard=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["fusmae_lite.train.pretrain"], "heldout_losses", lambda *_: {})
        return config, pretrain(config, archive, quiet=True)


@pytest.fixture(scope="module")
def stopped(archive, tmp_path_factory):
    """Folder of a run stopped after two steps; :func:`begun` is a copy."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["fusmae_lite.train.pretrain"], "heldout_losses", lambda *_: {})
        pretrain(load_preset("smoke", run_dir=str(folder), **TINY, max_steps=2), archive, quiet=True)
    return folder


@pytest.fixture
def begun(stopped, tiny):
    """Checkpoint of a run of `tiny` that was stopped after two steps."""
    shutil.copytree(stopped, tiny.folder())
    return latest_checkpoint(tiny.folder() / "pretrain" / "checkpoints")


def test_loss_falls_and_everything_is_written(tiny, archive, scored):
    result = pretrain(variant(tiny, epochs=12, learning_rate=1e-2), archive, quiet=True)
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < 0.65 * losses[0]
    # Unseen patches, far better than by each band's mean; three seeds gave 0.44 to 0.45 and 0.70 to 0.75 of its error.
    assert result.heldout["loss_s1"] < 0.6 * result.heldout["mean_s1"]
    assert result.heldout["loss_s2"] < 0.85 * result.heldout["mean_s2"]
    rows = [json.loads(line) for line in (tiny.folder() / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    assert rows == result.history and len(rows) == 12
    assert sorted(p.name for p in result.checkpoint.iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert len(list_checkpoints(result.checkpoint.parent)) == tiny.keep_checkpoints


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": "flips"},
        {"augment": "crops", "jitter": 1, "synthetic": True, "sensor_dropout": 0.4},
        {"sensor_dropout": 1.0},  # cross-attention never has a gradient, yet it has moments
    ],
)
def test_stopped_and_resumed_is_bit_identical(tiny, archive, tmp_path, changes):
    base = variant(tiny, drop_path=0.2, accumulate=2, **changes)
    whole = pretrain(variant(base, run_dir=str(tmp_path / "whole")), archive, quiet=True)
    for start, stop in ((0, 1), (1, 7), (7, 0)):  # within the first epoch, within the second, at the end
        config = variant(base, run_dir=str(tmp_path / "parts"), max_steps=stop)
        parts = pretrain(config, archive, quiet=True)
        assert parts.resumed_from == start
    assert same_weights(whole.model, parts.model)
    clock = ("pairs_per_second", "waiting_for_data")
    timeless = [[{k: v for k, v in row.items() if k not in clock} for row in r.history] for r in (whole, parts)]
    assert timeless[0] == timeless[1]


@pytest.mark.slow
def test_killed_at_any_moment_ends_the_same(tiny, archive, tmp_path):
    config = variant(tiny, epochs=12, run_dir=str(tmp_path / "killed"))
    whole = pretrain(variant(config, run_dir=str(tmp_path / "whole")), archive, quiet=True)
    pretrain_and_kill(config)
    resumed = pretrain(config, archive, quiet=True)
    assert 0 < resumed.resumed_from < 60
    assert same_weights(whole.model, resumed.model)


def test_a_finished_run_is_not_trained_again(finished, archive):
    config, first = finished
    again = pretrain(config, archive, quiet=True)
    assert same_weights(first.model, again.model) and again.history == first.history
    assert again.checkpoint == first.checkpoint


def test_accumulation_gives_the_same_gradient(tiny, archive, tmp_path):
    one, four = (variant(tiny, epochs=1, run_dir=str(tmp_path / str(n)), accumulate=n) for n in (1, 4))
    first = [pretrain(variant(c, max_steps=1), archive, quiet=True).model.state_dict() for c in (one, four)]
    for a, b in zip(first[0].values(), first[1].values(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)  # a step is 3e-4
    # AdamW forgets how long a gradient is; the log does not.
    rows = [pretrain(config, archive, quiet=True).history[0] for config in (one, four)]
    for name in ("loss", "grad_norm"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-3)


def test_the_caller_keeps_its_random_state(tiny, archive):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    pretrain(variant(tiny, max_steps=1), archive, quiet=True)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    "change", [{"width": 32}, {"seed": 1}, {"learning_rate": 5e-4}, {"fusion": "xad"}, {"epochs": 4}]
)
def test_a_folder_of_another_run_is_refused(tiny, archive, begun, change):
    with pytest.raises(InputError) as caught:
        pretrain(variant(tiny, **change), archive, quiet=True)
    assert next(iter(change)) in str(caught.value) and str(tiny.folder()) in str(caught.value)


def test_a_half_written_checkpoint_is_never_picked_up(begun):
    broken = begun.parent / "step-00000009"
    broken.mkdir()
    (broken / "model.safetensors").write_bytes(b"half")
    assert latest_checkpoint(begun.parent) == begun


def test_non_finite_loss_names_step_and_patches(tiny, archive, begun, monkeypatch):
    loop = sys.modules["fusmae_lite.train.pretrain"]  # the package attribute of that name is the function
    accumulate = loop._accumulate  # images that are not finite are refused before, so that it happens inside the model
    monkeypatch.setattr(loop, "_accumulate", lambda *given: accumulate(*given) * float("inf"))
    with pytest.raises(RunError) as caught:
        pretrain(tiny, archive, quiet=True)
    message = str(caught.value)
    assert "step 2" in message and "S2" in message and "\n" not in message
    assert latest_checkpoint(begun.parent) == begun


def test_a_loss_that_explodes_in_the_last_step_of_an_epoch_saves_nothing(tiny, archive, monkeypatch):
    loop, step = sys.modules["fusmae_lite.train.pretrain"], sys.modules["fusmae_lite.train.pretrain"]._step
    monkeypatch.setattr(loop, "_step", lambda run, bands, n: step(run, bands, n) * (float("nan") if n == 4 else 1.0))
    with pytest.raises(RunError, match="step 4"):
        pretrain(tiny, archive, quiet=True)
    assert latest_checkpoint(tiny.folder() / "pretrain" / "checkpoints") is None


@pytest.mark.parametrize(("native", "before", "now"), [(False, "fp32", "bf16"), (True, "bf16", "fp32")])
def test_a_checkpoint_of_another_precision_is_not_continued(tiny, archive, native_bf16, native, before, now):
    native_bf16(native)
    pretrain(variant(tiny, max_steps=1, precision="auto"), archive, quiet=True)
    (state,) = tiny.folder().rglob("state.json")
    assert json.loads(state.read_text())["precision"] == before
    native_bf16(not native)
    with pytest.raises(InputError, match=f"computed in {before}, this would be {now}"):
        pretrain(variant(tiny, precision="auto"), archive, quiet=True)
    native_bf16(native)
    assert pretrain(variant(tiny, precision="auto", max_steps=2), archive, quiet=True).resumed_from == 1


@pytest.mark.parametrize(("before", "now"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_a_precision_that_is_asked_for_is_not_changed_within_a_run(tiny, archive, before, now):
    pretrain(variant(tiny, max_steps=1, precision=before), archive, quiet=True)
    with pytest.raises(InputError, match=f"precision='{before}', not '{now}'"):
        pretrain(variant(tiny, precision=now), archive, quiet=True)


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"step": 1}'])
def test_a_damaged_state_is_one_line(tiny, archive, begun, damage):
    (begun / "state.json").write_bytes(damage)
    with pytest.raises(InputError, match="state.json is unreadable"):
        pretrain(tiny, archive, quiet=True)


def test_a_full_disk_is_reported_and_the_previous_checkpoint_stays_usable(tiny, archive, begun, finished):
    """The kernel refuses to let any file of the run grow beyond 8 kB, as a full disk would."""
    code = (
        "import resource, signal, sys; from fusmae_lite import RunConfig, pretrain\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "try:\n    pretrain(RunConfig.model_validate_json(sys.argv[1]))\n"
        "except RuntimeError as error:\n    print(type(error).__name__, error)"
    )
    process = subprocess.run([sys.executable, "-c", code, tiny.model_dump_json()], capture_output=True, text=True)
    message = process.stdout.splitlines()[-1]
    assert message.startswith("RunError checkpoint") and "could not be written" in message and str(begun) in message
    assert list_checkpoints(begun.parent) == [begun] and not list(begun.parent.glob(".*"))
    assert same_weights(pretrain(tiny, archive, quiet=True).model, finished[1].model)


def test_what_a_killed_process_left_is_cleared_away(tiny, archive):
    folder = tiny.folder() / "pretrain" / "checkpoints"
    (folder / ".step-00000003.77.tmp").mkdir(parents=True)
    pretrain(variant(tiny, max_steps=1), archive, quiet=True)
    assert [path.name for path in folder.iterdir()] == ["step-00000001"]


def test_recomputing_activations_changes_no_bit(tiny, archive, tmp_path):
    base = variant(tiny, drop_path=0.3, max_steps=3)
    runs = [
        pretrain(variant(base, run_dir=str(tmp_path / str(flag)), recompute=flag), archive, quiet=True)
        for flag in (False, True)
    ]
    assert same_weights(runs[0].model, runs[1].model)


def test_tensorboard_files_hold_the_metrics(finished):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config, result = finished
    events = event_accumulator.EventAccumulator(str(config.folder() / "pretrain" / "tensorboard"))
    events.Reload()
    written = [event.value for event in events.Scalars("loss_s2")]
    assert written == pytest.approx([row["loss_s2"] for row in result.history])
    assert {"learning_rate", "grad_norm", "pairs_per_second", "waiting_for_data"} <= set(events.Tags()["scalars"])


def test_learning_rate_warms_up_and_ends_at_the_minimum():
    config = load_preset("paper", min_learning_rate=1e-6)
    rates = [learning_rate_at(step, 10, config) for step in range(1000)]
    peak = rates.index(max(rates))
    assert peak == 50 and max(rates) == pytest.approx(1.5625e-4)
    assert rates[:51] == sorted(rates[:51]) and rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[525] == pytest.approx((1.5625e-4 + 1e-6) / 2, rel=1e-3)
    assert rates[-1] == pytest.approx(1e-6, rel=0.01)


def test_only_matrices_decay():
    model = FusMAE(load_preset("smoke", positions="learned", **{k: TINY[k] for k in ("width", "heads")}).architecture())
    decay, rest = (set(map(id, group["params"])) for group in parameter_groups(model, 0.05))
    for name, parameter in model.named_parameters():
        plain = parameter.ndim == 1 or any(word in name for word in ("cls_token", "mask_token", "positions"))
        assert (id(parameter) in rest) == plain and (id(parameter) in decay) != plain, name
    groups = build_optimizer(model, load_preset("smoke")).param_groups
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_absent_device_is_refused():
    with pytest.raises(InputError, match="cuda"):
        choose_device(load_preset("smoke", device="cuda"))
