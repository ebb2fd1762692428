"""Weights that detector-free networks begin with; Efficient LoFTR compares histograms of oriented gradients.

Random filters match next to nothing (0.3 % of the cells of the views that are trained on). Those set here compute what
SIFT does (Lowe 2004, section 6) with nothing but convolutions and rectifiers: gradients in some directions, their
logarithms, means over a cell, and for each cell those of the cells around it. Contrast multiplies gradients, so it adds
to logarithms, and subtracting the mean of all directions around takes it out again.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from feature_matcher_ros.models.dense_config import CELL_PX, EfficientLoftrConfig, LoftrConfig
from feature_matcher_ros.models.dense_network import InterleavedAttention
from feature_matcher_ros.models.efficient_loftr import AggregatedAttention, EfficientLoftr
from feature_matcher_ros.models.loftr import LinearAttention, Loftr
from feature_matcher_ros.models.repvgg import RepVggBackbone, RepVggBlock
from feature_matcher_ros.training.photographs import procedural_photograph

_KNOTS = (0.0, 0.15, 0.6, 2.0, 8.0)  # of the logarithm's linear pieces, in standard deviations of a gradient
_LEAST_GRADIENT = 0.1  # in the same unit; less is noise
_SHARPNESS = 1.2  # standard deviation of the entries of a final feature, before they are rectified
_FINE_GAIN = 4.0  # of the features whose products choose a pixel; with those of PyTorch's default all are alike
_NORM_MOMENTUM = 0.1  # share of the latest batch in running means
Passed = dict[nn.BatchNorm2d, int]  # how many of its first channels a normalisation is to leave as they are


def untrained_efficient_loftr(config: EfficientLoftrConfig, seed: int) -> EfficientLoftr:
    """A network in which no round changes the states yet, so that those of the backbone are compared."""
    torch.manual_seed(seed)
    model = EfficientLoftr(config)
    _close_branches(model.loftr_coarse)
    model.fine_preprocess.layer1_outconv2[-1].weight.data *= _FINE_GAIN
    return _normalised(model, _set_backbone(model.backbone, config))


def untrained_loftr(config: LoftrConfig, seed: int) -> Loftr:
    """A network of random filters in which no attention changes anything yet."""
    torch.manual_seed(seed)
    model = Loftr(config)
    for attention in (model.loftr_coarse, model.loftr_fine):
        _close_branches(attention)
    return model


def _close_branches(attention: InterleavedAttention) -> None:
    for layer in attention.layers:
        assert isinstance(layer, (AggregatedAttention, LinearAttention))
        nn.init.zeros_(layer.norm2.weight)  # the last step of the residual branch; its bias is 0 anyway


def _set_backbone(backbone: RepVggBackbone, config: EfficientLoftrConfig) -> Passed:
    """Gradients, logarithms, means over ever larger squares, and at last the cells around."""
    directions = config.widths[0] // (len(_KNOTS) - 1)
    assert isinstance(backbone.layer0, RepVggBlock)
    _set_gradients(backbone.layer0, directions)
    blocks = [block for stage in (backbone.layer1, backbone.layer2, backbone.layer3) for block in stage]
    arranged = len(blocks) - config.blocks[2] + 1
    passed: Passed = {}
    for number, block in enumerate(blocks):
        if number == arranged:
            _set_arrangement(block, directions)
        elif number > arranged:
            passed |= _set_identity(block)
        else:
            passed |= _set_smoothing(block, torch.eye(directions) if number else _logarithm(directions))
    return passed


def _set_gradients(block: RepVggBlock, directions: int) -> None:
    """Channel (piece, direction) is what a gradient exceeds a knot by."""
    _silence(block, directions * (len(_KNOTS) - 1))
    rows, columns = torch.meshgrid(torch.arange(-1.0, 2.0), torch.arange(-1.0, 2.0), indexing="ij")
    weight = torch.exp(-(rows**2 + columns**2) / 2.0)
    for (piece, knot), direction in product(enumerate(_KNOTS[:-1]), range(directions)):
        angle, channel = 2.0 * math.pi * direction / directions, piece * directions + direction
        block.rbr_dense.conv.weight.data[channel, 0] = weight * (columns * math.cos(angle) + rows * math.sin(angle))
        block.rbr_dense.bn.bias.data[channel] = -knot


def _logarithm(directions: int) -> Tensor:
    """Weights (directions, pieces * directions) that make a logarithm of what gradients exceed the knots by."""
    values = [math.log1p(knot / _LEAST_GRADIENT) for knot in _KNOTS]
    slopes = np.diff(values) / np.diff(_KNOTS)
    bends = torch.from_numpy(np.diff(slopes, prepend=0.0)).float()
    return torch.cat([bend * torch.eye(directions) for bend in bends], dim=1)


def _set_smoothing(block: RepVggBlock, mixed: Tensor) -> Passed:
    """The first channels are means of mixtures (m, n) of the first n that come in."""
    _silence(block, len(mixed))
    around = torch.tensor((0.25, 0.5, 0.25))
    weight = block.rbr_dense.conv.weight.data
    weight[: len(mixed)] = 0.0
    weight[: len(mixed), : mixed.shape[1]] = mixed[:, :, None, None] * around[:, None] * around
    return {block.rbr_dense.bn: len(mixed)}


def _set_arrangement(block: RepVggBlock, directions: int) -> None:
    """All channels: each direction in each cell around, above or below the mean of all of these."""
    half = block.rbr_dense.conv.out_channels // 2
    _silence(block, 2 * half)
    weight = torch.zeros(half, block.rbr_dense.conv.in_channels, 3, 3)
    weight[:, :directions] = -1.0 / (9 * directions)
    cells = sorted(product(range(3), repeat=2), key=lambda cell: (abs(cell[0] - 1) + abs(cell[1] - 1), cell))
    for channel, ((row, column), direction) in zip(range(half), product(cells, range(directions)), strict=False):
        weight[channel, direction, row, column] += 1.0
    block.rbr_dense.conv.weight.data[: 2 * half] = torch.cat((weight, -weight))
    block.rbr_dense.bn.weight.data[: 2 * half] = _SHARPNESS


def _set_identity(block: RepVggBlock) -> Passed:
    assert block.rbr_identity is not None
    count = block.rbr_identity.num_features
    _silence(block, count)
    nn.init.zeros_(block.rbr_dense.bn.weight)
    return {block.rbr_identity: count}


def _silence(block: RepVggBlock, count: int) -> None:
    """Leave the first channels to the 3x3 convolution alone."""
    for norm in (block.rbr_1x1.bn, block.rbr_identity):
        if norm is not None:
            norm.weight.data[:count] = 0.0


def _undo(count: int, norm: nn.Module, given: tuple[Tensor]) -> None:
    """Have a normalisation leave its first channels as they are in what it is given (B, C, H, W)."""
    assert isinstance(norm, nn.BatchNorm2d)
    variance, mean = torch.var_mean(given[0][:, :count], dim=(0, 2, 3), correction=0)
    norm.weight.data[:count] = torch.sqrt(variance + norm.eps)
    norm.bias.data[:count] = mean


def _normalised(model: EfficientLoftr, passed: Passed) -> EfficientLoftr:
    """Set what normalisations subtract and divide by to what procedural images give, from the first one to the last."""
    photographs = np.stack([procedural_photograph(number, (256, 192)) for number in range(8)])
    images = torch.from_numpy(photographs)[:, None].float() / 255.0
    hooks = [norm.register_forward_pre_hook(partial(_undo, count)) for norm, count in passed.items()]
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # what is seen now replaces what was before
    with torch.no_grad():
        encoded = model.encode(images, torch.ones_like(images[:, :, ::CELL_PX, ::CELL_PX]))
        model.fine_map(encoded, encoded["state"])
    for norm in norms:
        norm.momentum = _NORM_MOMENTUM
    for hook in hooks:
        hook.remove()
    return model
