"""Equations 2-5 (XAttnEncoder), 10-11 (XAttnDecoder), and the attention maps they can return.

The paper writes them for two modalities. Here a modality attends to the concatenation of all others, which for two
is the paper's equation to the letter and for three or more grows linearly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from timm.layers import Attention, Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

Tokens = Mapping[str, Tensor]  # modality -> (B, n, D)


class CrossAttention(nn.Module):
    """CA(x, y) of eqs. 4-5: queries from x, keys and values from y, in H heads of width d_q = D / H.

    Args:
        width: D, a multiple of heads.
        heads: H.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def split(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q_x, K_y, V_y of eq. 4, each (B, H, n, d_q)."""
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(y).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, n_x, D), (B, n_y, D) -> (B, n_x, D), by whichever kernel is faster."""
        return self.proj(attend(*self.split(x, y)).transpose(1, 2).flatten(2))

    def map(self, x: Tensor, y: Tensor) -> Tensor:
        """The softmax of eq. 5, (B, H, n_x, n_y): row i says where query i of x looks in y. Rows sum to 1."""
        q, k, _ = self.split(x, y)
        return attention_map(q, k)

    def forward_unfused(self, x: Tensor, y: Tensor) -> Tensor:
        """Eq. 5 term by term, for teaching and for testing the fused path. Same shapes as :meth:`forward`."""
        attended = self.map(x, y) @ self.split(x, y)[2]
        return self.proj(attended.transpose(1, 2).flatten(2))


class SelfAttention(Attention):
    """timm's, with the kernel that :func:`attend` chooses."""

    def forward(self, x: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        """(B, L, D) -> (B, L, D). timm's Block hands a mask on, which no model here has."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Eq. 5 without its map: (B, H, n, d_q), twice (B, H, m, d_q) -> (B, H, n, d_q).

    On the CPU in bf16 torch's fused kernel makes a training step a third to four fifths slower than two products and a
    softmax; in fp32 they are even, and on a GPU the fused one saves memory and time.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        with torch.autocast("cpu", enabled=False):  # it would copy the map to fp32, where softmax computes anyway
            return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


def attention_map(q: Tensor, k: Tensor) -> Tensor:
    """Softmax(Q K^T / sqrt(d_q)) of eq. 5: (B, H, n, d_q), (B, H, m, d_q) -> (B, H, n, m)."""
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)


def self_attention_map(block: Block, x: Tensor) -> Tensor:
    """Attention weights of a timm block for its input x (B, L, D): (B, H, L, L). timm's fused path returns none."""
    attention = block.attn
    qkv = attention.qkv(block.norm1(x)).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return attention_map(attention.q_norm(qkv[0]), attention.k_norm(qkv[1]))


def others(tokens: Tokens, name: str) -> Tensor:
    """Everything `name` may attend to: the other modalities' tokens, concatenated along the token axis."""
    return torch.cat([value for key, value in tokens.items() if key != name], dim=1)


class XAttnEncoder(nn.Module):
    """The cross-attended patch projection of eqs. 2-3, which replaces the first encoder block.

    Our choices where the paper is silent: a LayerNorm per modality before CA, separate CA weights for each direction,
    one pre-norm MLP over the concatenation. An absent sensor is not attended to.

    Args:
        modalities: names of the sensors.
        width: D.
        heads: H.
        mlp_ratio: hidden width of the MLP over D.
    """

    def __init__(self, modalities: Sequence[str], width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width, eps=1e-6) for name in modalities})
        self.attentions = nn.ModuleDict({name: CrossAttention(width, heads) for name in modalities})
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def fus(self, tokens: Tokens) -> Tensor:
        """Eq. 2: x (+) y + CA(x, y) (+) CA(y, x), with (+) the concatenation. Returns (B, n_x + n_y, D)."""
        normed = {name: self.norms[name](x) for name, x in tokens.items()}
        fused = torch.cat(list(tokens.values()), dim=1)
        if len(tokens) == 1:
            return fused
        return fused + torch.cat([self.attentions[name](x, others(normed, name)) for name, x in normed.items()], dim=1)

    def forward(self, tokens: Tokens) -> Tensor:
        """Eq. 3: fus + MLP(fus). modality -> (B, n_i, D), returns (B, sum of n_i, D)."""
        fused = self.fus(tokens)
        return fused + self.mlp(self.norm(fused))

    def maps(self, tokens: Tokens) -> dict[str, Tensor]:
        """Attention of each modality over the others: modality -> (B, H, n_i, sum of n_j); none for one sensor."""
        return _maps(self.norms, self.attentions, tokens)


class XAttnDecoder(nn.Module):
    """Eqs. 10-11: cross-attention between the modality-biased latents, before they enter their decoders.

    Works at encoder width, pre-norm, with CA and MLP of its own for each modality (our choice).
    """

    def __init__(self, modalities: Sequence[str], width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width, eps=1e-6) for name in modalities})
        self.attentions = nn.ModuleDict({name: CrossAttention(width, heads) for name in modalities})
        self.mlp_norms = nn.ModuleDict({name: nn.LayerNorm(width, eps=1e-6) for name in modalities})
        self.mlps = nn.ModuleDict({name: Mlp(width, int(width * mlp_ratio)) for name in modalities})

    def forward(self, latents: Tokens) -> dict[str, Tensor]:
        """modality -> (B, n_i, D) in, the same shapes out. With one sensor only the MLP acts."""
        normed = {name: self.norms[name](z) for name, z in latents.items()}
        crossed = dict(latents)
        if len(latents) > 1:  # eq. 10
            crossed = {
                name: z + self.attentions[name](normed[name], others(normed, name)) for name, z in latents.items()
            }
        return {name: z + self.mlps[name](self.mlp_norms[name](z)) for name, z in crossed.items()}  # eq. 11

    def maps(self, latents: Tokens) -> dict[str, Tensor]:
        """Attention of each modality's latents over the others': modality -> (B, H, n_i, sum of n_j)."""
        return _maps(self.norms, self.attentions, latents)


def _maps(norms: nn.ModuleDict, attentions: nn.ModuleDict, tokens: Tokens) -> dict[str, Tensor]:
    if len(tokens) == 1:
        return {}
    normed = {name: norms[name](x) for name, x in tokens.items()}
    return {name: attentions[name].map(x, others(normed, name)) for name, x in normed.items()}
