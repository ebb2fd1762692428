"""What the graphs of networks have in common that let the points of two images look at each other."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from feature_matcher_ros.export.graph_builder import GraphBuilder

Weights = NDArray[np.float64]
_TO_THE_END = 2**62  # as the end of a slice


class BothImages:
    """Cuts a tensor of the points of both images in two; ``of_image0`` has as many rows as image 0 has points."""

    def __init__(self, build: GraphBuilder, of_image0: str) -> None:
        self._build = build
        self._zero, self._end = build.integers(0), build.integers(_TO_THE_END)
        self._num_points0 = build.op("Shape", of_image0, start=0, end=1)

    def split(self, tensor: str) -> tuple[str, str]:
        first = self._build.op("Slice", tensor, self._zero, self._num_points0, self._zero)
        return first, self._build.op("Slice", tensor, self._num_points0, self._end, self._zero)

    def join(self, tensor0: str, tensor1: str) -> str:
        return self._build.op("Concat", tensor0, tensor1, axis=0)


def fused_attention(build: GraphBuilder, query: str, key: str, value: str, heads: int) -> str:
    """Attention of (N, width) to (M, width), already scaled, as one node that never holds all pairs of points at once.

    The channels of a head lie side by side.
    """
    batch = build.integers(0)
    inputs = (build.op("Unsqueeze", tensor, batch) for tensor in (query, key, value))
    return build.op("Squeeze", build.fused_op("MultiHeadAttention", *inputs, num_heads=heads, scale=1.0), batch)


def log_sum_exp(build: GraphBuilder, tensor: str, axis: int) -> str:
    """LogSumExp of the rows (axis 1) or columns (axis 0) of a matrix; the one node for it is slower in ONNX Runtime."""
    largest = build.op("ReduceMax", tensor, build.integers(axis), keepdims=1)
    total = build.op("ReduceSum", build.op("Exp", build.op("Sub", tensor, largest)), build.integers(axis), keepdims=1)
    return build.op("Add", build.op("Log", total), largest)


def behind_projection(
    layer: tuple[Weights, Weights], projection: tuple[Weights, Weights], width: int
) -> tuple[Weights, Weights]:
    """A layer that takes a state and a projected context side by side becomes one that takes the context itself."""
    (weight, bias), (project, shift) = layer, projection
    of_state, of_message = weight[:, :width], weight[:, width:]
    return np.hstack((of_state, of_message @ project)), bias + of_message @ shift


def linear_weights(module: torch.nn.Linear) -> tuple[Weights, Weights]:
    """The weight (out, in) and bias (out,) of a layer."""
    return as_array(module.weight), as_array(module.bias)


def as_array(tensor: torch.Tensor) -> Weights:
    """A tensor in double precision, in which layers are merged."""
    array: Weights = tensor.detach().cpu().double().numpy()
    return array
