"""DINO-MM: its views, its loss, its teacher, and that the loop it shares with the others trains and resumes it."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from conftest import TINY, pretrain_and_kill

from fusmae_lite.core.architecture import DinoConfig
from fusmae_lite.core.config import RunConfig, load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation import evaluate, frozen_features
from fusmae_lite.evaluation.finetune import FineTuneSettings, fine_tune
from fusmae_lite.model.blocks import BatchDropPath, draw_by_place, place
from fusmae_lite.systems import DINO, build_model
from fusmae_lite.systems.dino import distil
from fusmae_lite.systems.export import to_timm
from fusmae_lite.systems.views import blur, crop, draw_views, make_views, view_sides
from fusmae_lite.train.launch import launch
from fusmae_lite.train.optimise import build_optimizer, weight_decay_at
from fusmae_lite.train.pretrain import pretrain
from reproduce import load_plan

QUICK = {name: value for name, value in TINY.items() if name != "augment"}
QUICK |= {"image_size": 48, "patch_size": 8, "local_crops": 2}


def config_of(folder: object = "", **changes) -> RunConfig:
    return load_preset("smoke", run_dir=str(folder), system="dino", **{**QUICK, **changes})


def make(**changes) -> DINO:
    torch.manual_seed(0)
    return build_model(config_of(**changes))


def pair(batch: int = 3) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    return {name: torch.randn(batch, bands, 48, 48, generator=rng) for name, bands in (("s1", 2), ("s2", 12))}


def alone(tensor: torch.Tensor) -> torch.Tensor:
    """What `reduce` does with one process."""
    return tensor


PLAIN = {"light": (0.0, 1.0), "grey": False, "sigma": 0.0, "solarise": False, "keep": True}


def plain(drawn: dict[str, torch.Tensor], *keep: str) -> dict[str, torch.Tensor]:
    """The same crops, without any change of values but those in `keep`."""
    neutral = {n: torch.tensor(v).expand_as(drawn[n]).to(drawn[n].dtype) for n, v in PLAIN.items() if n not in keep}
    return drawn | neutral


# Views


def test_sides_are_dino_mms_and_else_the_nearest_multiples_of_a_patch():
    def sides(size, patch):
        return view_sides(DinoConfig(system="dino", image_size=size, patch_size=patch))

    assert sides(120, 8) == (112, 48) and sides(120, 24) == (120, 48)
    assert sides(256, 16) == (240, 96) and sides(24, 8) == (24, 16) and sides(120, 60) == (120, 120)


def test_crops_have_the_areas_asked_for_lie_inside_and_are_flipped():
    config = DinoConfig(system="dino")
    where = draw_views(config, 2000, torch.Generator().manual_seed(0))["where"]
    size, centre = where.diagonal(dim1=2, dim2=3).abs(), where[..., 2]
    assert (size + centre.abs() <= 1 + 1e-6).all()
    area, ratio = size.prod(-1), size[..., 0] / size[..., 1]
    for part, low, high in ((area[:, :2], 0.4, 1.0), (area[:, 2:], 0.05, 0.4)):
        assert low <= part.min() and part.max() <= high + 1e-6
        assert part.mean().item() == pytest.approx((low + high) / 2, abs=0.01)
    assert 0.75 - 1e-4 <= ratio.min() < 0.8 and 1.25 < ratio.max() <= 4 / 3 + 1e-4
    assert where[:, :, [0, 1], [0, 1]].lt(0).float().mean((0, 1)).tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    assert (where[:, :, 0, 1] == 0).all() and (where[:, :, 1, 0] == 0).all()


def test_a_crop_holds_the_pixels_of_its_window():
    """On a ramp, bilinear sampling is exact: each pixel of a view tells where it was taken."""
    place = (torch.arange(120.0) + 0.5) / 60 - 1
    ramp = torch.stack([place.expand(120, 120), place[:, None].expand(120, 120)])[None].expand(3, -1, -1, -1)
    where = draw_views(DinoConfig(system="dino"), 3, torch.Generator().manual_seed(1))["where"]
    crops = crop(ramp, where, 48)
    assert crops.shape == (3, 10, 2, 48, 48)
    out = (torch.arange(48.0) + 0.5) / 24 - 1
    x = where[..., 0, 0, None] * out + where[..., 0, 2, None]
    y = where[..., 1, 1, None] * out + where[..., 1, 2, None]
    edge = float(place[-1])  # beyond the last pixel's centre the edge is repeated
    assert torch.allclose(crops[:, :, 0], x[:, :, None].expand_as(crops[:, :, 0]).clamp(-edge, edge), atol=1e-5)
    assert torch.allclose(crops[:, :, 1], y[..., None].expand_as(crops[:, :, 1]).clamp(-edge, edge), atol=1e-5)


def test_sensors_are_dropped_half_the_time_each_alike_and_never_both():
    config = DinoConfig(system="dino", patch_size=24)
    keep = draw_views(config, 1000, torch.Generator().manual_seed(2))["keep"]
    assert keep.any(-1).all()
    assert (~keep).float().mean((0, 1)).tolist() == pytest.approx([0.25, 0.25], abs=0.02)
    assert (~keep).any(-1).float().mean(0).tolist() == pytest.approx([0.5] * 10, abs=0.06)
    drawn = draw_views(config, 4, torch.Generator().manual_seed(2))
    for views, part in zip(make_views(torch.randn(4, 14, 120, 120), drawn, config), ((0, 2), (2, 10)), strict=True):
        seen = torch.stack([views[:, :, :2].abs().sum((2, 3, 4)), views[:, :, 2:].abs().sum((2, 3, 4))], dim=-1) > 0
        assert torch.equal(seen, drawn["keep"][:, slice(*part)])
    only = DinoConfig(system="dino", modalities=("s2",))
    assert draw_views(only, 50, torch.Generator().manual_seed(2))["keep"].all()


def test_chances_of_the_colour_changes():
    drawn = draw_views(DinoConfig(system="dino"), 4000, torch.Generator().manual_seed(4))
    share = {name: (drawn[name] != 0).float().mean(0) for name in ("grey", "sigma", "solarise")}
    assert share["grey"].tolist() == pytest.approx([0.2] * 10, abs=0.03)
    assert share["sigma"].tolist() == pytest.approx([1.0, 0.1] + [0.5] * 8, abs=0.03)
    assert share["solarise"].tolist() == pytest.approx([0.0, 0.2] + [0.0] * 8, abs=0.03)
    light = drawn["light"] - torch.tensor([0.0, 1.0])
    assert light.abs().max() <= 0.4 and (light != 0).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert not torch.equal(light[:, :, 0], light[:, :, 1])  # the sun does not change the radar


def test_what_each_change_does_to_the_values():
    config, images = DinoConfig(system="dino", patch_size=24), torch.randn(2, 14, 120, 120)
    drawn = draw_views(config, 2, torch.Generator().manual_seed(5))
    view = make_views(images, plain(drawn), config)[0]

    def changed(name, value):
        return make_views(images, plain(drawn) | {name: torch.tensor(value).expand_as(drawn[name])}, config)[0]

    assert torch.allclose(changed("light", (0.3, 1.0)), view + 0.3, atol=1e-5)
    mean = view.mean((-1, -2), keepdim=True)
    assert torch.allclose(changed("light", (0.0, 1.4)), mean + 1.4 * (view - mean), atol=1e-5)
    assert torch.equal(changed("solarise", True), -view.abs())
    grey = changed("grey", True)
    assert torch.allclose(grey[:, :, :2], view[:, :, :2].mean(2, keepdim=True).expand(-1, -1, 2, -1, -1), atol=1e-5)
    assert torch.allclose(grey[:, :, 2:], view[:, :, 2:].mean(2, keepdim=True).expand(-1, -1, 12, -1, -1), atol=1e-5)


def test_blur_is_a_gaussian_of_its_own_sigma_and_0_is_none():
    point = torch.zeros(1, 2, 1, 41, 41)
    point[..., 20, 20] = 1.0
    none, some = blur(point, torch.tensor([[0.0, 1.5]]))[0, :, 0]
    assert torch.equal(none, point[0, 0, 0]) and some.sum().item() == pytest.approx(1, abs=1e-4)
    assert (some[22, 21] / some[20, 20]).item() == pytest.approx(math.exp(-(4 + 1) / (2 * 1.5**2)), rel=1e-4)
    flat = torch.ones(1, 1, 3, 12, 12)
    assert torch.allclose(blur(flat, torch.tensor([[2.0]])), flat, atol=1e-5)


def test_rows_of_a_batch_are_independent_of_the_others():
    config, images = config_of(), torch.randn(4, 14, 48, 48)
    drawn = draw_views(config, 4, torch.Generator().manual_seed(6))
    whole = make_views(images, drawn, config)
    half = make_views(images[2:], {name: draw[2:] for name, draw in drawn.items()}, config)
    assert all(torch.allclose(a[2:], b, atol=1e-5) for a, b in zip(whole, half, strict=True))


# Loss, teacher, centre


def test_loss_is_the_papers_in_numpy():
    rng = np.random.default_rng(0)
    student, teacher, centre = rng.normal(size=(5, 6, 7)), rng.normal(size=(5, 2, 7)), rng.normal(size=7)

    def softmax(x):
        e = np.exp(x - x.max())
        return e / e.sum()

    terms, entropies = [], []
    for sample in range(5):
        for t in range(2):
            p = softmax((teacher[sample, t] - centre) / 0.04)
            entropies.append(-(p * np.log(p)).sum())
            terms += [-(p * np.log(softmax(student[sample, s] / 0.1))).sum() for s in range(6) if s != t]
    result = distil(*(torch.from_numpy(x) for x in (student, teacher, centre)), 0.04)
    assert len(terms) == 5 * 2 * 5 and result.loss.item() == pytest.approx(np.mean(terms), rel=1e-6)
    assert result.losses["entropy"].item() == pytest.approx(np.mean(entropies), rel=1e-6)
    assert sum(result.losses.values()).item() == pytest.approx(result.loss.item(), rel=1e-6)


def test_the_student_sees_every_view_and_the_teacher_only_whole_ones():
    model, images = make(drop_path=0.0).eval(), pair()
    drawn = model.draw(3, torch.Generator().manual_seed(1))
    views = make_views(torch.cat([images["s1"], images["s2"]], dim=1), drawn, model.config)
    student = torch.cat([model.student(part) for part in views], dim=1)  # nothing to standardise before the first step
    expected = distil(student, model.teacher(views[0]), model.centre, 0.04)
    assert student.shape == (3, 4, 128) and torch.equal(model(images, drawn).loss, expected.loss)


def test_gradients_reach_all_of_the_student_and_none_of_the_teacher():
    model = make(depth=1).train()
    model(pair(), generator=torch.Generator().manual_seed(0)).loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in model.student.parameters())
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    held = {id(p) for group in build_optimizer(model, config_of()).param_groups for p in group["params"]}
    assert held == {id(p) for p in model.student.parameters()}


def test_after_a_step_teacher_and_centre_are_moving_averages():
    model, images = make().train(), pair(4)
    for parameter in model.student.parameters():
        parameter.data += 0.1
    before = copy.deepcopy(model)
    model.centre.fill_(0.5)
    drawn = model.draw(4, torch.Generator().manual_seed(1))
    for rows in (slice(0, 1), slice(1, 4)):  # pieces of one batch, of unlike size
        model({k: v[rows] for k, v in images.items()}, {k: v[rows] for k, v in drawn.items()})
    model.after_step(30, 100, alone)
    m = 1 - (1 - 0.996) * (math.cos(math.pi * 0.3) + 1) / 2
    student, teacher = dict(before.student.named_parameters()), dict(before.teacher.named_parameters())
    for name, now in model.teacher.named_parameters():
        assert torch.allclose(now, m * teacher[name] + (1 - m) * student[name], atol=1e-7), name
        assert not torch.equal(now, teacher[name])
    views = make_views(torch.cat([images["s1"], images["s2"]], dim=1), drawn, model.config)[0]
    said = before.teacher(views).detach().mean((0, 1))
    assert torch.allclose(model.centre, 0.9 * 0.5 + 0.1 * said, atol=1e-6)
    model(images, drawn)
    teacher = copy.deepcopy(model.teacher.head.state_dict())
    model.after_step(100, 100, alone)  # at the end of training it has stopped moving
    assert all(torch.equal(now, teacher[name]) for name, now in model.teacher.head.state_dict().items())
    with torch.no_grad():
        model.eval()(images, drawn)
    assert model._sums is None  # looking at held-out patches moves no centre


def test_weight_decay_climbs_only_where_it_is_told_to():
    config = config_of(epochs=10)
    assert (config.weight_decay, config.weight_decay_end, config.clip_grad, config.augment) == (0.04, 0.4, 3.0, "none")
    decay = [weight_decay_at(step, 5, config) for step in range(50)]
    assert decay == sorted(decay) and decay[0] == 0.04 and decay[25] == pytest.approx(0.22)
    assert {weight_decay_at(step, 5, load_preset("smoke", system="satvit")) for step in range(20)} == {0.05}
    assert load_preset("paper", system="dino", weight_decay=0.1).weight_decay == 0.1


# The archive's own units


def low_contrast(images: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same images as an archive might have them that is darker than BigEarthNet and varies less in optics."""
    return {"s1": 0.8 * images["s1"] - 0.4, "s2": 0.25 * images["s2"] - 1.1}


