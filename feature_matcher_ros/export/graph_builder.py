"""Writes an ONNX graph node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from feature_matcher_ros.runtimes.graph_spec import GraphSpec, TensorSpec

OPSET = 20  # the first with Gelu
_IR_VERSION = 9  # the version of that opset
FUSED_DOMAIN = "com.microsoft"  # operators that only ONNX Runtime knows


class GraphBuilder:
    """Collects nodes and weights; tensors are handled by their names."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._names: dict[tuple[bytes, str, tuple[int, ...]], str] = {}

    def weights(self, array: NDArray[Any]) -> str:
        """A constant of type float32."""
        return self._constant(np.ascontiguousarray(array, np.float32))

    def integers(self, *values: int) -> str:
        """A constant vector of int64."""
        return self._constant(np.array(values, np.int64))

    def op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node of the standard set and return its only output."""
        return self._append(operator, inputs, 1, "", attributes)[0]

    def fused_op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node that only ONNX Runtime knows and return its first output."""
        return self._append(operator, inputs, 1, FUSED_DOMAIN, attributes)[0]

    def halves(self, tensor: str, axis: int) -> tuple[str, str]:
        """Cut a tensor into two equal parts."""
        first, second = self._append("Split", (tensor,), 2, "", {"axis": axis, "num_outputs": 2})
        return first, second

    def linear(self, tensor: str, weight: NDArray[Any], bias: NDArray[Any]) -> str:
        """``tensor @ weight.T + bias`` for (N, in) and weights (out, in)."""
        return self.op("Gemm", tensor, self.weights(weight), self.weights(bias), transB=1)

    def build(self, name: str, spec: GraphSpec, outputs: Sequence[str]) -> onnx.ModelProto:
        """The finished model; ``outputs`` are the tensors that become those of the spec, in its order."""
        self._nodes += [
            helper.make_node("Identity", [tensor], [output.name])
            for tensor, output in zip(outputs, spec.outputs, strict=True)
        ]
        graph = helper.make_graph(
            self._nodes, name, list(map(_value_info, spec.inputs)), list(map(_value_info, spec.outputs)), self._weights
        )
        domains = {node.domain for node in self._nodes}
        opsets = [helper.make_opsetid(domain, OPSET if domain == "" else 1) for domain in sorted(domains)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="feature_matcher_ros"
        )

    def _append(
        self, operator: str, inputs: Sequence[str], num_outputs: int, domain: str, attributes: dict[str, Any]
    ) -> list[str]:
        name = f"{operator}_{len(self._nodes)}"
        outputs = [f"{name}.{number}" for number in range(num_outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), outputs, name=name, domain=domain, **attributes))
        return outputs

    def _constant(self, array: NDArray[Any]) -> str:
        key = (array.tobytes(), array.dtype.str, array.shape)
        if key not in self._names:
            self._names[key] = f"constant_{len(self._names)}"
            self._weights.append(numpy_helper.from_array(array, self._names[key]))
        return self._names[key]


def _value_info(tensor: TensorSpec) -> onnx.ValueInfoProto:
    element_type = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(tensor.name, element_type, tensor.shape)
