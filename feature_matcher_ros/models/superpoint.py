"""SuperPoint: points learned from their own repetition (DeTone et al., CVPRW 2018, arXiv 1712.07629)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.models.point_network import inner, keep_maxima, no_shifts, sample, scores_of_cells
from feature_matcher_ros.models.point_network_config import PointNetworkConfig

_NMS_RADIUS = 4
_BORDER = 4
_CELL = 8  # pixels of the image for one of the feature map, in both directions


class SuperPoint(nn.Module):
    """The network, with the post-processing that LightGlue was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PointNetworkConfig("superpoint", 256, 1, _CELL, min_score=0.0005)
        channels = 1
        for level, width in enumerate((64, 64, 128, 128), start=1):
            setattr(self, f"conv{level}a", nn.Conv2d(channels, width, 3, padding=1))
            setattr(self, f"conv{level}b", nn.Conv2d(width, width, 3, padding=1))
            channels = width
        self.convPa, self.convPb = nn.Conv2d(128, 256, 3, padding=1), nn.Conv2d(256, 65, 1)
        self.convDa, self.convDb = nn.Conv2d(128, 256, 3, padding=1), nn.Conv2d(256, 256, 1)

    def detect(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``PointNetwork``."""
        x = image
        for level in (1, 2, 3, 4):
            for part in "ab":
                x = torch.relu(self.get_submodule(f"conv{level}{part}")(x))
            if level < 4:
                x = functional.max_pool2d(x, 2)
        scores = inner(
            keep_maxima(scores_of_cells(self.convPb(torch.relu(self.convPa(x)))), _NMS_RADIUS), valid, _BORDER
        )
        features = functional.normalize(self.convDb(torch.relu(self.convDa(x))), dim=1)
        return scores[0, 0], no_shifts(scores[0]), features

    def describe(self, features: Tensor, keypoints: Tensor) -> Tensor:
        """See ``PointNetwork``.

        The published code takes the pixel 3.5, the centre of the first cell, for the first place of the map and
        pixel 8 w - 1, the image's edge, for its last.
        """
        places = [
            (pixels - (_CELL - 1) / 2) / (_CELL * size - (_CELL + 1) / 2) * (size - 1)
            for pixels, size in zip(keypoints.unbind(1), reversed(features.shape[-2:]), strict=True)
        ]
        return functional.normalize(sample(features, torch.stack(places, dim=-1)).T, dim=1)
