"""What detector-free networks have in common: rounds of attention, and the comparison of all cells with all cells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from feature_matcher_ros.models.dense_config import DenseConfig
from feature_matcher_ros.models.dense_matching import log_dual_softmax, masked_logits

_COARSE_TEMPERATURE = 0.1
_Config = TypeVar("_Config", bound=DenseConfig)
Pair = tuple[Tensor, Tensor]
EncodedPair = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class CellPairs:
    """Cells that match, each numbered row by row within its image."""

    batch: Tensor  # (M,) int64
    cell0: Tensor  # (M,) int64
    cell1: Tensor  # (M,) int64


class InterleavedAttention(nn.Module):
    """Layers that look within an image and across the images in turn.

    A layer takes a state (B, C, h, w), the one it looks at (B, C, h', w'), and where that has content (B, 1, h', w').
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def first(self, state: Tensor, cells: Tensor) -> Tensor:
        """The state of one image after the first layer, which looks within it."""
        return self._layer(0, state, state, cells, cells)

    def round(self, number: int, state0: Tensor, state1: Tensor, cells0: Tensor, cells1: Tensor) -> Pair:
        """The states after one more round of attention; the first one begins where ``first`` ends.

        Across the images the second one sees what the first one has just seen, as in the published networks.
        """
        if number > 0:
            state0 = self._layer(2 * number, state0, state0, cells0, cells0)
            state1 = self._layer(2 * number, state1, state1, cells1, cells1)
        state0 = self._layer(2 * number + 1, state0, state1, cells0, cells1)
        return state0, self._layer(2 * number + 1, state1, state0, cells1, cells0)

    def _layer(self, number: int, state: Tensor, source: Tensor, cells: Tensor, source_cells: Tensor) -> Tensor:
        found: Tensor = self.layers[number](state, source, source_cells)
        return found * cells


class DenseNetwork(nn.Module, ABC, Generic[_Config]):
    """A network in the parts that a matcher runs: once for each image, after each round, and for each pair."""

    def __init__(self, config: _Config, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.loftr_coarse = InterleavedAttention(layers)
        num_heads = config.rounds - 1 if config.has_confidence else 0
        self.token_confidence = nn.ModuleList(nn.Linear(config.width, 1) for _ in range(num_heads))

    @abstractmethod
    def encode(self, image: Tensor, cells: Tensor) -> dict[str, Tensor]:
        """All that depends on one image alone, the first attention within it included.

        ``image`` is (B, 1, H, W) in [0, 1], with sides that are multiples of ``config.multiple``; ``cells``
        (B, 1, H / 8, W / 8) is 1 where there is content. Returns ``state`` (B, C, H / 8, W / 8) and the maps of
        ``config.maps``.
        """

    def round(self, number: int, state0: Tensor, state1: Tensor, cells0: Tensor, cells1: Tensor) -> Pair:
        """The states after one more round of attention; the first one begins where ``encode`` ends."""
        return self.loftr_coarse.round(number, state0, state1, cells0, cells1)

    def confidence(self, number: int, state: Tensor) -> Tensor:
        """Probability (B, h, w), after any round but the last, that the match of a cell will not change any more."""
        return torch.sigmoid(self.token_confidence[number](state.detach().permute(0, 2, 3, 1)).squeeze(-1))

    def logits(self, state0: Tensor, state1: Tensor, cells0: Tensor, cells1: Tensor) -> Tensor:
        """Similarities (..., L, S) of all cells of states (..., C, h, w), very low where there is no content."""
        scale = 1.0 / (self.config.width * _COARSE_TEMPERATURE)
        return masked_logits(state0 * scale, state1, cells0, cells1)

    def log_scores(self, state0: Tensor, state1: Tensor, cells0: Tensor, cells1: Tensor) -> Tensor:
        """Logarithms (..., L, S) of the probabilities that two cells match."""
        return log_dual_softmax(self.logits(state0, state1, cells0, cells1))

    @abstractmethod
    def refine(self, encoded: EncodedPair, states: Pair, pairs: CellPairs) -> Pair:
        """Where the points (M, 2) of pairs of cells lie, in pixels from the places of these."""
