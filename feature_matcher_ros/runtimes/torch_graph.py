"""Exported graphs executed by torch, for GPUs without TensorRT: of LightGlue networks, node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.runtimes.graph_spec import GraphSpec
from feature_matcher_ros.runtimes.torch_runtime import TorchRuntime

GPU = "cuda"
Attributes = Mapping[str, Any]
Operator = Callable[[Sequence[Tensor], Attributes], Tensor | Sequence[Tensor]]


def open_torch_graph(graph_path: Path, spec: GraphSpec, precision: str = "float32") -> TorchRuntime:
    """Open a graph on the GPU; inputs of sizes that return are run by CUDA graphs.

    Raises:
        RuntimeLoadError: torch finds no GPU, or knows no operator of the graph.
    """
    if GPU == "cuda" and not torch.cuda.is_available():
        raise RuntimeLoadError(
            f"torch {torch.__version__} finds no GPU: install a build of torch with CUDA on a machine with one, or set "
            "the runtime to onnx, which needs no GPU."
        )
    module = GraphModule(onnx.load(str(graph_path)), graph_path.name)
    return TorchRuntime(module, spec, GPU, precision, captured_as=graph_path.stem)


class GraphModule(nn.Module):
    """Executes the nodes of a graph, one after the other; takes and returns named tensors.

    Shapes, and what is computed of them, stay on the host: nothing waits for the GPU in between.
    """

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        """Take over the constants.

        Raises:
            RuntimeLoadError: there is an operator that is not in a graph of LightGlue.
        """
        super().__init__()
        self._nodes = [
            (_operator(node, name), list(node.input), list(node.output), _attributes(node)) for node in model.graph.node
        ]
        self._outputs = [output.name for output in model.graph.output]
        self._integers: dict[str, Tensor] = {}
        self._weights: dict[str, str] = {}
        for number, constant in enumerate(model.graph.initializer):
            value = torch.from_numpy(numpy_helper.to_array(constant).copy())
            if value.is_floating_point():
                self._weights[constant.name] = f"weight{number}"
                self.register_buffer(f"weight{number}", value)
            else:
                self._integers[constant.name] = value

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        known = {**self._integers, **{name: getattr(self, buffer) for name, buffer in self._weights.items()}, **tensors}
        for operator, inputs, outputs, attributes in self._nodes:
            found = operator([known[name] for name in inputs], attributes)
            known.update(zip(outputs, [found] if isinstance(found, Tensor) else found, strict=True))
        return {name: known[name] for name in self._outputs}


def _operator(node: onnx.NodeProto, graph: str) -> Operator:
    if node.op_type not in _OPERATORS:
        raise RuntimeLoadError(
            f"{graph} has the operator {node.op_type}, and torch executes the graphs of lightglue only: "
            "set the runtime to tensorrt or onnx."
        )
    return _OPERATORS[node.op_type]


def _attributes(node: onnx.NodeProto) -> Attributes:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _numbers(tensor: Tensor) -> list[int]:
    """The entries of a tensor that lies on the host."""
    return [int(number) for number in tensor.flatten().tolist()]


def _slice(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    data, starts, ends, axes = given
    parts = [slice(None)] * data.dim()
    for start, end, axis in zip(_numbers(starts), _numbers(ends), _numbers(axes), strict=True):
        parts[axis] = slice(start, end)
    return data[tuple(parts)]


def _unsqueeze(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    tensor = given[0]
    for axis in sorted(_numbers(given[1])):
        tensor = tensor.unsqueeze(axis)
    return tensor


def _gather(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    return given[0].index_select(attributes.get("axis", 0), given[1].to(given[0].device))


def _gemm(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    right = given[1].T if attributes.get("transB", 0) else given[1]
    return given[0] @ right if len(given) == 2 else torch.addmm(given[2], given[0], right)


def _reshape(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    sizes = [given[0].shape[axis] if size == 0 else size for axis, size in enumerate(_numbers(given[1]))]
    return given[0].reshape(sizes)


def _layer_norm(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    return functional.layer_norm(given[0], given[1].shape, given[1], given[2], attributes["epsilon"])


def _attention(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    """Queries (1, N, W), keys and values (1, M, W) become contexts (1, N, W)."""
    query, key, value = (tensor.unflatten(2, (attributes["num_heads"], -1)).transpose(1, 2) for tensor in given)
    context = functional.scaled_dot_product_attention(query, key, value, scale=attributes["scale"])
    return context.transpose(1, 2).flatten(2)


def _rotary(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    """Vectors (1, N, W) of heads whose first half turns with the second, by cosines and sines (N, head / 2)."""
    vectors, _, cosines, sines = given
    parts = vectors.unflatten(2, (attributes["num_heads"], 2, -1))  # (1, N, heads, 2, head / 2)
    first, second = parts.unbind(3)
    cosines, sines = cosines[:, None], sines[:, None]
    return torch.stack((first * cosines - second * sines, second * cosines + first * sines), dim=3).flatten(2)


def _elementwise(function: Callable[..., Tensor]) -> Operator:
    return lambda given, attributes: function(*given)


def _reduced(function: Callable[..., Tensor]) -> Operator:
    return lambda given, attributes: function(given[0], _numbers(given[1]), keepdim=bool(attributes["keepdims"]))


_OPERATORS: Mapping[str, Operator] = {
    "Add": _elementwise(torch.add),
    "ArgMax": lambda given, attributes: given[0].argmax(attributes["axis"], keepdim=bool(attributes["keepdims"])),
    "Concat": lambda given, attributes: torch.cat(list(given), dim=attributes["axis"]),
    "Cos": _elementwise(torch.cos),
    "Exp": _elementwise(torch.exp),
    "Gather": _gather,
    "Gelu": _elementwise(functional.gelu),
    "Gemm": _gemm,
    "Identity": _elementwise(torch.Tensor.contiguous),
    "LayerNormalization": _layer_norm,
    "Log": _elementwise(torch.log),
    "LogSoftmax": lambda given, attributes: given[0].log_softmax(attributes["axis"]),
    "MatMul": _elementwise(torch.matmul),
    "Mul": _elementwise(torch.mul),
    "MultiHeadAttention": _attention,
    "Neg": _elementwise(torch.neg),
    "ReduceMax": _reduced(torch.amax),
    "ReduceSum": _reduced(torch.sum),
    "Reshape": _reshape,
    "RotaryEmbedding": _rotary,
    "Shape": lambda given, attributes: torch.tensor(given[0].shape),
    "Sigmoid": _elementwise(torch.sigmoid),
    "Sin": _elementwise(torch.sin),
    "Slice": _slice,
    "Softmax": lambda given, attributes: given[0].softmax(attributes["axis"]),
    "Softplus": _elementwise(functional.softplus),
    "Split": lambda given, attributes: given[0].chunk(attributes["num_outputs"], dim=attributes["axis"]),
    "Squeeze": lambda given, attributes: given[0].squeeze(tuple(_numbers(given[1]))),
    "Sub": _elementwise(torch.sub),
    "Transpose": lambda given, attributes: given[0].permute(attributes["perm"]),
    "Unsqueeze": _unsqueeze,
}
