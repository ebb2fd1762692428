"""LightGlue as lean ONNX graphs.

They are written node by node, not traced, and compute what the torch model computes with less work:

* the points of both images go through every linear layer together;
* the projection of an attention's output is multiplied into the first layer of the feed-forward network that
  follows it, which saves 2 of 19 products of the width squared per point and layer;
* the scale of an attention is multiplied into the projection of its queries;
* the channels of a head are put in the order "all even, all odd", which no scalar product notices, so that the
  rotary encoding turns halves instead of neighbours.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch

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
from feature_matcher_ros.matchers.lightglue_graphs import embed_spec, head_spec, stage_spec
from feature_matcher_ros.models.lightglue import CrossAttention, Layer, LightGlueModel, SelfAttention
from feature_matcher_ros.models.lightglue_config import LightGlueConfig


def embed_graph(model: LightGlueModel) -> onnx.ModelProto:
    """Descriptors and positions become states and angles."""
    build = GraphBuilder()
    state = "descriptors"
    if isinstance(model.input_proj, torch.nn.Linear):
        state = build.linear(state, *linear_weights(model.input_proj))
    frequencies = build.weights(as_array(model.posenc.Wr.weight).T)
    angles = build.op("MatMul", "positions", frequencies)
    outputs = (state, build.op("Cos", angles), build.op("Sin", angles))
    return build.build("embed", embed_spec(model.config), outputs)


def stage_graph(model: LightGlueModel, layers: range) -> onnx.ModelProto:
    """Some layers in a row, and the certainties after them."""
    build, config = GraphBuilder(), model.config
    rows = build.op("Concat", "rows0", "rows1", axis=0)
    state, cosines, sines = (build.op("Gather", name, rows, axis=0) for name in ("state", "cosines", "sines"))
    writer = _LayerWriter(build, config, (cosines, sines))
    for layer in layers:
        state = writer.layer(state, model.transformers[layer])
    is_last = layers.stop == config.layers
    outputs = [state] if is_last else [state, cosines, sines, _certainty(build, model, layers.stop - 1, state)]
    return build.build(f"layers_{layers.start + 1}_to_{layers.stop}", stage_spec(config, is_last), outputs)


def head_graph(model: LightGlueModel, layer: int) -> onnx.ModelProto:
    """The most likely partners.

    Along the columns of a matrix, LogSoftmax and ArgMax take ten times as long as maxima and sums do.
    """
    build, assignment = GraphBuilder(), model.log_assignment[str(layer)]
    rows = build.op("Concat", "rows0", "rows1", axis=0)
    state = build.op("Gather", "state", rows, axis=0)
    weight, bias = linear_weights(assignment.final_proj)
    both = BothImages(build, "rows0")
    vectors0, vectors1 = both.split(build.linear(state, weight * assignment.scale, bias * assignment.scale))
    logits = build.linear(state, *linear_weights(assignment.matchability))  # (points, 1)
    log_matchability = build.op("Neg", build.op("Softplus", build.op("Neg", logits)))
    log0, log1 = both.split(log_matchability)
    similarity = build.op("Gemm", vectors0, vectors1, transB=1)
    of_column = build.op("Sub", build.op("Transpose", log1, perm=[1, 0]), log_sum_exp(build, similarity, axis=0))
    pairs = build.op("Add", build.op("LogSoftmax", similarity, axis=1), build.op("Add", similarity, of_column))
    pairs = build.op("Add", pairs, log0)
    outputs = (
        build.op("ArgMax", pairs, axis=1, keepdims=0),
        build.op("ReduceMax", pairs, build.integers(1), keepdims=0),
        build.op("ReduceMax", pairs, build.integers(0), keepdims=0),
    )
    return build.build(f"head_{layer + 1}", head_spec(model.config), outputs)


class _LayerWriter:
    """Writes layers into one graph; ``angles`` are the cosines and sines of all points."""

    def __init__(self, build: GraphBuilder, config: LightGlueConfig, angles: tuple[str, str]) -> None:
        self._build, self._config, self._angles = build, config, angles
        self._both = BothImages(build, "rows0")

    def layer(self, state: str, layer: Layer) -> str:
        return self._cross_attention(self._self_attention(state, layer.self_attn), layer.cross_attn)

    def _self_attention(self, state: str, module: SelfAttention) -> str:
        query, key, value = _split_packed(module, self._config)
        scale = self._config.head_size**-0.5
        weight, bias = np.concatenate((query[0] * scale, key[0])), np.concatenate((query[1] * scale, key[1]))
        turned = self._rotate(self._build.linear(state, weight, bias))
        values0, values1 = self._both.split(self._build.linear(state, *value))
        (query0, query1), (key0, key1) = map(self._both.split, self._build.halves(turned, axis=1))
        context = self._both.join(self._attend(query0, key0, values0), self._attend(query1, key1, values1))
        return self._update(state, context, linear_weights(module.out_proj), module.ffn)

    def _cross_attention(self, state: str, module: CrossAttention) -> str:
        weight, bias = linear_weights(module.to_qk)
        key0, key1 = self._both.split(self._build.linear(state, weight * module.scale, bias * module.scale))
        values0, values1 = self._both.split(self._build.linear(state, *linear_weights(module.to_v)))
        context = self._both.join(self._attend(key0, key1, values1), self._attend(key1, key0, values0))
        return self._update(state, context, linear_weights(module.to_out), module.ffn)

    def _update(self, state: str, context: str, projection: tuple[Weights, Weights], ffn: torch.nn.Sequential) -> str:
        """Add to the state what the feed-forward network makes of it and the projected context."""
        build = self._build
        folded = behind_projection(linear_weights(ffn[0]), projection, self._config.width)
        hidden = build.linear(build.op("Concat", state, context, axis=1), *folded)
        scale, offset = build.weights(as_array(ffn[1].weight)), build.weights(as_array(ffn[1].bias))
        hidden = build.op("LayerNormalization", hidden, scale, offset, axis=-1, epsilon=ffn[1].eps)
        return build.op("Add", state, build.linear(build.op("Gelu", hidden), *linear_weights(ffn[3])))

    def _attend(self, query: str, key: str, value: str) -> str:
        """Attention of (N, width) to (M, width), already scaled."""
        return fused_attention(self._build, query, key, value, self._config.heads)

    def _rotate(self, vectors: str) -> str:
        """Turn (N, 2 width), the queries and keys of all heads side by side, by the angles of their points."""
        build, batch = self._build, self._build.integers(0)
        inputs = (build.op("Unsqueeze", vectors, batch), batch, *self._angles)
        num_heads = 2 * self._config.heads
        turned = build.fused_op("RotaryEmbedding", *inputs, num_heads=num_heads, rotary_embedding_dim=0)
        return build.op("Squeeze", turned, batch)


def _certainty(build: GraphBuilder, model: LightGlueModel, layer: int, state: str) -> str:
    """(confidence, matchability) of each point after a layer."""
    weight0, bias0 = linear_weights(model.token_confidence[layer].token[0])
    weight1, bias1 = linear_weights(model.log_assignment[str(layer)].matchability)
    return build.op("Sigmoid", build.linear(state, np.concatenate((weight0, weight1)), np.concatenate((bias0, bias1))))


def _split_packed(module: SelfAttention, config: LightGlueConfig) -> list[tuple[Weights, Weights]]:
    """Weights and biases of queries, keys and values; the channels of the first two with even ones before odd ones."""
    weight, bias = linear_weights(module.Wqkv)
    by_channel = weight.reshape(config.heads, config.head_size, 3, -1), bias.reshape(config.heads, config.head_size, 3)
    even_then_odd = np.concatenate((np.arange(0, config.head_size, 2), np.arange(1, config.head_size, 2)))
    orders = (even_then_odd, even_then_odd, np.arange(config.head_size))
    return [
        (by_channel[0][:, order, part].reshape(config.width, -1), by_channel[1][:, order, part].reshape(-1))
        for part, order in enumerate(orders)
    ]
