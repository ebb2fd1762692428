"""XFeat: points at little cost (Potje et al., CVPR 2024, arXiv 2404.19174)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.models.point_network import no_shifts, scores_of_cells
from feature_matcher_ros.models.point_network_config import PointNetworkConfig

_NMS_SIZE = 5
_CELL = 8  # pixels of the image for one of the feature map, in both directions


class _Layer(nn.Module):
    """Convolution, normalisation, rectification."""

    def __init__(self, channels_in: int, channels_out: int, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(channels_out, affine=False),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class XFeat(nn.Module):
    """The network, without its matcher for refining dense matches."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PointNetworkConfig("xfeat", 64, 1, 32, 0.0, fits_by_resizing=True, averages_colors=True)
        self.norm = nn.InstanceNorm2d(1)
        self.skip1 = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(1, 24, 1))
        self.block1 = nn.Sequential(_Layer(1, 4), _Layer(4, 8, stride=2), _Layer(8, 8), _Layer(8, 24, stride=2))
        self.block2 = nn.Sequential(_Layer(24, 24), _Layer(24, 24))
        self.block3 = nn.Sequential(_Layer(24, 64, stride=2), _Layer(64, 64), _Layer(64, 64, size=1))
        self.block4 = nn.Sequential(_Layer(64, 64, stride=2), _Layer(64, 64), _Layer(64, 64))
        self.block5 = nn.Sequential(
            _Layer(64, 128, stride=2), _Layer(128, 128), _Layer(128, 128), _Layer(128, 64, size=1)
        )
        self.block_fusion = nn.Sequential(_Layer(64, 64), _Layer(64, 64), nn.Conv2d(64, 64, 1))
        self.heatmap_head = nn.Sequential(_Layer(64, 64, 1), _Layer(64, 64, 1), nn.Conv2d(64, 1, 1), nn.Sigmoid())
        self.keypoint_head = nn.Sequential(
            _Layer(64, 64, 1), _Layer(64, 64, 1), _Layer(64, 64, 1), nn.Conv2d(64, 65, 1)
        )

    def detect(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``PointNetwork``. A score is that of the point times the reliability of the place."""
        features, logits, reliability = self._maps(self.norm(image))
        scores = scores_of_cells(logits)
        is_point = (scores == functional.max_pool2d(scores, _NMS_SIZE, 1, _NMS_SIZE // 2)) & (scores > 0.05)
        return (
            torch.where(is_point, scores * self._at_all_pixels(reliability) * valid, 0.0)[0, 0],
            no_shifts(scores[0]),
            functional.normalize(features, dim=1),
        )

    def describe(self, features: Tensor, keypoints: Tensor) -> Tensor:
        """See ``PointNetwork``."""
        sampled = functional.grid_sample(
            features, _published_grid(features, keypoints)[None, None], mode="bicubic", align_corners=False
        )
        return functional.normalize(sampled[0, :, 0].T, dim=1)

    def _maps(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (1, 64, h, w), logits (1, 65, h, w) of the pixels of a cell, and reliability (1, 1, h, w)."""
        fourth = self.block2(self.block1(image) + self.skip1(image))
        eighth = self.block3(fourth)
        sixteenth = self.block4(eighth)
        thirtysecond = self.block5(sixteenth)
        size = eighth.shape[-2:]
        enlarged = (functional.interpolate(x, size, mode="bilinear") for x in (sixteenth, thirtysecond))
        features = self.block_fusion(eighth + sum(enlarged))
        return features, self.keypoint_head(functional.pixel_unshuffle(image, _CELL)), self.heatmap_head(features)

    @staticmethod
    def _at_all_pixels(reliability: Tensor) -> Tensor:
        height, width = (_CELL * size for size in reliability.shape[-2:])
        rows, columns = torch.arange(height, dtype=torch.float32), torch.arange(width, dtype=torch.float32)
        pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).to(reliability.device)
        return functional.grid_sample(reliability, _published_grid(reliability, pixels)[None], align_corners=False)


def _published_grid(features: Tensor, pixels: Tensor) -> Tensor:
    """Where the published code samples a map of cells for pixels (..., 2): half a cell beside the place itself.

    It maps the centres of the outermost pixels to -1 and 1, but samples as if these were the image's edges; the
    weights were trained with it.
    """
    height, width = features.shape[-2:]
    x = 2.0 * pixels[..., 0] / (_CELL * width - 1) - 1.0
    return torch.stack((x, 2.0 * pixels[..., 1] / (_CELL * height - 1) - 1.0), dim=-1)
