"""Equations 1-11 in float64 NumPy, written from the paper's text and loops, not from the package's code.

Weights come in as plain arrays under the names of a state dict; nothing of torch or timm computes here.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erf

Array = np.ndarray
Weights = dict[str, Array]


def linear(w: Weights, name: str, x: Array) -> Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(w: Weights, name: str, x: Array) -> Array:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"]


def mlp(w: Weights, name: str, x: Array) -> Array:
    hidden = linear(w, f"{name}.fc1", x)
    return linear(w, f"{name}.fc2", 0.5 * hidden * (1 + erf(hidden / np.sqrt(2))))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def conv_projection(kernel: Array, bias: Array, image: Array) -> Array:
    """Eq. 1's Conv2d with kernel = stride = P, one output token at a time: (C, H, W) -> (N, D)."""
    p = kernel.shape[-1]
    tokens = []
    for row in range(0, image.shape[1], p):
        for column in range(0, image.shape[2], p):
            window = image[:, row : row + p, column : column + p]
            tokens.append(np.einsum("dchw,chw->d", kernel, window) + bias)
    return np.stack(tokens)


def sincos(grid: int, width: int) -> Array:
    """2-D sine-cosine positions: a quarter of the width each for sin(row), cos(row), sin(column), cos(column).

    Frequencies fall geometrically from 1 to 1/10000, as in Vaswani et al.; the order of the quarters is a convention.
    """
    omega = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    table = []
    for row in range(grid):
        for column in range(grid):
            table.append(
                np.concatenate(
                    [np.sin(row * omega), np.sin(column * omega), np.cos(row * omega), np.cos(column * omega)]
                )
            )
    return np.stack(table)


def attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    """Eq. 5 head by head: (n, D), (m, D), (m, D) -> (n, D)."""
    d_q = q.shape[-1] // heads
    out = []
    for h in range(heads):
        part = slice(h * d_q, (h + 1) * d_q)
        out.append(softmax(q[:, part] @ k[:, part].T / np.sqrt(d_q)) @ v[:, part])
    return np.concatenate(out, axis=-1)


def cross_attention(w: Weights, name: str, x: Array, y: Array, heads: int) -> Array:
    """CA(x, y) of eq. 4."""
    k, v = np.split(linear(w, f"{name}.kv", y), 2, axis=-1)
    return linear(w, f"{name}.proj", attention(linear(w, f"{name}.q", x), k, v, heads))


def xattn_encoder(w: Weights, name: str, x: Array, y: Array, heads: int) -> Array:
    """Eqs. 2-3 for x = s1, y = s2."""
    x_, y_ = layer_norm(w, f"{name}.norms.s1", x), layer_norm(w, f"{name}.norms.s2", y)
    ca_xy = cross_attention(w, f"{name}.attentions.s1", x_, y_, heads)
    ca_yx = cross_attention(w, f"{name}.attentions.s2", y_, x_, heads)
    fus = np.concatenate([x, y]) + np.concatenate([ca_xy, ca_yx])  # eq. 2
    return fus + mlp(w, f"{name}.mlp", layer_norm(w, f"{name}.norm", fus))  # eq. 3


def xattn_decoder(w: Weights, name: str, mine: str, z_i: Array, other: str, z_j: Array, heads: int) -> Array:
    """Eqs. 10-11 for modality `mine`."""
    i, j = layer_norm(w, f"{name}.norms.{mine}", z_i), layer_norm(w, f"{name}.norms.{other}", z_j)
    crossed = z_i + cross_attention(w, f"{name}.attentions.{mine}", i, j, heads)  # eq. 10
    return crossed + mlp(w, f"{name}.mlps.{mine}", layer_norm(w, f"{name}.mlp_norms.{mine}", crossed))  # eq. 11


def block(w: Weights, name: str, z: Array, heads: int) -> Array:
    """A pre-norm Transformer block (Dosovitskiy et al.)."""
    q, k, v = np.split(linear(w, f"{name}.attn.qkv", layer_norm(w, f"{name}.norm1", z)), 3, axis=-1)
    z = z + linear(w, f"{name}.attn.proj", attention(q, k, v, heads))
    return z + mlp(w, f"{name}.mlp", layer_norm(w, f"{name}.norm2", z))


def input_tokens(w: Weights, image: Array, name: str, visible: list[int], grid: int) -> Array:
    """Eq. 1: z_0,i of the visible patches."""
    kernel, bias = w[f"projections.{name}.proj.weight"], w[f"projections.{name}.proj.bias"]
    width = kernel.shape[0]
    return (conv_projection(kernel, bias, image) + sincos(grid, width))[visible]


def encoder(w: Weights, images: dict[str, Array], visible: dict[str, list[int]], config) -> tuple[Array, Array]:
    """Eqs. 1-8: z_N,1 and z_N,2."""
    x, y = (input_tokens(w, images[name], name, visible[name], config.grid) for name in ("s1", "s2"))
    early = config.fusion in ("xae", "both")
    z = xattn_encoder(w, "xattn_encoder", x, y, config.heads) if early else np.concatenate([x, y])
    z = np.concatenate([z, w["cls_token"][0]])  # eq. 6
    for i in range(config.depth - int(early)):
        z = block(w, f"blocks.{i}", z, config.heads)
    z = layer_norm(w, "norm", z)
    return z[: len(x)], z[len(x) : len(x) + len(y)]  # eq. 8


def decoder(w: Weights, name: str, latents: Array, visible: list[int], config) -> Array:
    """Eq. 9: D_i, predictions for all N patches, each (C, P, P) flattened."""
    prefix = f"decoders.{name}"
    canvas = np.repeat(w[f"{prefix}.mask_token"][0], config.tokens, axis=0)
    canvas[visible] = linear(w, f"{prefix}.embed", latents)
    z = canvas + sincos(config.grid, config.decoder_width)
    for i in range(config.decoder_depth):
        z = block(w, f"{prefix}.blocks.{i}", z, config.decoder_heads)
    return linear(w, f"{prefix}.head", layer_norm(w, f"{prefix}.norm", z))


def forward(
    w: Weights, images: dict[str, Array], visible: dict[str, list[int]], config
) -> tuple[dict[str, Array], float]:
    """Section 3 from top to bottom for one pair: predictions for every patch, and the loss over masked patches."""
    z = dict(zip(("s1", "s2"), encoder(w, images, visible, config), strict=True))
    if config.fusion in ("xad", "both"):
        name = "xattn_decoder"
        z = {
            "s1": xattn_decoder(w, name, "s1", z["s1"], "s2", z["s2"], config.heads),
            "s2": xattn_decoder(w, name, "s2", z["s2"], "s1", z["s1"], config.heads),
        }
    predictions = {name: decoder(w, name, z[name], visible[name], config) for name in z}
    loss = 0.0
    for name, image in images.items():
        errors = []
        for token in sorted(set(range(config.tokens)) - set(visible[name])):
            row, column = divmod(token, config.grid)
            p = config.patch_size
            target = image[:, row * p : (row + 1) * p, column * p : (column + 1) * p].ravel()
            errors.append(((predictions[name][token] - target) ** 2).mean())
        loss += np.mean(errors)
    return predictions, loss
