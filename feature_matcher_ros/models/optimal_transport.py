"""Matching as transport of mass: what has no partner goes to a dustbin (SuperGlue, arXiv 1911.11763, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from feature_matcher_ros.models.dense_matching import MASKED, log_sum_exp


def log_transport(scores: Tensor, dustbin: Tensor, seen0: Tensor, seen1: Tensor, iterations: int) -> Tensor:
    """Logarithms (..., L + 1, S + 1) of how much of each row goes to each column, by Sinkhorn's iterations (eq. 10).

    ``scores`` (..., L, S) are those of pairs, ``dustbin`` () that of being left alone. Each seen row and column
    (``seen0`` (..., L) and ``seen1`` (..., S) are 1 there, 0 elsewhere) has a mass of 1, the dustbins have that of the
    other side, so that anything may be left alone.
    """
    *batch, rows, columns = scores.shape
    wide = torch.cat((scores, dustbin.expand(*batch, rows, 1)), dim=-1)
    wide = torch.cat((wide, dustbin.expand(*batch, 1, columns + 1)), dim=-2)
    mass0, mass1 = _log_masses(seen0, seen1), _log_masses(seen1, seen0)
    to_columns = mass1.clamp(max=0.0)  # 0, but nothing for columns that are not seen
    for _ in range(iterations):
        to_rows = mass0 - log_sum_exp(wide + to_columns[..., None, :], -1)[..., 0]
        to_columns = mass1 - log_sum_exp(wide + to_rows[..., None], -2)[..., 0, :]
    return wide + to_rows[..., None] + to_columns[..., None, :]


def matched_log_transport(log_transport: Tensor) -> Tensor:
    """The part (..., L, S) that is not about dustbins, very low where a dustbin gets the most of a row or column."""
    pairs = log_transport[..., :-1, :-1]
    row_is_matched = pairs.amax(dim=-1, keepdim=True) > log_transport[..., :-1, -1:]
    column_is_matched = pairs.amax(dim=-2, keepdim=True) > log_transport[..., -1:, :-1]
    return pairs.masked_fill(~(row_is_matched & column_is_matched), MASKED)


def _log_masses(own: Tensor, other: Tensor) -> Tensor:
    """(..., N + 1): 0 where there is something, very low elsewhere, and what the dustbin takes."""
    return torch.cat(((1.0 - own) * MASKED, other.sum(dim=-1, keepdim=True).log()), dim=-1)
