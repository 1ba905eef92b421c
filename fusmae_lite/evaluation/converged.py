"""Probes without a schedule: a logistic regression brought to its minimum, and nearest neighbours.

A probe that counts epochs measures its own schedule as well: with few labels the paper's 20 epochs are 20 to 100 steps.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.neighbors import KNeighborsRegressor
from torch import Tensor

from fusmae_lite.core.errors import RunError

Array = NDArray[np.float64]

GRADIENT = 1e-6  # largest entry of the gradient of the mean loss at which the probe has converged
POLISH = 5  # Newton steps at most where L-BFGS ends before that
FEWEST = 5  # patches that it takes to choose C; with fewer it is 0.1
STEPS = 16  # C is searched in half decades around 0.1 and must not end at the edge of these many
FLAT = 1e-5  # a validation loss that falls by less is flat


@dataclass(frozen=True)
class Linear:
    """A converged head: logits are ``standardised features @ weight + bias``."""

    weight: Array  # (D, classes)
    bias: Array  # (classes,)
    mean: Array  # (D,) of the training features
    std: Array
    strength: float  # C, as scikit-learn counts it: of the summed loss against half the squared norm
    gradient: float  # largest entry that is left

    def logits(self, x: Tensor | Array) -> Tensor:
        """(patches, D) -> (patches, classes) float32."""
        scores = (np.asarray(x, dtype=np.float64) - self.mean) / self.std @ self.weight + self.bias
        return torch.from_numpy(scores).float()


def converged_probe(x: Tensor, y: Tensor, val: tuple[Tensor, Tensor] | None = None, scaled: bool = True) -> Linear:
    """Multi-label logistic regression on standardised features, by L-BFGS to a gradient below :data:`GRADIENT`.

    A class without a positive, or without a negative, gets its prior. RunError: not converged, or the best C lies at
    the edge of the search.

    Args:
        x: (patches, D) features.
        y: (patches, classes) 0 and 1.
        val: features and labels that choose C by their loss; None: every fifth training patch does. Fewer than
            :data:`FEWEST` choose nothing: C is 0.1.
        scaled: each feature by its own deviation; False: all by one.
    """
    features, labels = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if val is not None and len(val[0]) >= FEWEST:
        return _best(features, labels, *val, scaled)
    strength = 0.1
    held = np.arange(len(features)) % 5 == 4
    if val is None and held.sum() >= FEWEST:
        strength = _best(features[~held], labels[~held], features[held], labels[held], scaled).strength
    return _fit(features, labels, strength, scaled)


def prior_head(x: Tensor | Array, y: Tensor | Array, scaled: bool = True) -> Linear:
    """The head that every fit starts from: it standardises features and predicts each class's frequency."""
    features, labels = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    share = (labels.sum(axis=0) + 0.5) / (len(labels) + 1)
    weight, std = np.zeros((features.shape[1], labels.shape[1])), np.maximum(features.std(axis=0), 1e-6)
    if not scaled:
        std = np.full_like(std, np.sqrt((std**2).mean()))
    return Linear(weight, np.log(share / (1 - share)), features.mean(axis=0), std, 0.0, 0.0)


def nearest_probe(x: Tensor, y: Tensor, test_x: Tensor, k: int = 5) -> Tensor:
    """Mean label of the `k` nearest training patches by standardised features, nearer ones counting more."""
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0).clamp_min(1e-6)
    neighbours = KNeighborsRegressor(min(k, len(x)), weights="distance").fit(((x - mean) / std).numpy(), y.numpy())
    return torch.from_numpy(neighbours.predict(((test_x - mean) / std).numpy())).float()


def _best(x: Array, y: Array, val_x: Tensor | Array, val_y: Tensor | Array, scaled: bool) -> Linear:
    """The head whose C has the lowest validation loss: from 0.1 by half decades until both neighbours are worse."""
    target, best, parts = np.asarray(val_y, dtype=np.float64), -2, _decomposed(x, prior_head(x, y, scaled))
    heads: dict[int, Linear] = {}
    losses: dict[int, float] = {}
    while abs(best) < STEPS:
        for step in (best - 1, best, best + 1):
            if step not in losses:
                heads[step] = _fit(x, y, 10 ** (step / 2), scaled, parts)
                scores = heads[step].logits(val_x).double().numpy()
                losses[step] = float((np.logaddexp(0, scores) - target * scores).mean())
        lower = min(losses, key=losses.__getitem__)
        if lower == best or losses[best] - losses[lower] < FLAT:
            return heads[best]
        best = lower
    what = f"the best C of a probe on {len(x)} patches lies at the edge of its grid, {10 ** (best / 2):g}"
    raise RunError(f"{what}; use more validation patches")


def _decomposed(x: Array, head: Linear) -> tuple[Array, ...]:
    """The singular value decomposition of the standardised features: the same for every C."""
    return np.linalg.svd((x - head.mean) / head.std, full_matrices=False)


def _fit(x: Array, y: Array, strength: float, scaled: bool, parts: tuple[Array, ...] | None = None) -> Linear:
    """The minimum of the mean loss + |W|^2 / (2 C n), in the principal axes of `x`, each scaled by its curvature."""
    head, patches = replace(prior_head(x, y, scaled), strength=strength), len(x)
    learnt = np.flatnonzero((y.min(axis=0) == 0) & (y.max(axis=0) == 1))
    if not len(learnt):
        return head
    u, sizes, axes = parts or _decomposed(x, head)
    z, penalty = u * sizes, 1 / (strength * patches)
    target = y[:, learnt]
    scale = (1 / np.sqrt(0.1 * sizes**2 / patches + penalty))[:, None]

    def objective(flat: Array) -> tuple[float, Array]:
        parameters = flat.reshape(-1, len(learnt))
        w = parameters[:-1] * scale
        scores = z @ w + parameters[-1]
        value = (np.logaddexp(0, scores) - target * scores).sum() / patches + penalty / 2 * (w**2).sum()
        error = (expit(scores) - target) / patches
        return value, np.vstack([scale * (z.T @ error + penalty * w), error.sum(axis=0)]).ravel()

    start = np.vstack([np.zeros((len(sizes), len(learnt))), head.bias[learnt]])
    limit = GRADIENT * min(1.0, float(scale.min())) / 2
    options = {"gtol": limit, "ftol": 0, "maxiter": 5000, "maxfun": 10_000, "maxcor": 20}
    solved = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    parameters = solved.x.reshape(-1, len(learnt))
    for newton in range(POLISH + 1):  # where values no longer tell two steps apart, the gradient still does
        slope = objective(parameters.ravel())[1].reshape(parameters.shape)
        gradient = float(max(np.abs(axes.T @ (slope[:-1] / scale)).max(), np.abs(slope[-1]).max()))
        if gradient < GRADIENT:
            break
        if newton == POLISH:
            raise RunError(f"the probe has not converged: gradient {gradient:.1e} after {solved.nit} steps; lower C")
        design, ridge = np.hstack([z * scale.T, np.ones((patches, 1))]), np.diag(np.append(penalty * scale**2, 0))
        positive = expit(design @ parameters)
        hessians = (design.T * share @ design + ridge for share in (positive * (1 - positive) / patches).T)
        parameters = parameters - np.stack([np.linalg.solve(h, g) for h, g in zip(hessians, slope.T, strict=True)], 1)
    head.weight[:, learnt], head.bias[learnt] = axes.T @ (parameters[:-1] * scale), parameters[-1]
    return replace(head, gradient=gradient)
