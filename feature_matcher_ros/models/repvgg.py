"""Convolution blocks with three branches for training and one for inference (RepVGG, arXiv 2101.03697)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RepVggBlock(nn.Module):
    """The sum of a 3x3 convolution, a 1x1 convolution and, where the shapes allow, the identity, each normalised."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.rbr_dense = _normalised(channels_in, channels_out, 3, stride)
        self.rbr_1x1 = _normalised(channels_in, channels_out, 1, stride)
        keeps_shape = channels_in == channels_out and stride == 1
        self.rbr_identity = nn.BatchNorm2d(channels_in) if keeps_shape else None

    def forward(self, x: Tensor) -> Tensor:
        total = self.rbr_dense(x) + self.rbr_1x1(x)
        return functional.relu(total if self.rbr_identity is None else total + self.rbr_identity(x))

    def merged(self) -> nn.Module:
        """The same function, for inference: one convolution (section 3.3)."""
        dense, one = self.rbr_dense.conv, self.rbr_1x1.conv
        gain, shift = _gain_and_shift(self.rbr_dense.bn)
        kernel = dense.weight * gain
        gain1, shift1 = _gain_and_shift(self.rbr_1x1.bn)
        centre, bias = (one.weight * gain1)[:, :, 0, 0], shift + shift1
        if self.rbr_identity is not None:
            gain_id, shift_id = _gain_and_shift(self.rbr_identity)
            centre, bias = centre + torch.diag(gain_id.flatten()), bias + shift_id
        merged = nn.Conv2d(dense.in_channels, dense.out_channels, 3, dense.stride, padding=1)
        kernel = kernel.clone()
        kernel[:, :, 1, 1] += centre
        merged.load_state_dict({"weight": kernel, "bias": bias})
        return nn.Sequential(merged, nn.ReLU())


def _normalised(channels_in: int, channels_out: int, size: int, stride: int) -> nn.Sequential:
    part = nn.Sequential()
    part.add_module("conv", nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2, bias=False))
    part.add_module("bn", nn.BatchNorm2d(channels_out))
    return part


def _gain_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a normalisation multiplies (C, 1, 1, 1) and adds (C,) at inference."""
    assert norm.running_var is not None and norm.running_mean is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return gain[:, None, None, None], norm.bias - norm.running_mean * gain


class RepVggBackbone(nn.Module):
    """Features at 1/2, 1/4 and 1/8 of the size of a grey image (Efficient LoFTR, section 3.1)."""

    def __init__(self, widths: tuple[int, int, int], blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.layer0: nn.Module = RepVggBlock(1, widths[0], stride=2)
        self.layer1 = _blocks(widths[0], widths[0], blocks[0], stride=1)
        self.layer2 = _blocks(widths[0], widths[1], blocks[1], stride=2)
        self.layer3 = _blocks(widths[1], widths[2], blocks[2], stride=2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        map2 = self.layer1(self.layer0(image))
        map4 = self.layer2(map2)
        return map2, map4, self.layer3(map4)

    def merge(self) -> None:
        """Turn every block into a single convolution, for inference."""
        self.layer0 = self.layer0.merged()
        for stage in (self.layer1, self.layer2, self.layer3):
            for number, block in enumerate(stage):
                stage[number] = block.merged()


def _blocks(channels_in: int, channels_out: int, count: int, stride: int) -> nn.Sequential:
    first = RepVggBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(RepVggBlock(channels_out, channels_out) for _ in range(count - 1)))
