"""Which points of two views show the same place: what a matcher is to find."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

UNMATCHABLE = -1
IGNORED = -2

_MATCH_PX = 3.0
_NO_MATCH_PX = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """For each point the number of its partner in the other image, ``UNMATCHABLE`` or ``IGNORED``."""

    partner0: Tensor  # (B, N0) int64
    partner1: Tensor  # (B, N1) int64

    @property
    def is_matched0(self) -> Tensor:
        return self.partner0 >= 0


def label_pairs(keypoints0: Tensor, keypoints1: Tensor, projected0: Tensor, projected1: Tensor) -> Labels:
    """Compare keypoints (B, N, 2) with where those of the other image, projected, should lie (B, N, 2).

    Two points are partners if each is projected to within 3 px of the other, and neither has a closer one. A
    point is unmatchable if there is none within 5 px; between the two it is ignored, as it is where its place
    in the scene is unknown (``projected`` is NaN). Infinity means outside the image (paper, section 3.3).
    """
    known0, known1 = ~torch.isnan(projected0).any(-1), ~torch.isnan(projected1).any(-1)
    distance = torch.maximum(_distances(projected0, keypoints1), _distances(projected1, keypoints0).transpose(1, 2))
    certain = distance.masked_fill(~(known0[:, :, None] & known1[:, None, :]), torch.inf)
    return Labels(_partners(certain, distance, known0), _partners(certain.mT, distance.mT, known1))


def _distances(projected: Tensor, keypoints: Tensor) -> Tensor:
    """(B, N0, N1) in pixels; 0 where a projection is unknown, as it rules nothing out."""
    difference = projected[:, :, None] - keypoints[:, None]
    return torch.linalg.vector_norm(difference, dim=-1).nan_to_num(nan=0.0, posinf=torch.inf)


def _partners(certain: Tensor, possible: Tensor, known: Tensor) -> Tensor:
    nearest = certain.argmin(dim=2)
    returned = certain.argmin(dim=1).gather(1, nearest)
    is_mutual = returned == torch.arange(nearest.shape[1], device=nearest.device)
    is_match = is_mutual & (certain.amin(dim=2) < _MATCH_PX)
    is_unmatchable = known & (possible.amin(dim=2) > _NO_MATCH_PX)
    partner = torch.full_like(nearest, IGNORED).masked_fill(is_unmatchable, UNMATCHABLE)
    return torch.where(is_match, nearest, partner)
