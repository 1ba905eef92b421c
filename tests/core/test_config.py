"""The configuration refuses what it cannot use, in one line that names the field and the cure."""

from __future__ import annotations

import math

import pytest

from fusmae_lite.core.config import PRESETS, ModelConfig, RunConfig, describe_fields, load_preset
from fusmae_lite.core.errors import InputError


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_load(preset):
    config = load_preset(preset)
    assert config.preset == preset and config.kept == 56
    assert config.folder().parts[-2:] == ("runs", preset)


def test_the_paper_preset_is_the_paper():
    c = load_preset("paper")
    assert (c.width, c.depth, c.heads, c.patch_size, c.image_size) == (768, 12, 12, 8, 120)
    assert (c.epochs, c.batch_size, c.learning_rate, c.mask_ratio) == (100, 400, 1.5625e-4, 0.75)
    assert (c.probe_epochs, c.probe_batch_size) == (20, 128)
    assert c.architecture() == ModelConfig()


def test_the_papers_recipe_comes_in_three_sizes():
    paper, small, large = (load_preset(name) for name in ("paper", "paper-small", "paper-large"))
    assert [(c.width, c.depth, c.heads) for c in (small, paper, large)] == [(384, 12, 6), (768, 12, 12), (1024, 24, 16)]
    size = {"preset", "width", "depth", "heads", "accumulate"}
    assert paper.model_dump(exclude=size) == small.model_dump(exclude=size) == large.model_dump(exclude=size)


def test_strings_from_papermill_are_converted_exactly():
    c = load_preset("smoke", learning_rate="1e-4", cache="true", epochs="7", modalities="s2, s1", betas=[0.9, 0.99])
    assert (c.learning_rate, c.cache, c.epochs, c.modalities, c.betas) == (1e-4, True, 7, ("s2", "s1"), (0.9, 0.99))


@pytest.mark.parametrize(
    "text", ["0.9,0.95", "(0.9, 0.95)", "[0.9, 0.95]", " ( 0.9 ,0.95, )", (0.9, 0.95), [0.9, "0.95"]]
)
def test_pairs_in_each_form_a_person_tries(text):
    assert load_preset("smoke", betas=text).betas == (0.9, 0.95)


@pytest.mark.parametrize("text", ["s1,s2", "('s1', 's2')", '["s1", "s2"]', "[s1, s2]", "(s1,s2,)", ["s1", "s2"]])
def test_sensors_in_each_form_a_person_tries(text):
    assert load_preset("smoke", modalities=text).modalities == ("s1", "s2")


def test_every_default_is_taken_back_as_help_prints_it():
    for name, field in RunConfig.model_fields.items():
        if field.default not in ("", None):
            given = {"image_size": 120} if name == "patch_size" else {}
            assert getattr(RunConfig(**{name: repr(field.default).strip("'")}, **given), name) == field.default, name
    for text in ("none", "None", "null"):
        assert RunConfig(weight_decay_end=text).weight_decay_end is None
        assert load_preset("smoke", system="dino", weight_decay_end=text).weight_decay_end is None


@pytest.mark.parametrize(
    ("given", "meant"),
    [({"lerning_rate": 1}, "learning_rate"), ({"mask_ration": 0.5}, "mask_ratio"), ({"preset": "labtop"}, "laptop")],
)
def test_a_misspelt_name_is_told_which_was_meant(given, meant):
    with pytest.raises(InputError, match=f"did you mean '{meant}'"):
        load_preset(**given)


@pytest.mark.parametrize("unset", ["", -1, -1.0, "-1", None])
def test_unset_means_as_the_preset_says(unset):
    assert load_preset("smoke", epochs=unset) == load_preset("smoke")


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"preset": "huge"}, "smoke, laptop, paper"),
        ({"colour": 1}, "colour"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"epochs": "2.5"}, "epochs"),
        ({"epochs": 0}, "epochs"),
        ({"cache": "perhaps"}, "cache"),
        ({"fusion": "late"}, "xae"),
        ({"masking": "blocks"}, "masking"),
        ({"modalities": "s1,s9"}, "s9"),
        ({"modalities": ["s1", "s1"]}, "each once"),
        ({"patch_size": 16}, "patch_size 16"),
        ({"heads": 5}, "heads"),
        ({"mask_ratio": 0.999}, "mask_ratio"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"accumulate": 3}, "accumulate"),
    ],
)
def test_bad_values_are_one_line(bad, named):
    with pytest.raises(InputError) as caught:
        load_preset(**bad)
    assert named in str(caught.value) and "\n" not in str(caught.value) and ";" in str(caught.value)


