"""The backbone of LoFTR: residual blocks (arXiv 1512.03385) and a feature pyramid (arXiv 1612.03144)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.models.feature_pyramid import FeaturePyramid


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity, or beside a 1x1 convolution where the size changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = nn.Sequential()
        if stride != 1:
            shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(residual + self.downsample(x))


class ResnetFpn(FeaturePyramid):
    """Features of a grey image at 1/8 and 1/2 of its size (LoFTR, section 3.1 and supplement A)."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__(widths, align_corners=True)
        first, second, third = widths
        self.conv1 = nn.Conv2d(1, first, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = nn.Sequential(ResidualBlock(first, first), ResidualBlock(first, first))
        self.layer2 = nn.Sequential(ResidualBlock(first, second, 2), ResidualBlock(second, second))
        self.layer3 = nn.Sequential(ResidualBlock(second, third, 2), ResidualBlock(third, third))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, H / 8, W / 8) and (B, F, H / 2, W / 2) of an image (B, 1, H, W)."""
        map2 = self.layer1(functional.relu(self.bn1(self.conv1(image))))
        map4 = self.layer2(map2)
        coarse = self.layer3_outconv(self.layer3(map4))
        return coarse, self.join(coarse, map4, map2)
