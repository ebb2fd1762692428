"""The torch model cut into the graphs that a matcher runs: named tensors in, named tensors out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from feature_matcher_ros.models.superglue import SuperGlueModel


class EmbedStage(nn.Module):
    """The points of one image."""

    def __init__(self, model: SuperGlueModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"state": self.model.embed(tensors["descriptors"], tensors["positions"], tensors["keypoint_scores"])}


class LayerStage(nn.Module):
    """All layers."""

    def __init__(self, model: SuperGlueModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        state0, state1 = tensors["state0"], tensors["state1"]
        for layer in range(self.model.config.layers):
            state0, state1 = self.model.layer(layer, state0, state1)
        return {"next_state0": state0, "next_state1": state1}


class HeadStage(nn.Module):
    """The most likely partners."""

    def __init__(self, model: SuperGlueModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pairs = self.model.assignment(tensors["state0"], tensors["state1"])[:-1, :-1]
        log_scores0, best0 = pairs.max(dim=1)
        return {"best0": best0, "log_scores0": log_scores0, "log_scores1": pairs.amax(dim=0)}
