"""Weights to begin with: the untrained network matches mutual nearest neighbours, and learns to do better."""

from __future__ import annotations

import torch
from torch import nn

from feature_matcher_ros.models.lightglue import LightGlueModel
from feature_matcher_ros.models.lightglue_config import LightGlueConfig

_SHARPNESS = 40.0  # logit of two equal unit descriptors
_MATCHABLE = 2.0  # logit of having a partner
_SCALE_FREQUENCY = 0.05  # per pixel of a point's scale


def untrained_lightglue(config: LightGlueConfig, seed: int) -> LightGlueModel:
    """A network in which no layer changes the states yet, and the assignment compares descriptors.

    Residual branches end in zeros (Zhang et al. 2019, Fixup), and the projections are multiples of the identity
    or, where the state is shorter than the descriptor, of an orthogonal projection.
    """
    torch.manual_seed(seed)
    model = LightGlueModel(config)
    for layer in model.transformers:
        for block in (layer.self_attn, layer.cross_attn):
            nn.init.zeros_(block.ffn[-1].weight)
            nn.init.zeros_(block.ffn[-1].bias)
    _keep_lengths(model.input_proj, config)
    for head in model.log_assignment.values():
        # States are of length sqrt(width); the head divides products by sqrt(width).
        nn.init.eye_(head.final_proj.weight)
        head.final_proj.weight.data *= _SHARPNESS**0.5 * config.width**-0.25
        nn.init.zeros_(head.final_proj.bias)
        nn.init.zeros_(head.matchability.weight)
        nn.init.constant_(head.matchability.bias, _MATCHABLE)
    _set_frequencies(model, config)
    return model


def _keep_lengths(projection: nn.Module, config: LightGlueConfig) -> None:
    """Make entries of about 1 of unit descriptors."""
    if isinstance(projection, nn.Linear):
        nn.init.orthogonal_(projection.weight)
        projection.weight.data *= max(1.0, config.descriptor_size / config.width) ** 0.5 * config.width**0.5
        nn.init.zeros_(projection.bias)


def _set_frequencies(model: LightGlueModel, config: LightGlueConfig) -> None:
    nn.init.normal_(model.posenc.Wr.weight, std=1.0)
    if config.scale_orientation:
        frequencies = model.posenc.Wr.weight.data
        frequencies[:, 2] *= _SCALE_FREQUENCY
        frequencies[:, 3] = torch.randint(-1, 2, (len(frequencies),)).float()  # whole numbers: -pi and pi are the same
