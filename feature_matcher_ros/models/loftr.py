"""LoFTR: matching without detected points, by linear attention between all cells (arXiv 2104.00680).

Modules are named as in the published checkpoints. Coordinates are the published ones too: the coarse feature in
column i stands for the pixel 8 i, and the pixel k of its window of 5x5, k = 0 ... 4, for 8 i + 2 (k - 2).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.errors import WeightsError
from feature_matcher_ros.models.checkpoint import count_parts, loaded, named_tensors
from feature_matcher_ros.models.dense_config import LOFTR, LoftrConfig
from feature_matcher_ros.models.dense_matching import cell_patches, masked_logits
from feature_matcher_ros.models.dense_network import (
    CellPairs,
    DenseNetwork,
    EncodedPair,
    InterleavedAttention,
    Pair,
)
from feature_matcher_ros.models.optimal_transport import log_transport, matched_log_transport
from feature_matcher_ros.models.resnet_fpn import ResnetFpn

WINDOW = 5  # fine features in both directions
_STRIDE, _FINE_PX = 4, 2  # fine features of a cell in one direction, pixels of a fine feature
_EPSILON = 1e-6
_SINKHORN_ITERATIONS = 3
_HEAD_CHANNELS, _FINE_HEAD_CHANNELS = 32, 16


class LinearAttention(nn.Module):
    """Attention whose cost grows with the number of features, not with its square (section 3.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.merge = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(2 * width, 2 * width, bias=False), nn.ReLU(), nn.Linear(2 * width, width, bias=False)
        )
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, state: Tensor, source: Tensor, source_cells: Tensor) -> Tensor:
        """New state (B, C, h, w) of an image, given that of the one it looks at and where this has content."""
        own, other = state.flatten(2).transpose(1, 2), source.flatten(2).transpose(1, 2)
        message = attend(
            self._split(self.q_proj(own)),
            self._split(self.k_proj(other)),
            self._split(self.v_proj(other)),
            source_cells.flatten(2)[..., None],
        )
        message = self.norm1(self.merge(message.transpose(1, 2).flatten(2)))
        update = self.norm2(self.mlp(torch.cat((own, message), dim=2)))
        return state + update.transpose(1, 2).unflatten(2, state.shape[-2:])

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, heads, L, D) of tokens (B, L, C)."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, is_seen: Tensor) -> Tensor:
    """Means (B, heads, L, D) of values (B, heads, S, D), weighted by phi(query) phi(key), phi = elu + 1 (eq. 2).

    The sum over the keys comes first, which is what makes it linear. ``is_seen`` (B, 1, S, 1) is 0 for keys to leave
    out.
    """
    weight, content = functional.elu(query) + 1.0, (functional.elu(key) + 1.0) * is_seen
    total = weight @ content.sum(dim=2)[..., None]
    return weight @ (content.transpose(2, 3) @ value) / (total + _EPSILON)