def after_one_step(images: dict[str, torch.Tensor]) -> DINO:
    model = make(drop_path=0.0).train()
    model(images, generator=torch.Generator().manual_seed(0))
    model.after_step(0, 100, alone)
    return model.eval()


def test_colour_changes_and_dropped_sensors_are_relative_to_the_archives_spread():
    """Views of an archive of low contrast are those of the other, scaled: jitter, solarising and zeros with them."""
    images = pair(4)
    here, there = after_one_step(images), after_one_step(low_contrast(images))
    drawn = here.draw(4, torch.Generator().manual_seed(1))
    drawn["solarise"][:2, 1] = True
    assert not drawn["keep"].all() and (drawn["light"][..., 0] != 0).any()
    seen = [m.teacher.backbone.standardise(torch.cat([x["s1"], x["s2"]], dim=1), ("s1", "s2"))
            for m, x in ((here, images), (there, low_contrast(images)))]  # fmt: skip
    for one, other in zip(*(make_views(x, drawn, here.config) for x in seen), strict=True):
        assert torch.allclose(one, other, atol=1e-3)
    there.load_state_dict({**here.state_dict(), **{n: x for n, x in there.state_dict().items() if "moments" in n}})
    assert there(low_contrast(images), drawn).loss.item() == pytest.approx(here(images, drawn).loss.item(), rel=1e-3)
    latents = [there.encode(x).pooled() for x in (low_contrast(images), {"s1": low_contrast(images)["s1"]})]
    for ours, theirs in zip([here.encode(x).pooled() for x in (images, {"s1": images["s1"]})], latents, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)


