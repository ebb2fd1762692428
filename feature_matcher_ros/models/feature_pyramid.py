"""Features at half the size of an image, made of coarse ones and of the finer ones of a backbone (arXiv 1612.03144)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class FeaturePyramid(nn.Module):
    """From 1/8 of the size of an image over 1/4 to 1/2; modules are named as in LoFTR's published checkpoints."""

    def __init__(self, widths: tuple[int, int, int], align_corners: bool) -> None:
        """Take the channels at 1/2, 1/4 and 1/8, and whether the outermost features meet when they are enlarged."""
        super().__init__()
        first, second, third = widths
        self.align_corners = align_corners
        self.layer3_outconv = nn.Conv2d(third, third, 1, bias=False)
        self.layer2_outconv = nn.Conv2d(second, third, 1, bias=False)
        self.layer2_outconv2 = _smoothing(third, second)
        self.layer1_outconv = nn.Conv2d(first, second, 1, bias=False)
        self.layer1_outconv2 = _smoothing(second, first)

    def join(self, coarse: Tensor, map4: Tensor, map2: Tensor) -> Tensor:
        """Features (B, F, H / 2, W / 2), given the projected coarse ones."""
        middle = self.layer2_outconv2(self.layer2_outconv(map4) + self._enlarged(coarse, map4))
        fine: Tensor = self.layer1_outconv2(self.layer1_outconv(map2) + self._enlarged(middle, map2))
        return fine

    def _enlarged(self, features: Tensor, target: Tensor) -> Tensor:
        return functional.interpolate(features, target.shape[-2:], mode="bilinear", align_corners=self.align_corners)


def _smoothing(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_in, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_in),
        nn.LeakyReLU(),
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
    )