def position_encoding(features: Tensor) -> Tensor:
    """Sines and cosines (C, h, w) of the column and the row, counted from 1, for features (B, C, h, w).

    Four channels share a frequency. The paper's frequencies fall by 10000 over all channels; the ones of its published
    outdoor weights fall by e^2 from one to the next, and these are given here.
    """
    channels, height, width = features.shape[1:]
    frequencies = torch.exp(-2.0 * _counted(features, 0, channels // 4))[:, None]
    columns = frequencies * _counted(features, 1, width)  # (C / 4, w)
    rows = frequencies * _counted(features, 1, height)
    parts = [part[:, None].expand(-1, height, -1) for part in (columns.sin(), columns.cos())]
    parts += [part[:, :, None].expand(-1, -1, width) for part in (rows.sin(), rows.cos())]
    return torch.stack(parts, dim=1).flatten(0, 1)


def _counted(like: Tensor, first: int, count: int) -> Tensor:
    return torch.arange(first, first + count, device=like.device, dtype=torch.float32)


class _FinePreprocess(nn.Module):
    """Adds to the features of a window what its cell has learned of the other image (section 3.4)."""

    def __init__(self, config: LoftrConfig) -> None:
        super().__init__()
        self.down_proj = nn.Linear(config.width, config.widths[0])
        self.merge_feat = nn.Linear(2 * config.widths[0], config.widths[0])

    def forward(self, windows: Tensor, cells: Tensor) -> Tensor:
        """(M, F, 5, 5) of windows (M, 25, F) and the states (M, C) of their cells."""
        of_window, of_cell = self.merge_feat.weight.chunk(2, dim=1)
        shared = functional.linear(self.down_proj(cells), of_cell, self.merge_feat.bias)
        merged = functional.linear(windows, of_window) + shared[:, None]
        return merged.transpose(1, 2).unflatten(2, (WINDOW, WINDOW))


class _CoarseMatching(nn.Module):
    """Has the score of being left alone, where cells are compared by optimal transport."""

    def __init__(self, has_dustbin: bool) -> None:
        super().__init__()
        if has_dustbin:
            self.bin_score = nn.Parameter(torch.ones(()))


class Loftr(DenseNetwork[LoftrConfig]):
    """The network; between images, attention is linear, and points are found by expectation."""

    def __init__(self, config: LoftrConfig | None = None) -> None:
        config = config or LoftrConfig()
        super().__init__(config, (LinearAttention(config.width, config.heads) for _ in range(2 * config.rounds)))
        self.backbone = ResnetFpn(config.widths)
        self.coarse_matching = _CoarseMatching(config.has_dustbin)
        self.fine_preprocess = _FinePreprocess(config)
        self.loftr_fine = InterleavedAttention(LinearAttention(config.widths[0], config.fine_heads) for _ in range(2))

    def encode(self, image: Tensor, cells: Tensor) -> dict[str, Tensor]:
        """``state`` and ``map2`` of one image."""
        coarse, map2 = self.backbone(image)
        state = self.loftr_coarse.first((coarse + position_encoding(coarse)) * cells, cells)
        return {"state": state, "map2": map2}

    def log_scores(self, state0: Tensor, state1: Tensor, cells0: Tensor, cells1: Tensor) -> Tensor:
        """Logarithms (..., L, S) of the probabilities that two cells match (section 3.3)."""
        if not self.config.has_dustbin:
            return super().log_scores(state0, state1, cells0, cells1)
        scores = masked_logits(state0 / self.config.width, state1, cells0, cells1)
        seen = [cells.flatten(-3) for cells in (cells0, cells1)]
        return matched_log_transport(
            log_transport(scores, self.coarse_matching.bin_score, seen[0], seen[1], _SINKHORN_ITERATIONS)
        )

    def refine(self, encoded: EncodedPair, states: Pair, pairs: CellPairs) -> Pair:
        """Where the points (M, 2) of pairs of cells lie, in pixels from the places of these; those of image 0 stay."""
        offsets, _ = self.expected(encoded, states, pairs)
        return 0.0 * offsets, offsets  # zeros alone would be exported with the size of the example

    def expected(self, encoded: EncodedPair, states: Pair, pairs: CellPairs) -> Pair:
        """Mean (M, 2) and variance (M,) of where in image 1 the points lie, in pixels from the places of cells."""
        windows = [
            self._window(features["map2"], state, pairs.batch, cells)
            for features, state, cells in zip(encoded, states, (pairs.cell0, pairs.cell1), strict=True)
        ]
        seen = torch.ones_like(windows[0][:1, :1])
        first, second = (self.loftr_fine.first(window, seen) for window in windows)
        first, second = self.loftr_fine.round(0, first, second, seen, seen)
        return expected_offsets(first, second)

    def _window(self, features: Tensor, state: Tensor, batch: Tensor, cells: Tensor) -> Tensor:
        """(M, F, 5, 5)."""
        patches = cell_patches(features, batch, cells, WINDOW // 2, WINDOW, _STRIDE)
        of_cells = state.flatten(2).transpose(1, 2)[batch, cells]
        merged: Tensor = self.fine_preprocess(patches, of_cells)
        return merged


def expected_offsets(window0: Tensor, window1: Tensor) -> Pair:
    """Where in window 1 the centre of window 0 is: mean (M, 2) in pixels from its centre, and variance (M,) in px^2.

    The windows are (M, F, 5, 5); the variance is the sum of those in both directions (section 3.4).
    """
    centre = window0[:, :, WINDOW // 2, WINDOW // 2]
    similarities = (centre[:, None] @ window1.flatten(2))[:, 0] * centre.shape[1] ** -0.5
    shares = torch.softmax(similarities, dim=1).unflatten(1, (WINDOW, WINDOW))
    places = _FINE_PX * torch.arange(-(WINDOW // 2), WINDOW // 2 + 1, device=shares.device, dtype=shares.dtype)
    along = torch.stack((shares.sum(dim=1), shares.sum(dim=2)), dim=1)  # (M, 2, 5), to x and y
    mean = along @ places
    return mean, (along @ places**2 - mean**2).sum(dim=1)


def loftr_from_checkpoint(tensors: Mapping[str, Tensor]) -> Loftr:
    """Build a network with published weights, in float32, ready for inference.

    Tensors do not tell the number of heads: as in the published network, a head has 32 channels, in windows 16. Nor do
    they tell the frequencies of the position encoding; those of the published outdoor weights are used.

    Raises:
        WeightsError: the tensors are not those of a LoFTR network.
    """
    named = named_tensors(tensors)
    return loaded(Loftr(_config_of(named)), named, LOFTR)


def is_loftr(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensors have the names of such a network."""
    names = {name.removeprefix("matcher.") for name in tensors}
    return {_WIDTH_KEYS[0], "loftr_fine.layers.0.merge.weight"} <= names


_WIDTH_KEYS = tuple(f"backbone.layer{number}.0.conv1.weight" for number in (1, 2, 3))


def _config_of(tensors: Mapping[str, Tensor]) -> LoftrConfig:
    try:
        first, second, third = (len(tensors[key]) for key in _WIDTH_KEYS)
    except KeyError as error:
        raise WeightsError(
            f"the checkpoint has no tensor {error}: give the one of a LoFTR network with a backbone that ends at 1/2."
        ) from error
    return LoftrConfig(
        widths=(first, second, third),
        heads=max(1, third // _HEAD_CHANNELS),
        fine_heads=max(1, first // _FINE_HEAD_CHANNELS),
        rounds=count_parts(tensors, "loftr_coarse.layers.") // 2,
        has_dustbin="coarse_matching.bin_score" in tensors,
    )
