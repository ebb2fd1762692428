"""The torch model cut into the graphs that a matcher runs: named tensors in, named tensors out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from feature_matcher_ros.models.lightglue import LightGlueModel, Rotation


class EmbedStage(nn.Module):
    """Descriptors and positions of the points of both images become states and angles."""

    def __init__(self, model: LightGlueModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        state, rotation = self.model.embed(tensors["descriptors"], tensors["positions"])
        return {"state": state, "cosines": rotation.cosines, "sines": rotation.sines}


class LayerStage(nn.Module):
    """Some layers in a row."""

    def __init__(self, model: LightGlueModel, layers: range) -> None:
        super().__init__()
        self.model = model
        self.layers = layers

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        (state0, state1), (cosines0, cosines1), (sines0, sines1) = (
            _take_rows(tensors, name) for name in ("state", "cosines", "sines")
        )
        rotation0, rotation1 = Rotation(cosines0, sines0), Rotation(cosines1, sines1)
        for layer in self.layers:
            state0, state1 = self.model.layer(layer, state0, state1, rotation0, rotation1)
        state = torch.cat((state0, state1))
        if self.layers.stop == self.model.config.layers:
            return {"next_state": state}
        return {
            "next_state": state,
            "next_cosines": torch.cat((cosines0, cosines1)),
            "next_sines": torch.cat((sines0, sines1)),
            "certainty": self._certainty(state),
        }

    def _certainty(self, state: Tensor) -> Tensor:
        last = self.layers.stop - 1
        return torch.stack((self.model.confidence(last, state), self.model.matchability(last, state)), dim=-1)


class HeadStage(nn.Module):
    """The most likely partners after some layers."""

    def __init__(self, model: LightGlueModel, layer: int) -> None:
        super().__init__()
        self.model = model
        self.layer = layer

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pairs = self.model.assignment(self.layer, *_take_rows(tensors, "state"))[:-1, :-1]
        log_scores0, best0 = pairs.max(dim=1)
        return {"best0": best0, "log_scores0": log_scores0, "log_scores1": pairs.amax(dim=0)}


def _take_rows(tensors: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """The rows that belong to the points of either image."""
    return tensors[name][tensors["rows0"]], tensors[name][tensors["rows1"]]
