"""What detector-free networks have in common: the comparison of all cells with all cells."""

from __future__ import annotations

import torch
from torch import Tensor

MASKED = -1e9  # a logit that leaves nothing of its exponential


def masked_logits(state0: Tensor, state1: Tensor, cells0: Tensor, cells1: Tensor) -> Tensor:
    """Scalar products (..., L, S) of states (..., C, h, w), very low where a cell (..., 1, h, w) has no content.

    Two more channels carry this in the product itself, which saves passes over a large matrix.
    """
    ones0, ones1 = torch.ones_like(cells0), torch.ones_like(cells1)
    wide0 = torch.cat((state0, (1.0 - cells0) * MASKED, ones0), dim=-3)
    wide1 = torch.cat((state1, ones1, (1.0 - cells1) * MASKED), dim=-3)
    return wide0.flatten(-2).transpose(-2, -1) @ wide1.flatten(-2)


def log_dual_softmax(logits: Tensor) -> Tensor:
    """Logarithm of the softmax over the rows (..., L, S) times that over the columns (LoFTR, eq. 3)."""
    return 2.0 * logits - log_sum_exp(logits, -2) - log_sum_exp(logits, -1)


def log_sum_exp(logits: Tensor, dim: int) -> Tensor:
    """As ``torch.logsumexp``, but in steps that ONNX Runtime executes fast, along the columns of a matrix, too."""
    largest = logits.amax(dim=dim, keepdim=True)
    return largest + torch.exp(logits - largest).sum(dim=dim, keepdim=True).log()


def best_pairs(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best column of each row (..., L), its value (..., L), and the best value of each column (..., S).

    A pair is mutually best exactly if both values are the same.
    """
    return values.argmax(dim=-1), values.amax(dim=-1), values.amax(dim=-2)


def cell_patches(features: Tensor, batch: Tensor, cells: Tensor, first: int, size: int, stride: int) -> Tensor:
    """Squares (M, size^2, F) of a map (B, F, H, W) at some of its cells, whose edge is continued outside of it.

    ``cells`` (M,) are numbered row by row, of ``stride`` features in both directions each, in image ``batch`` (M,)
    of the map; a square begins ``first`` features before its cell.
    """
    after = max(0, size - first - stride)
    padded = torch.nn.functional.pad(features, (first, after, first, after), mode="replicate")
    height, width = padded.shape[-2:]
    columns = features.shape[-1] // stride
    steps = torch.arange(size, device=features.device)
    row = cells // columns
    rows = (batch * height + row * stride)[:, None] + steps  # of all images, one below the other
    places = rows[:, :, None] * width + ((cells - row * columns) * stride)[:, None, None] + steps[None, None]
    return padded.permute(0, 2, 3, 1).reshape(-1, features.shape[1])[places.flatten(1)]
