"""DISK: points learned by policy gradient (Tyszkiewicz et al., NeurIPS 2020, arXiv 2006.13566)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.models.point_network import no_shifts
from feature_matcher_ros.models.point_network_config import PointNetworkConfig

_NMS_SIZE = 5
_DESCRIPTOR_SIZE = 128
_DOWN = (3, 16, 32, 64, 64, 64)
_UP = (64, 64, 64, _DESCRIPTOR_SIZE + 1)  # the last channel of the last map are the scores


def _block(channels_in: int, channels_out: int, is_first: bool = False) -> nn.Sequential:
    norm, gate = (nn.Identity(), nn.Identity()) if is_first else (nn.InstanceNorm2d(channels_in), nn.PReLU(channels_in))
    return nn.Sequential(norm, gate, nn.Identity(), nn.Conv2d(channels_in, channels_out, 5, padding=2))


class _Up(nn.Module):
    """Doubles the size and joins with the map of that size on the way down."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = _block(channels_in, channels_out)

    def forward(self, small: Tensor, large: Tensor) -> Tensor:
        enlarged = functional.interpolate(small, scale_factor=2, mode="bilinear")
        return self.conv(torch.cat((enlarged, large), dim=1))


class _Unet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.path_down = nn.ModuleList(
            nn.Sequential(
                nn.AvgPool2d(2) if level else nn.Identity(), _block(_DOWN[level], _DOWN[level + 1], level == 0)
            )
            for level in range(len(_DOWN) - 1)
        )
        below = (_DOWN[-1], *_UP[:-1])
        self.path_up = nn.ModuleList(_Up(below[step] + _DOWN[-2 - step], _UP[step]) for step in range(len(_UP)))

    def forward(self, image: Tensor) -> Tensor:
        maps = [image]
        for block in self.path_down:
            maps.append(block(maps[-1]))
        result = maps.pop()
        for block in self.path_up:
            result = block(result, maps.pop())
        return result


class Disk(nn.Module):
    """The network; its descriptors are those of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PointNetworkConfig("disk", _DESCRIPTOR_SIZE, 3, 16, min_score=0.0)
        self.unet = _Unet()

    def detect(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``PointNetwork``; a score is a logit above 0."""
        maps = self.unet(image)
        scores = maps[:, _DESCRIPTOR_SIZE:]
        is_point = (scores == functional.max_pool2d(scores, _NMS_SIZE, 1, _NMS_SIZE // 2)) & (scores > 0)
        return torch.where(is_point, scores * valid, 0.0)[0, 0], no_shifts(scores[0]), maps[:, :_DESCRIPTOR_SIZE]

    def describe(self, features: Tensor, keypoints: Tensor) -> Tensor:
        """See ``PointNetwork``."""
        pixels = keypoints.round().long()
        found = features[0].flatten(1)[:, pixels[:, 1] * features.shape[-1] + pixels[:, 0]]  # (C, N)
        return functional.normalize(found.T, dim=1)