def test_moments_are_those_of_the_images_seen_and_a_flat_band_is_not_blown_up():
    images = low_contrast(pair(8))
    images["s2"][:, 3] = -1.0
    mean, spread = after_one_step(images).teacher.backbone.band_scale()
    stacked = torch.cat([images["s1"], images["s2"]], dim=1)
    assert torch.allclose(mean, stacked.mean((0, 2, 3)), atol=1e-5)
    flat = torch.arange(14) == 5
    assert torch.allclose(spread[~flat], stacked.std((0, 2, 3), correction=0)[~flat], rtol=1e-3)
    assert spread[flat].item() == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("sensors", ["s1", ("s1", "s2")])
def test_timms_vit_needs_no_standardising(sensors):
    """to_timm compares the two on noise before it returns."""
    assert to_timm(after_one_step(low_contrast(pair(4))), sensors)[0]["patch_embed.proj.bias"].abs().max() > 0.01


@torch.no_grad()
def test_two_views_of_a_pair_have_something_in_common_on_an_archive_of_low_contrast():
    """In BigEarthNet's units the zeros of a dropped sensor are all that a network sees there, and it must drift."""
    rng = torch.Generator().manual_seed(5)
    colours = {n: torch.randn(96, bands, 1, 1, generator=rng) for n, bands in (("s1", 2), ("s2", 12))}
    images = low_contrast({n: x + torch.randn(96, x.shape[1], 48, 48, generator=rng) for n, x in colours.items()})
    model = after_one_step(images)
    heard = []
    model.teacher.register_forward_hook(lambda module, args, said: heard.append(said))
    model(images, generator=torch.Generator().manual_seed(1))
    said = heard[-1] - heard[-1].mean((0, 1))
    assert 2 * (said[:, 0] * said[:, 1]).sum() / said.square().sum() > 0.15


