"""Efficient LoFTR: matching without detected points, at an affordable price (arXiv 2403.04765).

Modules are named as in the published checkpoint. Coordinates are the published ones too: the coarse feature in
column i stands for the pixel 8 i, and the pixel k of its window of 8x8, k = 0 ... 7, for 8 i + k - 3.5.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.errors import WeightsError
from feature_matcher_ros.models.checkpoint import count_parts, loaded, named_tensors
from feature_matcher_ros.models.dense_config import EFFICIENT_LOFTR, EfficientLoftrConfig
from feature_matcher_ros.models.dense_matching import MASKED
from feature_matcher_ros.models.dense_network import (
    CellPairs,
    DenseNetwork,
    EncodedPair,
    Pair,
)
from feature_matcher_ros.models.efficient_loftr_refinement import FineFeatures, refined_offsets
from feature_matcher_ros.models.repvgg import RepVggBackbone, RepVggBlock

_HEAD_CHANNELS = 32


class AggregatedAttention(nn.Module):
    """Attention between squares of features (section 3.2); rotary positions within an image, none across."""

    def __init__(self, config: EfficientLoftrConfig, is_self: bool) -> None:
        super().__init__()
        width = config.width
        self.heads, self.size, self.is_self = config.heads, config.aggregation, is_self
        self.aggregate = nn.Conv2d(width, width, self.size, self.size, groups=width, bias=False)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.merge = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(2 * width, 2 * width, bias=False), nn.LeakyReLU(), nn.Linear(2 * width, width, bias=False)
        )
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, state: Tensor, source: Tensor, source_cells: Tensor) -> Tensor:
        """New state (B, C, h, w) of an image, given that of the one it looks at and where this has content.

        Cells without content must be 0 in ``state``; ``source_cells`` (B, 1, h', w') is 1 where the source has some.
        """
        query = self.norm1(self.aggregate(state).permute(0, 2, 3, 1))  # (B, h / 4, w / 4, C)
        pooled = functional.max_pool2d(source.masked_fill(source_cells == 0, MASKED), self.size)
        is_seen = functional.max_pool2d(source_cells, self.size)
        key_source = self.norm1((pooled * is_seen).permute(0, 2, 3, 1))
        message = self._attend(self.q_proj(query), self.k_proj(key_source), self.v_proj(key_source), is_seen)
        return state + self._update(state, message)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, is_seen: Tensor) -> Tensor:
        """(B, C, h / 4, w / 4)."""
        if self.is_self:
            query, key = rotate(query), rotate(key)
        height, width = query.shape[1:3]
        split = [tensor.flatten(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2) for tensor in (query, key, value)]
        logits = split[0] @ split[1].transpose(2, 3) * split[0].shape[-1] ** -0.5
        weights = torch.softmax(logits + ((1.0 - is_seen) * MASKED).flatten(2)[:, :, None], dim=-1)
        return (weights @ split[2]).transpose(1, 2).flatten(2).unflatten(1, (height, width)).permute(0, 3, 1, 2)

    def _update(self, state: Tensor, message: Tensor) -> Tensor:
        """The feed-forward network on state and enlarged message.

        What is linear in the message is done before enlarging it, on a sixteenth of the places.
        """
        of_state, of_message = self.mlp[0].weight.chunk(2, dim=1)
        reduced = functional.conv2d(message, (of_message @ self.merge.weight)[:, :, None, None])
        enlarged = functional.interpolate(reduced, state.shape[-2:], mode="bilinear", align_corners=False)
        hidden = functional.linear(state.permute(0, 2, 3, 1), of_state) + enlarged.permute(0, 2, 3, 1)
        return self.norm2(self.mlp[2](self.mlp[1](hidden))).permute(0, 3, 1, 2)


def rotate(x: Tensor) -> Tensor:
    """Turn pairs of channels of (B, h, w, C) by angles that grow with the row or the column (eq. 2).

    Rows and columns count from 1, and sines and cosines have half precision, as the weights were trained with.
    """
    height, width, channels = x.shape[1:]
    quarter = channels // 4
    frequencies = torch.exp(
        torch.arange(quarter, device=x.device, dtype=torch.float32) * (-9.210340371976184 / quarter)
    )
    rows = torch.arange(1, height + 1, device=x.device, dtype=torch.float32)[:, None, None] * frequencies
    columns = torch.arange(1, width + 1, device=x.device, dtype=torch.float32)[None, :, None] * frequencies
    angles = torch.stack((rows.expand(-1, width, -1), columns.expand(height, -1, -1)), dim=-1).flatten(2)
    sine, cosine = (torch.sin(angles).half().float(), torch.cos(angles).half().float())  # (h, w, C / 2)
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cosine - odd * sine, odd * cosine + even * sine), dim=-1).flatten(-2)


class EfficientLoftr(DenseNetwork[EfficientLoftrConfig]):
    """The network; sections 3.1 to 3.3 are in its parts, 3.4 in the refinement."""

    def __init__(self, config: EfficientLoftrConfig | None = None) -> None:
        config = config or EfficientLoftrConfig()
        super().__init__(
            config, (AggregatedAttention(config, is_self=number % 2 == 0) for number in range(2 * config.rounds))
        )
        self.backbone = RepVggBackbone(config.widths, config.blocks)
        self.fine_preprocess = FineFeatures(config)

    def encode(self, image: Tensor, cells: Tensor) -> dict[str, Tensor]:
        """``state``, ``map2`` and ``map4`` of one image."""
        map2, map4, state = self.backbone(image)
        return {"state": self.loftr_coarse.first(state * cells, cells), "map2": map2, "map4": map4}

    def fine_map(self, encoded: Mapping[str, Tensor], state: Tensor) -> Tensor:
        """Features (B, F, H / 2, W / 2) of an image for refinement, given its final state."""
        return self.fine_preprocess(state / self.config.width**0.5, encoded["map4"], encoded["map2"])

    def refine(self, encoded: EncodedPair, states: Pair, pairs: CellPairs) -> Pair:
        """Where the points (M, 2) of pairs of cells lie, in pixels from the places of these."""
        maps = self.fine_map(encoded[0], states[0]), self.fine_map(encoded[1], states[1])
        return refined_offsets(maps, pairs)

    def merge(self) -> EfficientLoftr:
        """Turn the blocks of the backbone into single convolutions, for inference; returns the network itself."""
        if isinstance(self.backbone.layer0, RepVggBlock):
            self.backbone.merge()
        return self


def efficient_loftr_from_checkpoint(tensors: Mapping[str, Tensor]) -> EfficientLoftr:
    """Build a network with published weights or with those of a training run, in float32, ready for inference.

    Tensors do not tell the number of heads: as in the published network, each head has 32 channels.

    Raises:
        WeightsError: the tensors are not those of an Efficient LoFTR network.
    """
    named = named_tensors(tensors)
    return loaded(EfficientLoftr(_config_of(named)), named, EFFICIENT_LOFTR)


def is_efficient_loftr(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensors have the names of such a network."""
    return any(name.removeprefix("matcher.") == _KEYS[0] for name in tensors)


_KEYS = ("backbone.layer0.rbr_dense.conv.weight", "backbone.layer2.0.rbr_dense.conv.weight",
         "backbone.layer3.0.rbr_dense.conv.weight")  # fmt: skip


def _config_of(tensors: Mapping[str, Tensor]) -> EfficientLoftrConfig:
    try:
        widths = (len(tensors[_KEYS[0]]), len(tensors[_KEYS[1]]), len(tensors[_KEYS[2]]))
    except KeyError as error:
        raise WeightsError(
            f"the checkpoint has no tensor {error}: give the one of an Efficient LoFTR network before its blocks were "
            "merged."
        ) from error
    blocks = tuple(count_parts(tensors, f"backbone.layer{number}.") for number in (1, 2, 3))
    return EfficientLoftrConfig(
        widths=widths,
        blocks=(blocks[0], blocks[1], blocks[2]),
        heads=max(1, widths[2] // _HEAD_CHANNELS),
        rounds=count_parts(tensors, "loftr_coarse.layers.") // 2,
        has_confidence=any(name.startswith("token_confidence.") for name in tensors),
    )
