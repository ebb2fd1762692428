"""SuperGlue as lean ONNX graphs.

They are written node by node, as those of LightGlue, and compute what the torch model computes with less work:

* the points of both images go through every linear layer together;
* the normalisation of a layer's values, and the projection of an attention's output, are multiplied into the layer;
* the scale of an attention is multiplied into the projection of its queries;
* the channels of a head are put side by side, as the fused attention wants them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from torch import nn

from feature_matcher_ros.export.attention_graph import (
    BothImages,
    Weights,
    as_array,
    behind_projection,
    fused_attention,
    linear_weights,
    log_sum_exp,
)
from feature_matcher_ros.export.graph_builder import GraphBuilder
from feature_matcher_ros.matchers.lightglue_graphs import EMBED, head_name, stage_name
from feature_matcher_ros.matchers.superglue_graphs import superglue_specs
from feature_matcher_ros.models.superglue import Propagation, SuperGlueModel

Linear = tuple[Weights, Weights]  # weight (out, in) and bias (out,)


def superglue_graphs(model: SuperGlueModel) -> dict[str, onnx.ModelProto]:
    """All graphs of a network by name."""
    config, specs = model.config, superglue_specs(model.config)
    writers = {EMBED: _embed, stage_name(config.layers): _layers, head_name(config.layers): _head}
    graphs = {}
    for name, write in writers.items():
        build = GraphBuilder()
        graphs[name] = build.build(name, specs[name], write(build, model))
    return graphs


def _embed(build: GraphBuilder, model: SuperGlueModel) -> Sequence[str]:
    scores = build.op("Unsqueeze", "keypoint_scores", build.integers(1))
    place = build.op("Concat", "positions", scores, axis=1)
    return (build.op("Add", "descriptors", _perceptron(build, place, _folded(model.kenc.encoder))),)


def _layers(build: GraphBuilder, model: SuperGlueModel) -> Sequence[str]:
    both = BothImages(build, "state0")
    state = both.join("state0", "state1")
    for number, layer in enumerate(model.gnn.layers):
        state = _propagate(build, both, state, layer, is_across=number % 2 == 1)
    return both.split(state)


def _propagate(build: GraphBuilder, both: BothImages, state: str, layer: Propagation, is_across: bool) -> str:
    """Add to the states what the layer makes of them and of what they see."""
    attention, width = layer.attn, layer.attn.merge.in_features
    side_by_side = np.arange(width).reshape(-1, attention.heads).T.ravel()
    scale = (width // attention.heads) ** -0.5
    queries, keys, values = (
        both.split(build.linear(state, weight[side_by_side] * factor, bias[side_by_side] * factor))
        for (weight, bias), factor in zip(map(linear_weights, attention.proj), (scale, 1.0, 1.0), strict=True)
    )
    if is_across:
        keys, values = keys[::-1], values[::-1]
    context = both.join(
        *(fused_attention(build, *parts, attention.heads) for parts in zip(queries, keys, values, strict=True))
    )
    weight, bias = linear_weights(attention.merge)
    first, last = _folded(layer.mlp)
    first = behind_projection(first, (weight[:, side_by_side], bias), width)
    return build.op("Add", state, _perceptron(build, build.op("Concat", state, context, axis=1), [first, last]))


def _head(build: GraphBuilder, model: SuperGlueModel) -> Sequence[str]:
    both = BothImages(build, "state0")
    scale = model.config.width**-0.25  # on either side of the product
    weight, bias = linear_weights(model.final_proj)
    vectors = both.split(build.linear(both.join("state0", "state1"), weight * scale, bias * scale))
    scores = build.op("Gemm", *vectors, transB=1)
    one_more = build.integers(0, 0, 1, 1)  # behind the last row and column
    wide = build.op("Pad", scores, one_more, build.weights(as_array(model.bin_score)))
    pairs = _transport(build, wide, model.config.sinkhorn_iterations)
    inner = (build.integers(0, 0), build.integers(-1, -1), build.integers(0, 1))
    pairs = build.op("Slice", pairs, *inner)
    return (
        build.op("ArgMax", pairs, axis=1, keepdims=0),
        build.op("ReduceMax", pairs, build.integers(1), keepdims=0),
        build.op("ReduceMax", pairs, build.integers(0), keepdims=0),
    )


def _transport(build: GraphBuilder, wide: str, iterations: int) -> str:
    """What ``models.optimal_transport`` computes where all points are seen, of scores with those of the dustbins."""
    mass0 = _log_masses(build, "state0", "state1")
    mass1 = build.op("Transpose", _log_masses(build, "state1", "state0"), perm=[1, 0])
    to_rows = to_columns = build.weights(np.zeros((1, 1)))
    for _ in range(iterations):
        to_rows = build.op("Sub", mass0, log_sum_exp(build, build.op("Add", wide, to_columns), axis=1))
        to_columns = build.op("Sub", mass1, log_sum_exp(build, build.op("Add", wide, to_rows), axis=0))
    return build.op("Add", build.op("Add", wide, to_rows), to_columns)


def _log_masses(build: GraphBuilder, own: str, other: str) -> str:
    """(N + 1, 1): 0 for every point, and for the dustbin that of all points of the other image."""
    num_own, num_other = (build.op("Shape", state, start=0, end=1) for state in (own, other))
    zeros = build.op("ConstantOfShape", build.op("Concat", num_own, build.integers(1), axis=0))
    of_dustbin = build.op("Log", build.op("Cast", num_other, to=onnx.TensorProto.FLOAT))
    return build.op("Concat", zeros, build.op("Unsqueeze", of_dustbin, build.integers(1)), axis=0)


def _perceptron(build: GraphBuilder, tensor: str, layers: Sequence[Linear]) -> str:
    for number, layer in enumerate(layers):
        tensor = build.linear(build.op("Relu", tensor) if number else tensor, *layer)
    return tensor


def _folded(perceptron: nn.Sequential) -> list[Linear]:
    """The linear layers of a perceptron, each with the normalisation that follows it."""
    folded = []
    for module in perceptron:
        if isinstance(module, nn.Linear):
            folded.append(linear_weights(module))
        elif isinstance(module, nn.BatchNorm1d):
            weight, bias = folded.pop()
            scale = as_array(module.weight) / np.sqrt(as_array(module.running_var) + module.eps)
            bias = (bias - as_array(module.running_mean)) * scale + as_array(module.bias)
            folded.append((weight * scale[:, None], bias))
    return folded