#: One more than what somebody might want, for each field that has a bound.
TOO_MUCH = {
    "validate_every": 10**9,
    "image_size": 10**30, "patch_size": 10**30, "width": 10**6, "depth": 10**5, "heads": 10**9, "mlp_ratio": 1e308,
    "decoder_width": 10**6, "decoder_depth": 10**5, "decoder_heads": 10**9, "head_outputs": 10**12,
    "global_crops": 10**6, "local_crops": 10**6, "teacher_temperature": 1e-320,
    "position_temperature": 1e30, "jitter": 1e6, "sensor_dropout": 1.5, "seed": 2**63, "epochs": 10**12,
    "batch_size": 10**12, "accumulate": 10**12, "learning_rate": 1e6, "min_learning_rate": 1e308, "betas": (0.9, 1.0),
    "warmup_epochs": 1e308, "weight_decay": 1e308, "weight_decay_end": 1e308, "clip_grad": 1e308, "processes": 1000,
    "workers": 10**6, "max_steps": 10**30, "checkpoint_every": 10**30, "keep_checkpoints": 10**30,
    "probe_epochs": 10**12, "probe_batch_size": 10**12, "probe_learning_rate": 1e308, "probe_seeds": 10**9,
    "finetune_epochs": 10**12, "finetune_batch_size": 10**12, "finetune_learning_rate": 1e308, "label_fraction": 2.0,
    "mask_ratio": 1.0, "drop_path": 1.0, "sensor_drop": 2.0, "teacher_momentum": 2.0,
}  # fmt: skip


def test_every_number_is_bounded_and_finite():
    numbers = {name for name, field in RunConfig.model_fields.items() if field.annotation not in (str, bool)}
    numbers -= {name for name in numbers if "Literal" in str(RunConfig.model_fields[name].annotation)}
    assert numbers - {"modalities", "loss_weights"} == set(TOO_MUCH)
    for name, value in TOO_MUCH.items():
        wrong = [value, str(value) if name != "betas" else [-0.1, 0.9], "1" * 20_000]
        if isinstance(value, float | tuple):
            wrong += [(odd, 0.9) if name == "betas" else odd for odd in (math.nan, math.inf, -math.inf)] + [
                "nan",
                "inf",
            ]
        for odd in wrong:
            with pytest.raises(InputError, match=name) as caught:
                load_preset(**{name: odd})
            assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


@pytest.mark.parametrize("given", ["s1=0.5,s2=2", " s2 = 2 , s1=.5", {"s2": 2, "s1": 0.5}, {"s1": "0.5", "s2": "2"}])
def test_loss_weights_are_the_same_however_they_are_written(given):
    config = load_preset("laptop", loss_weights=given)
    assert config.loss_weights == {"s1": 0.5, "s2": 2.0}
    assert RunConfig(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize("given", ["s1=1", "s2=1.00,s1=1", {"s1": 1, "s2": 1.0}, {}])
def test_a_weight_of_one_is_no_weight(given):
    assert load_preset("laptop", loss_weights=given) == load_preset("laptop")


@pytest.mark.parametrize(
    "bad",
    ["s1=-1", "s1=nan", "s1=inf", "s1=11", "s1=0,s2=0", "s3=1", "s1", "s1=2,s1=3", "s1=2,", "s1=x", "1,2", 3, [1, 2],
     {"s1": None}, {"s1": -0.5}, {1: 2}, "s1=2=3"],
)  # fmt: skip
def test_loss_weights_that_say_nothing_are_refused(bad):
    with pytest.raises(InputError, match="loss_weights") as caught:
        load_preset("laptop", loss_weights=bad)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("system", ["dino", "satvit"])
def test_loss_weights_need_a_loss_of_each_sensor(system):
    assert load_preset("laptop", system=system).loss_weights == {}
    with pytest.raises(InputError, match="loss_weights"):
        load_preset("laptop", system=system, loss_weights="s1=2")
    with pytest.raises(InputError, match="loss_weights"):
        load_preset("laptop", modalities="s2", loss_weights="s1=2")


def test_bounds_leave_room_for_real_models():
    assert load_preset("paper", width=8192, heads=64, depth=200, image_size=1120, batch_size=65_536, epochs=10_000)


def test_a_long_value_is_not_echoed_in_full():
    for name in ("epochs", "fusion", "modalities", "preset", "x" * 20_000):
        for value in ("y" * 20_000, "a b " * 5_000, 10**5000):
            with pytest.raises(InputError) as caught:
                load_preset(**{name: value})
            assert len(str(caught.value)) < 2_000, name


def test_every_field_is_described():
    assert all(field.description for field in RunConfig.model_fields.values())
    assert "learning_rate" in describe_fields()
    printed = {
        line.split(" = ")[0].strip(): line.split(" = ")[1] for line in describe_fields().splitlines() if " = " in line
    }
    for name in ("batch_size", "workers", "depth", "epochs"):  # what --preset paper takes, not what the class has
        assert printed[name].startswith(f"{getattr(load_preset('paper'), name)} ")


def test_jupyter_shows_the_line_alone():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance()
    with capture_output() as shown:
        shell.run_cell("from fusmae_lite.core.config import load_preset\nload_preset('smoke', epochs='many')")
    lines = [line for line in shown.stdout.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("InputError: parameter 'epochs'")