def test_the_loss_falls_and_stays_off_the_uniform_output_on_an_archive_of_low_contrast():
    """In BigEarthNet's units it rises from 3.4 to 4.7 of 4.85 in these steps."""
    rng = torch.Generator().manual_seed(5)
    places = {name: torch.randn(48, bands, 6, 6, generator=rng) for name, bands in (("s1", 2), ("s2", 12))}
    images = low_contrast({n: torch.nn.functional.interpolate(x, (48, 48), mode="bicubic") for n, x in places.items()})
    small = {"image_size": 48, "patch_size": 8, "width": 32, "depth": 1, "heads": 2, "warmup_epochs": 1, "epochs": 40}
    config = load_plan("laptop").config("dino", **small)
    torch.manual_seed(0)
    model = build_model(config).train()
    optimizer, history = build_optimizer(model, config), []
    for step in range(50):
        rows = torch.randperm(48, generator=rng)[:16]
        result = model({name: x[rows] for name, x in images.items()}, generator=rng)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        model.after_step(step, 120, alone)
        history.append((result.loss.item(), result.losses["entropy"].item()))
    first, last = (torch.tensor(part).mean(0).tolist() for part in (history[:10], history[-10:]))
    assert last[0] < 0.9 * first[0]
    assert 0.02 * math.log(128) < last[1] < 0.98 * math.log(128)


