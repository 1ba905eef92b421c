"""AttentionViewer driven from Python: who asks, which layer, which head, what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
from viewer_helpers import SMALL, holds_still, memory_is_flat, small_model

from fusmae_lite import FusMAE, InputError, ModelConfig
from fusmae_lite.show.viewers import AttentionViewer
from fusmae_lite.show.viewers.attention import attention_matrix, entropy


@pytest.fixture(scope="module")
def model() -> FusMAE:
    return small_model()


@pytest.fixture
def attention(archive, model) -> AttentionViewer:
    return AttentionViewer(archive, model)


def test_each_control_of_the_attention_changes_the_picture(attention):
    viewer = attention
    holds_still(viewer, viewer.pair, (5,))
    for control in (viewer.direction, viewer.layer, viewer.head):
        holds_still(viewer, control, [value for _, value in control.options[1:]])
    holds_still(viewer, viewer.row, (0, 4))
    holds_still(viewer, viewer.column, (0, 4))


def test_a_click_chooses_who_asks(attention):
    before = attention.picture()
    attention.painted.value = f"s2 {3 * 5 + 1} 0"  # as the browser does
    assert attention.direction.value == ("s2", "s1") and (attention.row.value, attention.column.value) == (3, 1)
    assert attention.picture() != before
    assert "The patch in row 3, column 1 of Sentinel-2 looks at Sentinel-1" in attention.description
    frame = attention.shown[0][0].picture[3 * 24, 24 + 2]
    assert attention.shown[0][0].name == "s2" and frame.tolist() in ([1] * 3, [0] * 3)


def test_weights_are_those_of_the_model(attention):
    maps = attention.maps
    cross = attention_matrix(maps, ("cross", 0), 1)[:25, 25:]
    np.testing.assert_allclose(cross, maps["cross"]["s1"][0, 1].numpy() * 25, rtol=1e-6)
    np.testing.assert_allclose(cross.mean(axis=1), 1, rtol=1e-5)
    assert np.isnan(attention_matrix(maps, ("cross", 0), 1)[:25, :25]).all(), "no sensor looks at itself"
    plain = attention_matrix(maps, ("self", 0), None)[25:50, :25]
    np.testing.assert_allclose(plain, maps["self"][0][0].mean(0)[25:50, :25].numpy() * 51, rtol=1e-5)


def test_entropy_of_one_and_of_all():
    assert entropy(np.eye(4)) == pytest.approx(np.zeros(4), abs=1e-9)
    assert entropy(np.full((2, 8), 3.0)).tolist() == [3, 3]


@pytest.mark.parametrize(("fusion", "layers"), [("none", 2), ("xad", 3), ("both", 3)])
def test_attention_of_the_other_variants(archive, fusion, layers):
    viewer = AttentionViewer(archive, FusMAE(ModelConfig(patch_size=24, fusion=fusion, **SMALL)))
    assert len(viewer.layer.options) == layers and viewer.said == ""
    holds_still(viewer, viewer.layer, [viewer.layer.options[-1][1]])


def test_attention_keeps_nothing(attention):
    memory_is_flat(attention.row, range(5))


def test_attention_needs_two_sensors(archive):
    with pytest.raises(InputError, match="has one sensor, s1; choose"):
        AttentionViewer(archive, FusMAE(ModelConfig(patch_size=24, modalities=("s1",), **SMALL)))


def test_a_model_without_fusion_stands_beside(archive, model):
    plain = small_model(fusion="none")
    alone, both = AttentionViewer(archive, model), AttentionViewer(archive, model, plain=plain)
    assert both.picture() != alone.picture()
    assert "In the first block of the model without fusion S1 keeps" in both.description
    assert "In self-attention of block 1 S1 keeps" in alone.description
    before = both.picture()
    both.layer.value = ("self", 0)
    assert both.picture() != before
    with pytest.raises(InputError, match='fusion="none"'):
        AttentionViewer(archive, model, plain=small_model(fusion="xad"))


def test_what_is_said_of_a_matrix_is_in_it(archive):
    plain = small_model(fusion="none")
    viewer = AttentionViewer(archive, plain)
    own = viewer.maps["self"][0][0].mean(dim=0)[:25, :25].sum(dim=1).mean()
    assert f"In self-attention of block 0 S1 keeps {own:.0%}" in viewer.description
