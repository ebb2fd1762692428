"""Writes half precision into a graph: TensorRT computes in the types that stand in the graph, and in no others.

Products, which are nearly all of the work, become float16, and with them what only moves or bends their results.
Everything else stays float32: norms, softmax, sums over the layers, exponentials, thresholds; and so do the products
that decide on points, and what a graph takes and gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PRODUCTS = ("Gemm", "MatMul", "Conv", "ConvTranspose")
# What follows a product in float16 when everything that it takes is float16 already.
_MOVERS = ("Concat", "Split", "Slice", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Pad", "Expand")
_ELEMENTWISE = ("Add", "Sub", "Mul", "Max", "Min", "Clip", "Relu", "LeakyRelu", "PRelu", "Selu", "Elu", "Gelu")
_FOLLOWERS = (*_MOVERS, *_ELEMENTWISE, "AveragePool", "MaxPool")
# Outputs that decide on points: a product from which one is reached without another product stays float32.
_DECISIVE = ("certainty", "scores", "shifts", "confidence0", "confidence1", "offsets0", "offsets1")
_LARGEST = float(np.finfo(np.float16).max)


def in_half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its products in float16; inputs and outputs keep their types.

    A product whose weights exceed the range of float16 stays float32.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    rewriter = _Rewriter(model)
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(rewriter.nodes)
    used = {name for node in rewriter.nodes for name in node.input}
    constants = (*model.graph.initializer, *rewriter.half_constants.values())
    result.graph.initializer.extend(constant for constant in constants if constant.name in used)
    return result


def rounded_for_cpu(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph in float32 that rounds wherever the one in half precision does, and overflows where it does.

    ONNX Runtime computes float16 on the CPU in float32 and rounds at the end of a chain only: too exactly to judge by.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    halves = {constant.name for constant in graph.initializer if constant.data_type == TensorProto.FLOAT16}
    for constant in graph.initializer:
        if constant.name in halves:
            constant.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(constant).astype(np.float32), constant.name)
            )
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        is_cast = node.op_type == "Cast"
        if is_cast and node.input[0] in halves:
            nodes.append(helper.make_node("Identity", node.input, node.output, name=node.name))
        elif _target(node) == TensorProto.FLOAT16 if is_cast else any(name in halves for name in node.input):
            halves.update(node.output)
            nodes += _rounded(node)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def _rounded(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """A node in float32 whose outputs are those of float16."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    if node.op_type in (*_MOVERS, "Shape"):  # what is moved has been rounded before
        yield copy
        return
    if node.op_type != "Cast":
        copy.output[:] = [f"{name}/unrounded" for name in node.output]
        yield copy
    for taken, name in zip(node.input if node.op_type == "Cast" else copy.output, node.output, strict=True):
        yield helper.make_node("Cast", [taken], [f"{name}/rounded"], name=f"round {name}", to=TensorProto.FLOAT16)
        yield helper.make_node("Cast", [f"{name}/rounded"], [name], name=f"widen {name}", to=TensorProto.FLOAT)


class _Rewriter:
    """Goes through the nodes once and puts casts where the precision changes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes: list[onnx.NodeProto] = []
        self.half_constants: dict[str, onnx.TensorProto] = {}
        self._constants = {constant.name: constant for constant in graph.initializer}
        self._constants |= {name: tensor for node in graph.node for name, tensor in _constant_of(node)}
        self._is_float = _float_tensors(model)
        self._halves: set[str] = set()
        self._casts: dict[tuple[str, int], str] = {}
        self._outputs = {output.name for output in graph.output}
        decisive = _deciding_products(graph.node, _DECISIVE)
        for node in graph.node:
            self._append(node, is_half=node.output[0] not in decisive and self._may_be_half(node))

    def _may_be_half(self, node: onnx.NodeProto) -> bool:
        taken = [name for name in node.input if name in self._is_float]
        if not all(self._fits(name) for name in taken):
            return False
        if node.op_type in PRODUCTS:
            return True
        variable = [name for name in taken if name not in self._constants]
        return node.op_type in _FOLLOWERS and bool(variable) and all(name in self._halves for name in variable)

    def _fits(self, name: str) -> bool:
        """Whether a constant survives in float16; what is computed is judged by the test of acceptance."""
        if name not in self._constants:
            return True
        return bool(np.all(np.abs(numpy_helper.to_array(self._constants[name])) <= _LARGEST))

    def _append(self, node: onnx.NodeProto, is_half: bool) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for number, name in enumerate(node.input):
            if name in self._is_float:
                copy.input[number] = self._as_half(name) if is_half else self._as_single(name)
        self.nodes.append(copy)
        if is_half:
            for number, name in enumerate(node.output):
                self._halves.add(name)
                if name in self._outputs:
                    copy.output[number] = f"{name}/float16"
                    self._halves.discard(name)
                    self._cast(copy.output[number], TensorProto.FLOAT, name)
                    self._casts[name, TensorProto.FLOAT16] = copy.output[number]  # for the nodes that use it

    def _as_half(self, name: str) -> str:
        if name in self._halves:
            return name
        if name not in self._constants:
            return self._cast(name, TensorProto.FLOAT16)
        if name not in self.half_constants:
            halved = numpy_helper.to_array(self._constants[name]).astype(np.float16)
            self.half_constants[name] = numpy_helper.from_array(halved, f"{name}/float16")
        return self.half_constants[name].name

    def _as_single(self, name: str) -> str:
        return self._cast(name, TensorProto.FLOAT) if name in self._halves else name

    def _cast(self, name: str, to: int, output: str | None = None) -> str:
        if (name, to) not in self._casts:
            result = output or f"{name}/{'float16' if to == TensorProto.FLOAT16 else 'float32'}"
            self.nodes.append(helper.make_node("Cast", [name], [result], name=f"cast to {result}", to=to))
            self._casts[name, to] = result
        return self._casts[name, to]


def _deciding_products(nodes: Collection[onnx.NodeProto], outputs: Collection[str]) -> set[str]:
    """What the products give from which one of the outputs is reached without another product."""
    producers: Mapping[str, onnx.NodeProto] = {name: node for node in nodes for name in node.output}
    found: set[str] = set()
    waiting, seen = [name for name in outputs if name in producers], set(outputs)
    while waiting:
        node = producers[waiting.pop()]
        if node.op_type in PRODUCTS:
            found.add(node.output[0])
            continue
        following = [name for name in node.input if name in producers and name not in seen]
        seen.update(following)
        waiting += following
    return found


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of all tensors of type float32."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    infos = (*graph.input, *graph.output, *graph.value_info)
    found = {info.name for info in infos if info.type.tensor_type.elem_type == TensorProto.FLOAT}
    return found | {constant.name for constant in graph.initializer if constant.data_type == TensorProto.FLOAT}


def _constant_of(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Name and value of what a node of type Constant gives, where this is a tensor."""
    if node.op_type == "Constant":
        yield from ((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")


def _target(node: onnx.NodeProto) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")