# Encoding


def test_a_missing_sensor_is_zeros_and_there_are_three_poolings():
    model, images = make(depth=6).eval(), pair()
    latents = model.encode({"s2": images["s2"]})
    zeros = model.encode({**images, "s1": torch.zeros_like(images["s1"])})  # the mean of each band
    assert torch.equal(latents.pooled(), zeros.pooled()) and not torch.equal(
        latents.pooled(), model.encode(images).pooled()
    )
    assert {how: latents.pooled(how).shape[1] for how in ("cls4", "cls", "mean")} == {"cls4": 64, "cls": 16, "mean": 16}
    assert torch.equal(latents.pooled("cls4")[:, -16:], latents.pooled("cls"))
    assert latents.tokens["s1+s2"].shape == (3, 36, 16)
    with pytest.raises(InputError, match="choose one of cls4, cls, mean"):
        latents.pooled("max")
    model.student.requires_grad_(False).backbone.cls_token.fill_(9.0)
    assert torch.equal(model.encode(images).pooled(), make(depth=6).eval().encode(images).pooled())  # the teacher's


def test_positions_of_smaller_views_are_resampled_from_the_whole():
    backbone = make(image_size=120).teacher.backbone
    assert torch.equal(backbone.positions_of(15)[0], backbone.positions.table)
    small = backbone.positions_of(5)[0]  # a third: bicubic samples fall on every third position's centre
    table = backbone.positions.table.view(15, 15, -1)
    assert small.shape == (25, 16) and torch.allclose(small.view(5, 5, -1), table[1::3, 1::3], atol=1e-6)


def test_fine_tuning_trains_a_copy_of_the_teachers_backbone_alone(archive):
    pairs = {split: PairDataset(archive, split, cache=True, size=48) for split in ("train", "test")}
    model = make()
    before = copy.deepcopy(model.state_dict())
    settings = FineTuneSettings(epochs=3, batch_size=15, learning_rate=1e-2, pooling="cls4")
    result = fine_tune(model, pairs["train"], pairs["test"], ("s1", "s2"), settings)
    assert result.losses[-1] < 0.95 * result.losses[0] and result.scores.shape == (18, 19)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    moved = dict(result.model.encoder.named_parameters())
    assert set(moved) == set(dict(model.teacher.backbone.named_parameters()))
    assert not any(torch.equal(before[f"teacher.backbone.{name}"], moved[name]) for name in moved)


# The loop


