"""What a graph takes and gives: the contract between its export and every runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from feature_matcher_ros.errors import RuntimeLoadError


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. A dimension is a number, or a name where it may differ from call to call."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str  # numpy's name: "float32", "int64", ...

    def __str__(self) -> str:
        return f"'{self.name}' {self.dtype}({', '.join(map(str, self.shape))})"

    def accepts(self, declared: TensorSpec) -> bool:
        """Whether a graph that declares this tensor can be used as written here.

        Names of dimensions are of no account, and a dimension that the graph leaves free may be fixed here.
        """
        if self.name != declared.name or self.dtype != declared.dtype or len(self.shape) != len(declared.shape):
            return False
        return all(
            isinstance(theirs, str) or mine == theirs for mine, theirs in zip(self.shape, declared.shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """All inputs and outputs of one exported graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def require_same_spec(graph_name: str, wanted: GraphSpec, declared: GraphSpec) -> None:
    """Check once, at opening, that a graph is the one its user was written for.

    Raises:
        RuntimeLoadError: a tensor is missing, is one too many, or is of another shape or type.
    """
    _require_same_tensors(graph_name, "input", wanted.inputs, declared.inputs)
    _require_same_tensors(graph_name, "output", wanted.outputs, declared.outputs)


def _require_same_tensors(
    graph_name: str, role: str, wanted: Sequence[TensorSpec], declared: Sequence[TensorSpec]
) -> None:
    found = {tensor.name: tensor for tensor in declared}
    for tensor in wanted:
        if tensor.name not in found or not tensor.accepts(found[tensor.name]):
            raise RuntimeLoadError(
                f"{graph_name} does not have the {role} {tensor} but {_listed(declared)}: "
                "export it again with this version of the package."
            )
    extra = [tensor for tensor in declared if tensor.name not in {spec.name for spec in wanted}]
    if extra:
        raise RuntimeLoadError(
            f"{graph_name} has the unexpected {role} {extra[0]}: export it again with this version of the package."
        )


def _listed(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, tensors)) or "none"
