"""Evaluation on a device that is not there: everything is sent to it, computed here, and must come out the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import TINY
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.data import get_worker_info

from fusmae_lite.core.config import load_preset
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation import FineTuneSettings, evaluate, fine_tune, frozen_features, heldout_losses
from fusmae_lite.evaluation import table as table_module
from fusmae_lite.systems import build_model
from fusmae_lite.systems.weights import save_model
from fusmae_lite.train import heldout as heldout_module
from fusmae_lite.train.heldout import band_means, drawn_rows

CUDA = torch.device("cuda")
SMALL = {**TINY, "image_size": 48, "probe_seeds": 1, "finetune_epochs": 1, "finetune_batch_size": 15}


class Pretend(TorchFunctionMode):
    """What is sent to a GPU stays here and is noted; every tensor says that it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.parameters: list[tuple[int, ...]] = []
        self.tensors: list[tuple[int, ...]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == torch.Tensor.device.__get__:
            return CUDA
        if func == torch._C._nn._parse_to:  # Module.to asks it what it was given
            return func(*args, **(kwargs or {}))
        if func == torch.Tensor.to and CUDA in args[1:]:
            (self.parameters if isinstance(args[0], nn.Parameter) else self.tensors).append(tuple(args[0].shape))
        here = [torch.device("cpu") if isinstance(a, torch.device) else a for a in args]
        kwargs = {k: torch.device("cpu") if isinstance(v, torch.device) else v for k, v in (kwargs or {}).items()}
        return func(*here, **kwargs)


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretend]:
    monkeypatch.setattr(table_module, "choose_device", lambda config: CUDA)
    with pytest.warns(UserWarning, match="pin_memory"):
        yield Pretend()


def prepared(folder: Any, **changes: Any) -> tuple[Any, Any]:
    config = load_preset("smoke", run_dir=str(folder), **{**SMALL, **changes})
    torch.manual_seed(0)
    save_model(folder / "model.safetensors", build_model(config))
    return config, folder / "model.safetensors"


@pytest.mark.parametrize("protocol", ["linear", "finetune"])
def test_evaluation_sends_models_bands_and_labels_to_the_device(protocol, tmp_path, archive, pretend):
    config, weights = prepared(tmp_path, protocol=protocol, modalities="s2", fusion="none")
    with pretend:
        there = evaluate(config, archive, weights)
    assert len(pretend.parameters) >= 2 * len(list(build_model(config).parameters()))  # the random one and ours
    sides = [shape[1:] for shape in pretend.tensors if len(shape) == 3]
    assert set(sides) == {(120, 120), (60, 60), (20, 20)}
    assert not [shape for shape in pretend.tensors if len(shape) == 4], "S2 as it lies on disk, a third of the bytes"
    assert ((15, 19) in pretend.tensors) == (protocol == "finetune")
    table_module.choose_device = lambda config: torch.device("cpu")
    assert evaluate(config.model_copy(update={"run_dir": str(tmp_path / "here")}), archive, weights).equals(there)


def test_a_processor_computes_in_fp32_unless_bf16_is_asked_for(archive, native_bf16):
    native_bf16(True)
    config = load_preset("smoke", **{**SMALL, "precision": "auto"})
    model = build_model(config)
    plain, auto, bf16 = (
        frozen_features(model, archive, "val", ("s1",), config=c)
        for c in (None, config, config.model_copy(update={"precision": "bf16"}))
    )
    assert torch.equal(plain.x, auto.x) and plain.origin == auto.origin
    difference = (bf16.x - plain.x).abs().max()
    assert 0 < difference < 0.1 and bf16.x.dtype == torch.float32
    assert replace(bf16.origin, encoder=plain.origin.encoder) == plain.origin != bf16.origin, "another cached file"


class OnlyInWorkers(PairDataset):
    """Refuses to be read by the training process."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        assert get_worker_info() is not None
        return super().__getitem__(i)


def test_workers_read_for_features_and_for_fine_tuning(archive):
    config = load_preset("smoke", **{**SMALL, "workers": 1})
    model, rows = build_model(config), archive.split("test")[:4]
    sensors, options = ("s1",), {"indices": rows, "modalities": ("s1",), "size": 48, "native": True}
    far, near = OnlyInWorkers(archive, **options), PairDataset(archive, **options)
    read = frozen_features(model, archive, "test", sensors, dataset=far, config=config)
    assert torch.equal(read.x, frozen_features(model, archive, "test", sensors, dataset=near).x)
    settings = FineTuneSettings(epochs=1, batch_size=4)
    tuned = [
        fine_tune(model, near, data, sensors, settings, config=c).scores for data, c in ((far, config), (near, None))
    ]
    assert torch.equal(*tuned)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("protocol", ["linear", "finetune"])
def test_a_gpu_gives_the_processors_table(protocol, tmp_path, archive):
    config, weights = prepared(tmp_path, protocol=protocol, device="cuda", precision="fp32")
    torch.cuda.reset_peak_memory_stats()
    there = evaluate(config, archive, weights)
    assert torch.cuda.max_memory_allocated() > 0
    here = evaluate(config.model_copy(update={"device": "cpu", "run_dir": str(tmp_path / "cpu")}), archive, weights)
    assert there.micro.tolist() == pytest.approx(here.micro.tolist(), abs=0.02)


def test_some_of_a_split_are_drawn_by_the_seed_and_not_the_first(archive, tiny, monkeypatch):
    rows = torch.arange(100, 1100).numpy()
    assert drawn_rows(rows, 1000, 0) is rows
    few = drawn_rows(rows, 50, 0)
    assert len(set(few.tolist())) == 50 and set(few) <= set(rows.tolist()) and (few[1:] > few[:-1]).all()
    assert few[0] < 200 and few[-1] > 1000 and (drawn_rows(rows, 50, 0) == few).all()
    assert (drawn_rows(rows, 50, 1) != few).any()
    opened = []

    class Noted(PairDataset):
        def __init__(self, *args: Any, **options: Any) -> None:
            opened.append(options["indices"].tolist())
            super().__init__(*args, **options)

    monkeypatch.setattr(heldout_module, "PairDataset", Noted)
    heldout_losses(build_model(tiny), archive, tiny, limit=5)
    band_means(archive, tiny, limit=5)
    val, train = (drawn_rows(archive.split(split), 5, tiny.seed).tolist() for split in ("val", "train"))
    every = archive.split("train").tolist()  # the kernel's width is chosen on 200 of them
    assert opened == [train, every, val, train] and train != every[:5]
