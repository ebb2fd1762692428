"""A LightGlue model opened for execution by torch, stage by stage, without any file."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.matchers.lightglue_graphs import LightGlueGraphs, Stage, embed_spec, head_spec, stage_spec
from feature_matcher_ros.models.lightglue import LightGlueModel
from feature_matcher_ros.models.lightglue_config import LightGlueConfig
from feature_matcher_ros.models.lightglue_stages import EmbedStage, HeadStage, LayerStage
from feature_matcher_ros.runtimes.torch_runtime import TorchRuntime


def lightglue_by_torch(
    model: LightGlueModel,
    stage_ends: Sequence[int] | None = None,
    device: str = "cpu",
    compiled: bool = False,
    precision: str = "float32",
) -> LightGlueGraphs:
    """Open a model; ``stage_ends`` are the numbers of layers after which it may be left, by default all possible.

    ``precision`` is that of the products in the layers: float32, float16 or bfloat16. Compiled, the layers compute
    the same faster, once torch has spent a minute on them at the first pair.
    """
    config = model.config
    ends = checked_stage_ends(config, stage_ends)
    if compiled:
        model = _compiled(model)
    stages = tuple(
        Stage(
            end,
            TorchRuntime(
                LayerStage(model, range(begin, end)), stage_spec(config, end == config.layers), device, precision
            ),
            TorchRuntime(HeadStage(model, end - 1), head_spec(config), device),
        )
        for begin, end in pairwise((0, *ends))
    )
    return LightGlueGraphs(config, TorchRuntime(EmbedStage(model), embed_spec(config), device), stages)


def checked_stage_ends(config: LightGlueConfig, stage_ends: Sequence[int] | None) -> tuple[int, ...]:
    """The wanted stage ends, by default every layer that has a head.

    Raises:
        MatcherError: they are not increasing, do not end with the last layer or need a head that there is not.
    """
    possible = tuple(layer + 1 for layer in range(config.layers) if config.has_head(layer))
    ends = possible if stage_ends is None else tuple(stage_ends)
    if not ends or ends[-1] != config.layers or list(ends) != sorted(set(ends)) or not set(ends) <= set(possible):
        raise MatcherError(
            f"stages cannot end after the layers {list(ends)}: "
            f"choose among {list(possible)} and end with {config.layers}."
        )
    return ends


def _compiled(model: LightGlueModel) -> LightGlueModel:
    """A copy whose layers and heads are compiled, for any number of points: once for all, as all are alike."""
    model = copy.deepcopy(model)
    for part in (*model.transformers, *model.log_assignment.values()):
        part.compile(dynamic=True)
    return model
