"""Rows of the attention and of its rollout through the layers, computed without the whole matrices.

Shapes in comments: B photos, N tokens (prefix and patches), d width of a head.
"""

from __future__ import annotations

import torch

# Rows of attention that exist at once while a rollout passes a layer. With 6 heads and 5,477 tokens they take
# 34 MB; the whole matrices of one layer would take 720 MB.
ROWS_AT_ONCE = 256


def rotate_patches(x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotate queries or keys by the positions of their patches; tokens before the patches are not changed.

    Parameters
    ----------
    x : torch.Tensor, shape (B, heads, N, d)
        The last of the N tokens are the patches.
    rotation : tuple of torch.Tensor, each (patches, d)
        Cosine and sine of each patch's angles; the second half of d repeats those of the first.

    Returns
    -------
    torch.Tensor, shape (B, heads, N, d)
    """
    cos, sin = rotation
    n_prefix = x.shape[2] - len(cos)
    prefix, patches = x[:, :, :n_prefix], x[:, :, n_prefix:]
    first, second = patches.chunk(2, dim=-1)
    turned = torch.addcmul(patches * cos, torch.cat([-second, first], dim=-1), sin)
    return torch.cat([prefix, turned], dim=2)


def attention_row(query: torch.Tensor, key: torch.Tensor, token: int, scale: float) -> torch.Tensor:
    """One token's attention to all tokens.

    Parameters
    ----------
    query, key : torch.Tensor, shape (B, heads, N, d)
    token : int
        Index of the token that attends, of N.
    scale : float
        Factor before the softmax, by convention ``d ** -0.5``.

    Returns
    -------
    torch.Tensor, shape (B, heads, N), float32
        Each row sums to 1.
    """
    return _weights(query[:, :, token : token + 1], key, scale).squeeze(2)


def roll_back(row: torch.Tensor, query: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
    """Carry a row of the rollout back through one layer: ``row @ (0.5 * mean over heads + 0.5 * identity)``.

    Parameters
    ----------
    row : torch.Tensor, shape (B, N), float32
        Shares of the layer's outputs.
    query, key : torch.Tensor, shape (B, heads, N, d)
    scale : float

    Returns
    -------
    torch.Tensor, shape (B, N), float32
        Shares of the layer's inputs.
    """
    heads, n = query.shape[1:3]
    through = torch.zeros_like(row)
    for start in range(0, n, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        weights = _weights(query[:, :, rows], key, scale)  # (B, heads, rows, N)
        through += torch.einsum("br,bhrn->bn", row[:, rows], weights)
    return 0.5 * row + (0.5 / heads) * through


def _weights(query: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
    # Always in float32, because a softmax over thousands of patches consists of small numbers.
    return torch.softmax((query.float() * scale) @ key.float().transpose(-1, -2), dim=-1)
