"""The configuration refuses what it cannot use, in one line that names the field and the cure."""

from __future__ import annotations

import pytest

from fusmae_lite.config import PRESETS, ModelConfig, RunConfig, describe_fields, load_preset
from fusmae_lite.errors import InputError


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


def test_strings_from_papermill_are_converted_exactly():
    c = load_preset("smoke", learning_rate="1e-4", cache="true", epochs="7", modalities="s2, s1", betas=[0.9, 0.99])
    assert (c.learning_rate, c.cache, c.epochs, c.modalities, c.betas) == (1e-4, True, 7, ("s2", "s1"), (0.9, 0.99))


@pytest.mark.parametrize("unset", ["", -1, -1.0, "-1"])
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


def test_every_field_is_described():
    assert all(field.description for field in RunConfig.model_fields.values())
    assert "learning_rate" in describe_fields()


def test_jupyter_shows_the_line_alone():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance()
    with capture_output() as shown:
        shell.run_cell("from fusmae_lite.config import load_preset\nload_preset('smoke', epochs='many')")
    lines = [line for line in shown.stdout.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("InputError: parameter 'epochs'")
