"""The parts of a detector-free network: named tensors in, named tensors out, as a matcher's graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.models.dense_matching import best_pairs
from feature_matcher_ros.models.dense_network import CellPairs, DenseNetwork

AnyDenseNetwork = DenseNetwork[Any]


class BackboneStage(nn.Module):
    """The backbone; runs once for each image."""

    def __init__(self, network: AnyDenseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.network.encode(tensors["image"], tensors["cells"])


class RoundStage(nn.Module):
    """One round of attention; runs some number of times for each pair."""

    def __init__(self, network: AnyDenseNetwork, number: int) -> None:
        super().__init__()
        self.network, self.number = network, number

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        states = self.network.round(self.number, *_pair(tensors))
        found = {f"next_state{side}": state for side, state in enumerate(states)}
        config = self.network.config
        if config.has_confidence and self.number < config.rounds - 1:
            found |= {f"confidence{side}": self._confidence(state) for side, state in enumerate(states)}
        return found

    def _confidence(self, state: Tensor) -> Tensor:
        return self.network.confidence(self.number, state)[0]


class CoarseStage(nn.Module):
    """Compares all cells of a pair."""

    def __init__(self, network: AnyDenseNetwork, is_optimized: bool) -> None:
        super().__init__()
        self.network, self.is_optimized = network, is_optimized

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        compare = self.network.logits if self.is_optimized else self.network.log_scores
        # ONNX Runtime reduces the columns of a matrix several times as fast as those of a batch of one.
        best0, values0, values1 = best_pairs(compare(*(tensor.squeeze(0) for tensor in _pair(tensors))))
        return {"best0": best0, "values0": values0, "values1": values1}


class FineStage(nn.Module):
    """Finds the points in matching cells."""

    def __init__(self, network: AnyDenseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        maps = [{name: tensors[f"{name}_{side}"] for name in self.network.config.maps} for side in (0, 1)]
        # ONNX Runtime cannot multiply an empty batch of matrices: there is always one pair, which is left out again.
        cell0, cell1 = (functional.pad(tensors[f"cell{side}"], (0, 1)) for side in (0, 1))
        states = tensors["state0"], tensors["state1"]
        pairs = CellPairs(torch.zeros_like(cell0), cell0, cell1)
        offsets = self.network.refine((maps[0], maps[1]), states, pairs)
        return {"offsets0": offsets[0][:-1], "offsets1": offsets[1][:-1]}


def _pair(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tensors["state0"], tensors["state1"], tensors["cells0"], tensors["cells1"]
