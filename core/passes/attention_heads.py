"""Whole heads leave torch's MultiheadAttention, of which the width that all layers share must stay as it is."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from featherweight.core.errors import UsageError
from featherweight.core.passes.steps import PruneChannelsStep


class FewerHeads(nn.Module):
    """Attention with some of the heads of `attention`: what that one gives with the other heads at zero.

    heads: int64 [H], which stay. Takes no masks, and gives no weights: a network that needs them is not given this.
    """

    batch_first: bool
    in_proj_bias = None
    """Asked for by torch's TransformerEncoderLayer, whose fast path knows no attention but torch's own."""
    _qkv_same_embed_dim = False

    def __init__(self, attention: nn.MultiheadAttention, heads: Tensor) -> None:
        super().__init__()
        self.num_heads, self.head_dim = len(heads), attention.head_dim
        self.batch_first = attention.batch_first
        rows = (heads[:, None] * self.head_dim + torch.arange(self.head_dim, device=heads.device)).flatten()
        weights = attention.in_proj_weight.detach().chunk(3)
        biases = (None,) * 3 if attention.in_proj_bias is None else attention.in_proj_bias.detach().chunk(3)
        self.query, self.key, self.value = (
            _linear(weight[rows], None if bias is None else bias[rows])
            for weight, bias in zip(weights, biases, strict=True)
        )
        out = attention.out_proj
        self.out_proj = _linear(out.weight.detach()[:, rows], None if out.bias is None else out.bias.detach())

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """As MultiheadAttention. Raises UsageError for masks."""
        if key_padding_mask is not None or attn_mask is not None or is_causal:
            raise UsageError("prune-channels: attention that has lost heads takes no masks")
        parts = [layer(one) for layer, one in ((self.query, query), (self.key, key), (self.value, value))]
        if not self.batch_first:
            parts = [part.transpose(0, 1) for part in parts]
        split = [part.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for part in parts]
        joined = functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        found: Tensor = self.out_proj(joined if self.batch_first else joined.transpose(0, 1))
        return found, None


def prune_heads(
    network: nn.Module, step: PruneChannelsStep, check: Callable[[], None]
) -> tuple[dict[str, int], list[str]]:
    """Take `step.ratio` of the heads of each attention out of `network`, in place: (attention -> heads that stay, those
    that are left whole because the network does not run without).

    Which heads go is decided by the L2 norm of all their weights. What stays of the width is a multiple of
    `step.round_to` and of a head's. check: raises UsageError for a network that does not run any more.
    """
    found, left = {}, []
    for name, attention in list(network.named_modules()):
        if type(attention) is not nn.MultiheadAttention or not name or not _known(attention):
            continue
        kept = _kept(attention, step)
        if kept == attention.num_heads:
            continue
        parent, _, last = name.rpartition(".")
        best = head_norms(attention).argsort(descending=True)[:kept].sort().values
        setattr(network.get_submodule(parent), last, FewerHeads(attention, best).train(attention.training))
        try:
            check()
            found[name] = kept
        except UsageError:
            setattr(network.get_submodule(parent), last, attention)
            left.append(name)
    return found, left


def head_norms(attention: nn.MultiheadAttention) -> Tensor:
    """The L2 norm of each head's weights, [heads]."""
    heads = attention.num_heads
    rows = attention.in_proj_weight.detach().view(3, heads, -1).square().sum((0, 2))
    columns = attention.out_proj.weight.detach().view(len(attention.out_proj.weight), heads, -1).square().sum((0, 2))
    return (rows + columns).sqrt()


def _kept(attention: nn.MultiheadAttention, step: PruneChannelsStep) -> int:
    head, heads = int(attention.head_dim), int(attention.num_heads)
    least = math.lcm(head, step.round_to)
    return min(heads, max(least, round(heads * head * (1 - step.ratio) / least) * least) // head)


def _known(attention: nn.MultiheadAttention) -> bool:
    """Whether it is the usual form: one width, nothing added to keys and values."""
    plain = attention.in_proj_weight is not None and attention.bias_k is None and not attention.add_zero_attn
    return plain and attention.in_proj_weight.shape[0] == 3 * attention.num_heads * attention.head_dim


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
