"""Rewrites what only ONNX Runtime knows in an exported graph into the ONNX standard, which every runtime knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.export.graph_builder import FUSED_DOMAIN


def with_standard_operators(model: onnx.ModelProto, head_size: int) -> onnx.ModelProto:
    """The same graph with attention and rotary encoding spelled out; a standard graph is returned as it is.

    ``head_size`` is the number of channels of a head of attention.

    Raises:
        MatcherError: it holds an operator for which there is no spelling.
    """
    if not any(node.domain == FUSED_DOMAIN for node in model.graph.node):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    speller = _Speller(head_size)
    del result.graph.node[:], result.opset_import[:]
    for node in model.graph.node:
        result.graph.node.extend(speller.spelled(node) if node.domain == FUSED_DOMAIN else [node])
    result.graph.initializer.extend(speller.constants)
    result.opset_import.extend(opset for opset in model.opset_import if opset.domain != FUSED_DOMAIN)
    return result


class _Speller:
    """Writes the nodes that stand for one; keeps the constants that they need."""

    def __init__(self, head_size: int) -> None:
        self._head_size = head_size
        self.constants: list[onnx.TensorProto] = []

    def spelled(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        writers: dict[str, Callable[[onnx.NodeProto, _Writer], None]] = {
            "MultiHeadAttention": self._attention,
            "RotaryEmbedding": self._rotary,
        }
        if node.op_type not in writers:
            raise MatcherError(
                f"the operator {node.op_type} of node '{node.name}' is known to ONNX Runtime alone: "
                "export the network again with this version of the package."
            )
        writer = _Writer(node.name, self.constants)
        writers[node.op_type](node, writer)
        yield from writer.nodes

    def _attention(self, node: onnx.NodeProto, write: _Writer) -> None:
        """Queries (1, N, W), keys and values (1, M, W), already scaled, become contexts (1, N, W)."""
        heads, size = _integer(node, "num_heads"), self._head_size
        by_head = write.integers(0, 0, heads, size)
        query, key, value = (write.op("Reshape", (tensor, by_head)) for tensor in node.input[:3])
        query, value = (write.op("Transpose", (tensor,), perm=[0, 2, 1, 3]) for tensor in (query, value))
        similarity = write.op("MatMul", (query, write.op("Transpose", (key,), perm=[0, 2, 3, 1])))
        context = write.op("MatMul", (write.op("Softmax", (similarity,), axis=-1), value))
        joined = write.op("Transpose", (context,), perm=[0, 2, 1, 3])
        write.op("Reshape", (joined, write.integers(0, 0, heads * size)), output=node.output[0])

    def _rotary(self, node: onnx.NodeProto, write: _Writer) -> None:
        """Vectors (1, N, W) of heads whose first half turns with the second, by cosines and sines (N, head / 2)."""
        heads, size = _integer(node, "num_heads"), self._head_size
        parts = write.op("Reshape", (node.input[0], write.integers(0, 0, heads, 2, size // 2)))
        axes = write.integers(1, 2)
        cosines, sines = (write.op("Unsqueeze", (tensor, axes)) for tensor in node.input[2:4])
        first, second = write.halves(parts, axis=3)
        turned = (
            write.op("Sub", (write.op("Mul", (first, cosines)), write.op("Mul", (second, sines)))),
            write.op("Add", (write.op("Mul", (second, cosines)), write.op("Mul", (first, sines)))),
        )
        joined = write.op("Concat", turned, axis=3)
        write.op("Reshape", (joined, write.integers(0, 0, heads * size)), output=node.output[0])


class _Writer:
    """Appends nodes named after the one that they replace."""

    def __init__(self, name: str, constants: list[onnx.TensorProto]) -> None:
        self._name = name
        self._constants = constants
        self.nodes: list[onnx.NodeProto] = []

    def op(self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        return self._append(operator, inputs, [output or f"{self._next_name()}.0"], attributes)[0]

    def halves(self, tensor: str, axis: int) -> tuple[str, str]:
        outputs = [f"{self._next_name()}.{number}" for number in range(2)]
        first, second = self._append("Split", (tensor,), outputs, {"axis": axis, "num_outputs": 2})
        return first, second

    def integers(self, *values: int) -> str:
        name = f"{self._name}/constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _append(
        self, operator: str, inputs: Sequence[str], outputs: list[str], attributes: dict[str, Any]
    ) -> list[str]:
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, name=self._next_name(), **attributes))
        return outputs

    def _next_name(self) -> str:
        return f"{self._name}/{len(self.nodes)}"


def _integer(node: onnx.NodeProto, name: str) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == name)
