"""The converged probe is scikit-learn's logistic regression, chooses C by validation, and floors are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from fusmae_lite.core.config import load_preset
from fusmae_lite.core.errors import RunError
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation import average_precision, converged, converged_probe, floors, frozen_features, nearest_probe
from fusmae_lite.evaluation.converged import GRADIENT, _fit, prior_head
from fusmae_lite.evaluation.features import Features
from fusmae_lite.evaluation.probe import probe


def made(patches: int, features: int = 30, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of very different scales, four classes of which the last never occurs."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(patches, features, generator=rng)
    y = (x[:, :4] + torch.randn(patches, 4, generator=rng) > torch.tensor([0.0, 0.5, 1.5, 99.0])).float()
    return x * torch.logspace(-3, 3, features) + 5, y


@pytest.mark.parametrize("patches", [25, 400])
def test_it_is_scikit_learns_minimum(patches):
    x, y = made(patches)
    head = converged_probe(x, y, made(200, seed=1))
    assert head.gradient < GRADIENT
    z = (x.double().numpy() - head.mean) / head.std
    for column in range(3):
        peer = LogisticRegression(C=head.strength, tol=1e-10, max_iter=20_000).fit(z, y[:, column].numpy())
        assert head.weight[:, column] == pytest.approx(peer.coef_[0], abs=1e-4)
    assert not head.weight[:, 3].any() and head.bias[3] == pytest.approx(np.log(0.5 / (patches + 0.5)))


def test_c_has_the_lowest_validation_loss_of_its_neighbours():
    x, y = made(100)
    val_x, val_y = made(500, seed=1)
    best = converged_probe(x, y, (val_x, val_y)).strength
    losses = []
    for factor in (0.1, 1, 10):
        logits = converged._fit(x.double().numpy(), y.double().numpy(), best * factor, True).logits(val_x)
        losses.append(float(torch.nn.functional.binary_cross_entropy_with_logits(logits, val_y)))
    assert losses[1] == min(losses)


def test_a_c_at_the_edge_of_the_search_is_an_error(monkeypatch):
    monkeypatch.setattr("fusmae_lite.evaluation.converged.STEPS", 2)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=rng)
    y = (x[:, :1] > 0).float()  # separable: the larger C, the better
    with pytest.raises(RunError, match="edge of its grid"):
        converged_probe(x, y, (x, y))


def test_few_labels_are_the_papers_epochs_undoing():
    """What 20 epochs at batch 128 leave of a ranking that the same features hold."""
    (x, y), (test_x, test_y) = made(60), made(400, seed=2)
    config, features = load_preset("smoke"), [Features(x, y), Features(test_x, test_y)]
    scores = {
        how: average_precision(test_y[:, :3].numpy(), probe(features, None, config.model_copy(update={"probe": how}))
                               [:, :3].numpy()).micro
        for how in ("paper", "converged", "nearest")
    }  # fmt: skip
    assert scores["converged"] > scores["paper"] + 0.1 and scores["nearest"] > float(test_y[:, :3].mean())


def test_the_start_of_a_head_predicts_each_classs_frequency():
    x, y = made(50)
    head = prior_head(x, y)
    assert torch.sigmoid(head.logits(x))[0].numpy() == pytest.approx((y.sum(dim=0) + 0.5).numpy() / 51, abs=1e-5)
    assert torch.allclose(nearest_probe(x, y, x), y, atol=1e-2), "each patch is its own nearest neighbour"


def test_floors_are_features_of_the_images(archive):
    config = load_preset("smoke", image_size=40, patch_size=8).architecture()
    of = {name: frozen_features(floor, archive, "val", ("s1", "s2")) for name, floor in
          floors(config, ("s1", "s2"), seed=3).items()}  # fmt: skip
    assert {name: f.x.shape[1] for name, f in of.items()} == {
        "statistics": 28,
        "texture": 21 * 14,
        "convolutions": 1024,
    }

    image = PairDataset(archive, "val", size=40)[2]["images"]
    expected = [part for s in ("s1", "s2") for part in (image[s].mean((1, 2)), image[s].std((1, 2)))]
    assert torch.allclose(of["statistics"].x[2], torch.cat(expected), atol=1e-5)
    again = frozen_features(floors(config, ("s1", "s2"), seed=4)["convolutions"], archive, "val", ("s1", "s2"))
    assert not torch.allclose(of["convolutions"].x, again.x), "the filters follow their seed"


@pytest.mark.parametrize("seed", range(6))
def test_a_handful_of_patches_converges(seed):
    """Few patches of many features, equal ones and weak penalties: where L-BFGS ends before the gradient is small."""
    rng = np.random.default_rng(seed)
    patches, features = 2 + seed, 200
    x, y = torch.from_numpy(rng.normal(size=(patches, features))), torch.from_numpy(rng.random((patches, 9)) < 0.4)
    x[1] = x[0]
    for val in (None, (x[:2], y[:2].float())):
        head = converged_probe(x, y.float(), val)
        assert head.gradient < GRADIENT and head.strength in (0.0, 0.1)
    for strength in (1e-8, 1e-4, 1.0, 1e4, 1e8):
        assert _fit(x.numpy(), y.double().numpy(), strength, True).gradient < GRADIENT
