"""Evaluation against known answers: separable features reach AP 1, shuffled labels the prior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from fusmae_lite.core.config import load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.evaluation import (
    average_precision,
    bootstrap_interval,
    class_prior,
    evaluate,
    frozen_features,
    labelled_subset,
    linear_probe,
    load_features,
    paired_comparison,
    random_encoder,
)
from fusmae_lite.evaluation.metrics import class_numbers, redraw_scores
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.train.pretrain import pretrain


def by_hand(labels, scores) -> float:
    """Average precision of one ranking without ties: the mean of the precision at each positive."""
    order = np.argsort(-scores)
    hits = np.asarray(labels)[order]
    return float(np.mean([hits[: i + 1].mean() for i in np.flatnonzero(hits)]))


def test_average_precision_by_hand():
    rng = np.random.default_rng(0)
    labels, scores = rng.random((40, 5)) < 0.3, rng.random((40, 5))
    result = average_precision(labels, scores)
    per_class = [by_hand(labels[:, c], scores[:, c]) for c in range(5)]
    assert result.per_class == pytest.approx(per_class)
    assert result.macro == pytest.approx(np.mean(per_class))
    assert result.micro == pytest.approx(by_hand(labels.ravel(), scores.ravel()))


@pytest.mark.parametrize("kind", ["uint8", "int8", "bool", "float16", "int64", "torch.bfloat16"])
def test_scores_and_labels_of_any_type_give_scikit_learns_value(kind):
    draw = np.random.default_rng(0)
    labels = draw.random((200, 5)) < 0.3
    scores = np.clip((labels * 0.2 + draw.random((200, 5))) * 90, 0, 120)
    scores = (
        torch.tensor(scores).bfloat16()
        if kind == "torch.bfloat16"
        else (scores > 50 if kind == "bool" else scores).astype(kind)
    )
    exact = np.asarray(scores.double() if kind == "torch.bfloat16" else scores, dtype=float)
    micro, macro = (average_precision_score(labels, exact, average=which) for which in ("micro", "macro"))
    for given in (labels, labels.astype("int8"), labels.astype(float), torch.tensor(labels)):
        result = average_precision(given, scores)
        assert (result.micro, result.macro) == pytest.approx((micro, macro), abs=1e-12)
    assert redraw_scores(labels, scores, draws=3)[0] == pytest.approx(micro)
    assert redraw_scores(labels, scores[None], draws=2)[0] == pytest.approx(micro)
    assert paired_comparison(labels, scores, scores, draws=5).difference == 0


@pytest.mark.parametrize("wrong", [[[-1, 1]], [[0, 2]], [[0.5, 1]], [[np.nan, 1]], [["a", "b"]]])
def test_labels_other_than_0_and_1_are_refused(wrong):
    labels, scores = np.array(wrong), np.array([[0.1, 0.9]])
    for refuses in (average_precision, redraw_scores, lambda y, s: paired_comparison(y, s, s)):
        with pytest.raises(InputError, match="labels hold"):
            refuses(labels, scores)
    with pytest.raises(InputError, match="labels hold"):
        labelled_subset(labels, 1.0, 0)
    with pytest.raises(InputError, match="labels hold"):
        class_numbers(labels)


@pytest.mark.parametrize("shape", [(0,), (4,), (0, 3), (3, 0)])
def test_empty_and_flat_input_is_refused_in_one_line(shape):
    with pytest.raises(InputError, match="one score per patch and class"):
        average_precision(np.zeros(shape, bool), np.zeros(shape))


def test_a_class_without_positive_is_named_and_left_out():
    labels, scores = np.array([[1, 0], [0, 0]], bool), np.array([[0.9, 0.8], [0.1, 0.7]])
    result = average_precision(labels, scores, ["water", "peat"])
    assert result.undefined == ("peat",) and np.isnan(result.per_class[1])
    assert result.macro == result.micro == 1.0
    with pytest.raises(InputError, match="no class"):
        average_precision(np.zeros((2, 2), bool), scores)
    with pytest.raises(InputError, match="NaN"):
        average_precision(labels, np.full((2, 2), np.nan))
    with pytest.raises(InputError, match="one score"):
        average_precision(labels, scores[:, :1])


def test_separable_features_reach_one_and_shuffled_labels_the_prior():
    rng = torch.Generator().manual_seed(0)
    y = (torch.rand(600, 3, generator=rng) < 0.3).float()
    x = y @ torch.randn(3, 8, generator=rng) + 0.01 * torch.randn(600, 8, generator=rng)
    config = load_preset("paper", probe_epochs=60, probe_learning_rate=1e-2)
    scores = linear_probe(x[:400], y[:400], x[400:], config).numpy()
    assert average_precision(y[400:].numpy(), scores).micro > 0.999
    shuffled = y[torch.randperm(600, generator=rng)]
    chance = average_precision(shuffled[400:].numpy(), linear_probe(x[:400], shuffled[:400], x[400:], config).numpy())
    assert chance.micro == pytest.approx(float(y.mean()), abs=0.1)


def test_probe_follows_its_seed_and_refuses_misfits():
    x, y = torch.randn(20, 4), torch.ones(20, 2)
    config = load_preset("smoke")
    assert torch.equal(linear_probe(x, y, x, config, 1), linear_probe(x, y, x, config, 1))
    assert not torch.equal(linear_probe(x, y, x, config, 1), linear_probe(x, y, x, config, 2))
    with pytest.raises(InputError, match="wide"):
        linear_probe(x, y, torch.randn(3, 5), config)
    with pytest.raises(InputError, match="no labelled"):
        linear_probe(x[:0], y[:0], x, config)


def test_interval_holds_the_estimate_and_narrows_with_patches():
    rng = np.random.default_rng(1)
    labels = rng.random((400, 4)) < 0.4
    scores = labels + rng.normal(size=(400, 4))
    wide, narrow = (bootstrap_interval(labels[:n], scores[:n]) for n in (20, 400))
    assert narrow[0] < average_precision(labels, scores).micro < narrow[1]
    assert narrow[1] - narrow[0] < 0.6 * (wide[1] - wide[0])


def test_features_are_cached_and_change_with_what_they_depend_on(tiny, archive, tmp_path, monkeypatch):
    model = FusMAE(tiny.architecture())
    first = frozen_features(model, archive, "test", ("s1", "s2"), tmp_path)
    assert first.x.shape == (18, 16) and first.y.shape == (18, 19) and not first.cached
    assert torch.equal(first.y.bool(), torch.from_numpy(archive.labels[archive.split("test")]))
    monkeypatch.setattr(FusMAE, "encode", lambda *a, **k: pytest.fail("the encoder ran although the cache was there"))
    again = frozen_features(model, archive, "test", ("s1", "s2"), tmp_path)
    assert again.cached and torch.equal(again.x, first.x)
    monkeypatch.undo()
    for change in ({"split": "val"}, {"sensors": ("s1",)}, {"pooling": "cls"}):
        other = frozen_features(
            model, archive, **{"split": "test", "sensors": ("s1", "s2"), **change}, cache_dir=tmp_path
        )
        assert not other.cached
    assert not frozen_features(random_encoder(model, 1), archive, "test", ("s1", "s2"), tmp_path).cached


def test_features_of_something_else_are_refused(tiny, archive, tmp_path):
    model = FusMAE(tiny.architecture())
    both = ("s1", "s2")
    train, test = (frozen_features(model, archive, split, both, tmp_path) for split in ("train", "test"))
    assert torch.equal(
        linear_probe(train, train.y, test, tiny), linear_probe(train.x, train.y, test.x, tiny)
    )  # same encoder, sensors and classes: as if they were plain tensors
    others = {
        "encoder": frozen_features(random_encoder(model, 1), archive, "test", both),
        "sensors": frozen_features(model, archive, "test", ("s1",)),
        "pooling": frozen_features(model, archive, "test", both, pooling="cls"),
        "classes": replace(test, origin=replace(test.origin, classes=("water",))),
    }
    for name, features in others.items():
        with pytest.raises(InputError, match=f"features of {name}"):
            linear_probe(train, train.y, features, tiny)
    wider = FusMAE(load_preset("smoke", **{**tiny.model_dump(exclude={"preset"}), "width": 32}).architecture())
    with pytest.raises(InputError, match="16 wide, test features 32"):
        linear_probe(train.x, train.y, frozen_features(wider, archive, "test", both).x, tiny)
    first, second = sorted(tmp_path.glob("features-*"))
    for name, value in {"archive": "v1 /elsewhere", "split": "val", "sensors": ("s2",), "patches": "x"}.items():
        with pytest.raises(InputError, match=f"features of {name}") as caught:
            load_features(first, replace(load_features(first).origin, **{name: value}))
        assert str(first) in str(caught.value) and "\n" not in str(caught.value)
    second.write_bytes(first.read_bytes())  # one split's features under the other's name
    with pytest.raises(InputError, match="features of patches|features of split"):
        for split in ("train", "test"):
            frozen_features(model, archive, split, both, tmp_path)


def test_no_feature_is_silently_nan(tiny, archive, tmp_path):
    model = FusMAE(tiny.architecture())
    torch.nn.init.constant_(model.norm.bias, float("nan"))
    with pytest.raises(InputError, match="not finite"):
        frozen_features(model, archive, "val", ("s2",), tmp_path)
    assert not list(tmp_path.glob("features-*"))
    x, y = torch.randn(4, 3), torch.ones(4, 2)
    for train, test in ((x, x * torch.nan), (x * torch.inf, x)):
        with pytest.raises(InputError, match="NaN or infinite"):
            linear_probe(train, y, test, tiny)
    with pytest.raises(InputError, match="labels of 3"):
        linear_probe(x, y[:3], x, tiny)


def test_a_head_of_another_width_is_refused(tiny):
    from fusmae_lite.evaluation.converged import prior_head
    from fusmae_lite.evaluation.finetune import Classifier

    classifier = Classifier(FusMAE(tiny.architecture()), prior_head(torch.randn(4, 32), torch.ones(4, 19)), "mean")
    with pytest.raises(InputError, match="16 features for s2, the head takes 32"):
        classifier({"s2": torch.zeros(1, 12, 120, 120)})


def test_features_are_those_of_an_unmasked_encoder(tiny, archive):
    from fusmae_lite.data.pairs import PairDataset

    model = FusMAE(tiny.architecture()).eval()
    features = frozen_features(model, archive, "val", ("s2",))
    item = PairDataset(archive, split="val")[3]
    with torch.no_grad():
        expected = model.encode({"s2": item["images"]["s2"][None]}).pooled()[0]
    assert torch.allclose(features.x[3], expected, atol=1e-5)


def test_class_prior_ranks_by_frequency():
    y = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert class_prior(y, 3).tolist() == [[1.0, 0.5]] * 3


def test_the_table_end_to_end(tiny, archive):
    pretrain(tiny, archive, quiet=True)
    rows = evaluate(tiny, archive)
    systems = ("band statistics", "random encoder", "Fus-MAE XAE")
    assert [*zip(rows.system, rows.sensors, strict=True)] == [
        ("class prior", "none"),
        *[(system, sensors) for sensors in ("S1", "S2", "S1+S2") for system in systems],
    ]
    for row in rows.itertuples():
        assert 0 < row.low <= row.high <= 1 and 0 < row.macro <= 1 and (row.train, row.test) == (45, 18)
    folder = tiny.folder() / "evaluation"
    assert {p.name for p in folder.glob("table*")} == {f"table-linear.{end}" for end in ("json", "md", "csv")}
    assert evaluate(tiny, archive).equals(rows)  # from the cache, to the same numbers


@pytest.mark.parametrize("ties", [False, True])
def test_micro_ap_is_scikit_learns(ties):
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(3)
    for _ in range(20):
        labels, scores = rng.random((30, 5)) < 0.2, rng.random((30, 5))
        scores = np.round(scores, 1) if ties else scores
        labels[0, 0] = True
        expected = average_precision_score(labels.ravel(), scores.ravel())
        assert average_precision(labels, scores).micro == pytest.approx(expected, 1e-12)
