"""Equations 2-5 (XAttnEncoder), 10-11 (XAttnDecoder), and the attention maps they can return.

The paper writes them for two modalities. Here a modality attends to the concatenation of all others, which for two
is the paper's equation to the letter and for three or more grows linearly.
"""

from collections.abc import Mapping, Sequence

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

Tokens = Mapping[str, Tensor]  # modality -> (B, n, D)


def attention_map(q: Tensor, k: Tensor) -> Tensor:
    """Softmax(Q K^T / sqrt(d_q)) of eq. 5: (B, H, n, d_q), (B, H, m, d_q) -> (B, H, n, m)."""
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)


class CrossAttention(nn.Module):
    """CA(x, y) of eqs. 4-5: queries from x, keys and values from y, in `heads` heads of width d_q = D / H."""

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
        """Eq. 5: (B, n_x, D), (B, n_y, D) -> (B, n_x, D).

        On the CPU in bf16 torch's fused kernel makes a training step a third to four fifths slower than two products
        and a softmax; in fp32 they are even, and on a GPU the fused one saves memory and time.
        """
        q, k, v = self.split(x, y)
        if q.device.type == "cpu" and q.dtype == torch.bfloat16:
            with torch.autocast("cpu", enabled=False):  # it would copy the map to fp32, where softmax computes anyway
                attended = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).flatten(2))

    def map(self, x: Tensor, y: Tensor) -> Tensor:
        """The softmax of eq. 5, (B, H, n_x, n_y): row i says where query i of x looks in y. Rows sum to 1."""
        q, k, _ = self.split(x, y)
        return attention_map(q, k)

    def forward_unfused(self, x: Tensor, y: Tensor) -> Tensor:
        """Eq. 5 term by term, for teaching and for testing :meth:`forward`."""
        attended = self.map(x, y) @ self.split(x, y)[2]
        return self.proj(attended.transpose(1, 2).flatten(2))


class SelfAttention(CrossAttention):
    """CA(x, x) in timm's ``Block``, with the weights of timm's ``Attention``."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True, **_unused: object) -> None:
        nn.Module.__init__(self)  # one matrix for q, k and v instead of CrossAttention's two
        self.heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def split(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v of x, each (B, H, L, d_q); y is x again."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor, y: Tensor | None = None, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        """(B, L, D) -> (B, L, D). timm's Block hands on a mask, which no model here uses."""
        return super().forward(x, x)


def others(tokens: Tokens, name: str) -> Tensor:
    """Everything `name` may attend to: the other modalities' tokens, concatenated along the token axis."""
    return torch.cat([value for key, value in tokens.items() if key != name], dim=1)


def concatenate(tokens: Tokens) -> Tensor:
    """The paper's (+): modality -> (B, n_i, D), returns (B, sum of n_i, D)."""
    return torch.cat(list(tokens.values()), dim=1)


class _Crossing(nn.Module):
    """A LayerNorm and a CA for each modality: separate weights for each direction, a choice the paper leaves open."""

    def __init__(self, modalities: Sequence[str], width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width, eps=1e-6) for name in modalities})
        self.attentions = nn.ModuleDict({name: CrossAttention(width, heads) for name in modalities})

    def normed(self, tokens: Tokens) -> dict[str, Tensor]:
        """What CA sees of each modality."""
        return {name: self.norms[name](x) for name, x in tokens.items()}

    def maps(self, tokens: Tokens) -> dict[str, Tensor]:
        """Attention of each modality over the others: modality -> (B, H, n_i, sum of n_j); none for one sensor."""
        normed = self.normed(tokens) if len(tokens) > 1 else {}
        return {name: self.attentions[name].map(x, others(normed, name)) for name, x in normed.items()}


class XAttnEncoder(_Crossing):
    """The cross-attended patch projection of eqs. 2-3, which replaces the first encoder block.

    Our choice where the paper is silent: one pre-norm MLP over the concatenation. An absent sensor is not attended to.
    """

    def __init__(self, modalities: Sequence[str], width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__(modalities, width, heads)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, tokens: Tokens) -> Tensor:
        """modality -> (B, n_i, D), returns (B, sum of n_i, D)."""
        fus = concatenate(tokens)
        if len(tokens) > 1:
            normed = self.normed(tokens)
            attended = {name: self.attentions[name](x, others(normed, name)) for name, x in normed.items()}
            fus = fus + concatenate(attended)  # eq. 2
        return fus + self.mlp(self.norm(fus))  # eq. 3


class XAttnDecoder(_Crossing):
    """Eqs. 10-11: cross-attention between the modality-biased latents, before they enter their decoders.

    Works at encoder width, pre-norm, with an MLP for each modality (our choice).
    """

    def __init__(self, modalities: Sequence[str], width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__(modalities, width, heads)
        self.mlp_norms = nn.ModuleDict({name: nn.LayerNorm(width, eps=1e-6) for name in modalities})
        self.mlps = nn.ModuleDict({name: Mlp(width, int(width * mlp_ratio)) for name in modalities})

    def forward(self, latents: Tokens) -> dict[str, Tensor]:
        """modality -> (B, n_i, D) in, the same shapes out. With one sensor only the MLP acts."""
        crossed = dict(latents)
        if len(latents) > 1:
            normed = self.normed(latents)
            attended = {name: self.attentions[name](x, others(normed, name)) for name, x in normed.items()}
            crossed = {name: z + attended[name] for name, z in latents.items()}  # eq. 10
        return {name: z + self.mlps[name](self.mlp_norms[name](z)) for name, z in crossed.items()}  # eq. 11
