"""The torch network that graphs are compared with: the same weights, executed by torch, eager or compiled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from feature_matcher_ros.export.to_onnx import Origin, export_lightglue
from feature_matcher_ros.export.to_torch import lightglue_by_torch
from feature_matcher_ros.matchers.lightglue_graphs import LightGlueGraphs
from feature_matcher_ros.models.checkpoint import read_checkpoint
from feature_matcher_ros.models.lightglue import LightGlueModel, lightglue_from_checkpoint
from feature_matcher_ros.models.lightglue_config import LightGlueConfig

_WEIGHTS = "weights.pth"


def write_random_network(folder: Path, config: LightGlueConfig | None = None) -> Path:
    """Write graphs of a network of the published size into a folder and return the path of its weights.

    They are random: good for the time that all layers take, for nothing else.
    """
    torch.manual_seed(0)
    model = LightGlueModel(config or LightGlueConfig()).eval().requires_grad_(False)
    export_lightglue(model, Origin("random", "none, they mean nothing", "this benchmark"), folder)
    torch.save(model.state_dict(), folder / _WEIGHTS)
    return folder / _WEIGHTS


def torch_networks(weights: Path, compiled: bool = False) -> Mapping[bool, LightGlueGraphs]:
    """A network for execution by torch: True, that may be left after any layer; False, that runs as one piece.

    Raises:
        WeightsError: the file is missing or damaged, or holds no LightGlue network.
    """
    model = lightglue_from_checkpoint(read_checkpoint(weights))
    return {
        True: lightglue_by_torch(model, compiled=compiled),
        False: lightglue_by_torch(model, (model.config.layers,), compiled=compiled),
    }
