"""ALIKED: points described at places that follow the image (Zhao et al., TIM 2023, arXiv 2304.03608), variant n16."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.models.point_network import inner, keep_maxima, sample
from feature_matcher_ros.models.point_network_config import PointNetworkConfig

_WIDTH = 128  # of a descriptor
_PLACES = 16  # sampled for each descriptor
_PATCH = 3
_NMS_RADIUS = 2
_TEMPERATURE = 0.1  # of the mean that shifts a point between pixels


class _DeformableConv(nn.Module):
    """A 3x3 convolution whose taps are moved by what another convolution says."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.offset_conv = nn.Conv2d(channels_in, 18, 3, padding=1)
        self.regular_conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        farthest = max(height, width) / 4.0
        offsets = self.offset_conv(x).clamp(-farthest, farthest)[0].unflatten(0, (9, 2))  # (9, (y, x), h, w)
        tap = torch.arange(9, device=x.device)
        rows = torch.arange(height, device=x.device)[:, None] + (tap // 3 - 1)[:, None, None]  # (9, h, 1)
        columns = torch.arange(width, device=x.device) + (tap % 3 - 1)[:, None, None]  # (9, 1, w)
        pixels = torch.stack((columns + offsets[:, 1], rows + offsets[:, 0]), dim=-1)  # (9, h, w, 2)
        taken = sample(x, pixels).flatten(0, 1)  # (C * 9, h, w)
        return functional.conv2d(taken[None], self.regular_conv.weight.flatten(1)[..., None, None])


def _conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)


class _Block(nn.Module):
    """Two convolutions; where ``is_residual``, the input is added to what they give."""

    def __init__(
        self, channels_in: int, channels_out: int, is_residual: bool = True, is_deformable: bool = False
    ) -> None:
        super().__init__()
        conv = _DeformableConv if is_deformable else _conv
        self.conv1, self.bn1 = conv(channels_in, channels_out), nn.BatchNorm2d(channels_out)
        self.conv2, self.bn2 = conv(channels_out, channels_out), nn.BatchNorm2d(channels_out)
        if is_residual:
            self.downsample = nn.Conv2d(channels_in, channels_out, 1)
        self.is_residual = is_residual

    def forward(self, x: Tensor) -> Tensor:
        result = self.bn2(self.conv2(functional.selu(self.bn1(self.conv1(x)))))
        return functional.selu(result + self.downsample(x) if self.is_residual else result)


class _DescriptorHead(nn.Module):
    """Looks at the neighbourhood of a point to choose places, and puts together what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.offset_conv = nn.Sequential(
            nn.Conv2d(_WIDTH, 2 * _PLACES, _PATCH), nn.SELU(), nn.Conv2d(2 * _PLACES, 2 * _PLACES, 1)
        )
        self.sf_conv = nn.Conv2d(_WIDTH, _WIDTH, 1, bias=False)
        self.agg_weights = nn.Parameter(torch.rand(_PLACES, _WIDTH, _WIDTH))

    def forward(self, features: Tensor, keypoints: Tensor) -> Tensor:
        farthest = max(features.shape[-2:]) / 4.0
        offsets = self.offset_conv(_patches(features, keypoints)).clamp(-farthest, farthest)  # (N, 2 * places, 1, 1)
        places = keypoints[:, None] + offsets[:, :, 0, 0].unflatten(1, (2, _PLACES)).transpose(1, 2)  # (N, places, 2)
        taken = functional.linear(sample(features, places).permute(1, 2, 0), self.sf_conv.weight[:, :, 0, 0])
        together = torch.einsum("npc,pcd->nd", functional.selu(taken), self.agg_weights)
        return functional.normalize(together, dim=1)


class Aliked(nn.Module):
    """The network; points lie between pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PointNetworkConfig("aliked", _WIDTH, 3, 32, min_score=0.2)
        self.block1 = _Block(3, 16, is_residual=False)
        self.block2 = _Block(16, 32)
        self.block3 = _Block(32, 64, is_deformable=True)
        self.block4 = _Block(64, 128, is_deformable=True)
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            nn.Conv2d(channels, _WIDTH // 4, 1, bias=False) for channels in (16, 32, 64, 128)
        )
        self.score_head = nn.Sequential(
            nn.Conv2d(_WIDTH, 8, 1, bias=False), nn.SELU(), _conv(8, 4), nn.SELU(), _conv(4, 4), nn.SELU(), _conv(4, 1)
        )
        self.desc_head = _DescriptorHead()

    def detect(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``PointNetwork``; a score is that of the pixel before the shift."""
        maps = self._maps(image)
        scores = torch.sigmoid(self.score_head(maps))
        points = inner(keep_maxima(scores, _NMS_RADIUS), valid, _NMS_RADIUS)
        return points[0, 0], _shifts(scores), functional.normalize(maps, dim=1) * valid

    def describe(self, features: Tensor, keypoints: Tensor) -> Tensor:
        """See ``PointNetwork``."""
        return self.desc_head(features, keypoints)

    def _maps(self, image: Tensor) -> Tensor:
        """Features (1, 128, H, W): a quarter of the channels from each level."""
        full = self.block1(image)
        half = self.block2(functional.avg_pool2d(full, 2))
        eighth = self.block3(functional.avg_pool2d(half, 4))
        thirtysecond = self.block4(functional.avg_pool2d(eighth, 4))
        levels = [
            functional.selu(conv(level))
            for conv, level in (
                (self.conv1, full),
                (self.conv2, half),
                (self.conv3, eighth),
                (self.conv4, thirtysecond),
            )
        ]
        size = image.shape[-2:]
        enlarged = [functional.interpolate(x, size, mode="bilinear", align_corners=True) for x in levels[1:]]
        return torch.cat((levels[0], *enlarged), dim=1)


def _shifts(scores: Tensor) -> Tensor:
    """(2, H, W): from each pixel to the mean of its neighbourhood, weighted by the exponentials of the scores."""
    weights = torch.exp(scores / _TEMPERATURE)
    steps = torch.arange(-_NMS_RADIUS, _NMS_RADIUS + 1, dtype=scores.dtype, device=scores.device)
    to_right = steps.expand(len(steps), len(steps))
    kernels = torch.stack((to_right, to_right.T, torch.ones_like(to_right)))[:, None]
    x, y, total = functional.conv2d(weights, kernels, padding=_NMS_RADIUS)[0]
    return torch.stack((x / total, y / total))


def _patches(features: Tensor, keypoints: Tensor) -> Tensor:
    """(N, C, 3, 3) around the pixels that keypoints (N, 2) lie in, moved inside as the published code does."""
    height, width = features.shape[-2:]
    columns, rows = ((keypoints.long() - 0.5).long()).unbind(1)  # the published rounding: towards 0, twice
    columns, rows = columns.clamp(0, width - 1 - _PATCH), rows.clamp(0, height - 1 - _PATCH)
    steps = torch.arange(_PATCH, device=features.device)
    index = (rows[:, None, None] + steps[:, None]) * width + columns[:, None, None] + steps  # (N, 3, 3)
    return features[0].flatten(1)[:, index].transpose(0, 1)
