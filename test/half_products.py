"""Counting what half precision was written into, by the types that ONNX infers."""

import onnx
from onnx import TensorProto

from feature_matcher_ros.export.half_precision import PRODUCTS


def num_half_products(model: onnx.ModelProto) -> int:
    """How many products of a graph are computed in float16."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {info.name: info.type.tensor_type.elem_type for info in (*graph.value_info, *graph.output)}
    return sum(node.op_type in PRODUCTS and types[node.output[0]] == TensorProto.FLOAT16 for node in graph.node)
