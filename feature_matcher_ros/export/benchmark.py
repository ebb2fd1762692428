"""The torch network that graphs are compared with: the same weights, executed by torch, eager or compiled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from feature_matcher_ros.export.to_torch import lightglue_by_torch
from feature_matcher_ros.matchers.lightglue_graphs import LightGlueGraphs
from feature_matcher_ros.models.checkpoint import read_checkpoint
from feature_matcher_ros.models.lightglue import lightglue_from_checkpoint


def torch_networks(weights: Path, compiled: bool = False) -> Mapping[bool, LightGlueGraphs]:
    """The network for execution by torch: for True it may stop after any layer, for False it runs as one piece.

    Raises:
        WeightsError: the file is missing or damaged, or holds no LightGlue network.
    """
    model = lightglue_from_checkpoint(read_checkpoint(weights))
    return {
        True: lightglue_by_torch(model, compiled=compiled),
        False: lightglue_by_torch(model, (model.config.layers,), compiled=compiled),
    }


def fastest_torch_network(weights: Path, compiled: bool = False) -> LightGlueGraphs | None:
    """A network that may be left after any layer, in half precision on the GPU, in float32 where there is none.

    Compiled there is one on the GPU only.

    Raises:
        WeightsError: the file is missing or damaged, or holds no LightGlue network.
    """
    has_gpu = torch.cuda.is_available()
    if compiled and not has_gpu:
        return None
    model = lightglue_from_checkpoint(read_checkpoint(weights))
    if has_gpu:
        return lightglue_by_torch(model, device="cuda", compiled=compiled, precision="float16")
    return lightglue_by_torch(model)