@pytest.mark.slow
def test_it_learns_from_the_bundled_patches_and_does_not_collapse(archive, tmp_path):
    """The recipe of RESULTS.md, for a quarter of its epochs."""
    result = pretrain(load_plan("laptop").config("dino", epochs=25, run_dir=str(tmp_path)), archive, quiet=True)
    first, last = result.history[0], result.history[-1]
    assert last["loss"] < 0.7 * first["loss"] and last["loss_kl"] < 0.8 * first["loss_kl"]
    assert last["loss"] == pytest.approx(last["loss_entropy"] + last["loss_kl"])
    assert 0.05 * math.log(128) < last["loss_entropy"] < 0.9 * math.log(128)
    assert set(result.heldout) == {"loss_entropy", "loss_kl"} and all(v > 0 for v in result.heldout.values())
    features = frozen_features(result.model, archive, "val", ("s1", "s2"), pooling="cls").x
    assert features.std(0).mean() > 0.2 and torch.linalg.matrix_rank(features - features.mean(0)) > 10


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_stopped_and_resumed_is_bit_identical_teacher_and_centre_too(archive, tmp_path):
    change = {"epochs": 2, "accumulate": 2}
    whole = pretrain(config_of(tmp_path / "whole", **change), archive, quiet=True)
    again = pretrain(config_of(tmp_path / "again", **change), archive, quiet=True)
    pretrain(config_of(tmp_path / "parts", max_steps=7, **change), archive, quiet=True)
    parts = pretrain(config_of(tmp_path / "parts", **change), archive, quiet=True)
    assert parts.resumed_from == 7 and parts.heldout == whole.heldout
    assert same(whole.model, parts.model) and same(whole.model, again.model)
    assert {"centre", "teacher.head.last", "student.head.last"} <= set(whole.model.state_dict())
    assert whole.model.centre.abs().sum() > 0
    assert not same(whole.model.teacher, whole.model.student)


@pytest.mark.slow
def test_killed_at_any_moment_ends_the_same(archive, tmp_path):
    config = config_of(tmp_path / "killed", epochs=12)
    pretrain_and_kill(config)
    resumed = pretrain(config, archive, quiet=True)
    whole = pretrain(config_of(tmp_path / "whole", epochs=12), archive, quiet=True)
    assert 0 < resumed.resumed_from < 60 and same(whole.model, resumed.model)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [False, True])
def test_two_processes_train_to_the_same_teacher_and_centre_as_one(archive, tmp_path, fsdp):
    change = {"epochs": 1, "max_steps": 3, "cache": False}  # with the stochastic depth of DINO's own
    assert config_of(tmp_path, **change).drop_path == 0.1
    one = pretrain(config_of(tmp_path / "one", **change), archive, quiet=True).model.state_dict()
    two = launch(config_of(tmp_path / "two", processes=2, fsdp=fsdp, **change)).model.state_dict()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4
    assert torch.allclose(one["centre"], two["centre"], atol=1e-6) and one["centre"].abs().max() > 1e-3


def test_it_has_its_rows_in_the_table(archive, tmp_path):
    config = config_of(tmp_path, max_steps=1, modalities="s1,s2", probe_seeds=1)
    pretrain(config, archive, quiet=True)
    assert evaluate(config, archive).system.tolist() == [
        "class prior", *["band statistics", "random encoder", "DINO-MM"] * 3
    ]  # fmt: skip
    assert make().title == "DINO-MM"


def test_views_must_be_two_at_least():
    with pytest.raises(InputError, match="global_crops and local_crops"):
        config_of(global_crops=1, local_crops=0)
    with pytest.raises(InputError, match="no fusion xae"):
        config_of(fusion="xae")


def test_stochastic_depth_follows_a_samples_place_and_no_other():
    model = make(depth=3).train()
    draw_by_place(model)
    dropping = [module for module in model.modules() if isinstance(module, BatchDropPath)]
    assert {round(module.rate, 6) for module in dropping} == {0.05, 0.1} and len(dropping) == 4
    x = torch.ones(12 * 2, 5, 16)  # 12 samples of 2 views

    def run(module: BatchDropPath, rows: list[int], step: int = 1) -> torch.Tensor:
        place(model, torch.tensor(rows), 12, (0, step))
        return module(x[: 2 * len(rows)])[:, 0, 0].view(-1, 2)

    deep = dropping[-1]
    deep.rate = 0.5
    whole = run(deep, list(range(12)))
    assert set(whole.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(torch.cat([run(deep, [0, 1, 2]), run(deep, list(range(3, 12)))]), whole)
    assert torch.equal(run(deep, [7, 3]), whole[[7, 3]])
    assert not torch.equal(run(deep, list(range(12)), step=2), whole)
    dropping[0].rate = 0.5
    assert not torch.equal(run(dropping[0], list(range(12))), whole)
    assert torch.equal(deep.eval()(x), x)
