"""The streams and CUDA graphs of torch for machines without a GPU, while real tensors compute on the CPU.

What is computed while a stream is captured is written down and its results are spoilt, as nothing is computed then; a
replay does it again with the very memory that was used. Memory that a capture takes belongs to a pool, and every
replay spoils what the others of the pool have there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

_READS = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal"}


class FakeStream:
    """As torch.cuda.Stream."""

    def __init__(self) -> None:
        self.has_waited = self.has_run = False

    def wait_stream(self, stream: FakeStream) -> None:
        self.has_waited = True


class _Recorder(TorchDispatchMode):
    """Writes down what is computed."""

    def __init__(self, graph: FakeGraph) -> None:
        super().__init__()
        self._graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = _tensors((args, kwargs))
        # Whole numbers are shapes, which are on the host.
        if func._schema.name in _READS and any(tensor.is_floating_point() for tensor in given):
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        found = func(*args, **kwargs)
        places = {_place(tensor) for tensor in given}
        own = [tensor for tensor in _tensors(found) if _place(tensor) not in places]
        self._graph.work.append((func, args, kwargs, found, own))
        self._graph.pool.memory.setdefault(self._graph, []).extend(own)
        written = [given[0]] if func._schema.name.endswith("_") else []  # in place: that is not done yet either
        for tensor in own + written:
            _spoil(tensor) if tensor.is_floating_point() else None
        return found


class FakePool:
    """What torch.cuda.graph_pool_handle stands for."""

    def __init__(self) -> None:
        self.memory: dict[FakeGraph, list[torch.Tensor]] = {}


class FakeGraph:
    """As torch.cuda.CUDAGraph."""

    def __init__(self, cuda: FakeTorchCuda) -> None:
        self._cuda = cuda
        self.work: list[Any] = []
        self.pool = FakePool()
        self.is_complete = False

    def replay(self) -> None:
        assert self.is_complete and self._cuda.current is self._cuda.default
        self._cuda.num_replayed += 1
        for graph, memory in self.pool.memory.items():
            for tensor in memory if graph is not self else []:
                _spoil(tensor)
        for func, args, kwargs, found, own in self.work:
            computed = _tensors(func(*args, **kwargs))
            for tensor, value in zip(_tensors(found), computed, strict=True):
                if any(tensor is one for one in own):
                    tensor.copy_(value)


class FakeTorchCuda:
    """In place of the functions of torch.cuda; ``current`` is the stream that work goes to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.default = self.current = FakeStream()
        self.num_captured = self.num_replayed = 0
        self.is_capturing = False
        monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self.current)
        monkeypatch.setattr(torch.cuda, "stream", self._stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: FakeGraph(self))
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", FakePool)
        monkeypatch.setattr(torch.cuda, "graph", self._graph)

    @contextmanager
    def _stream(self, stream: FakeStream) -> Iterator[None]:
        assert not self.is_capturing
        before, self.current, stream.has_run = self.current, stream, True
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def _graph(
        self, cuda_graph: FakeGraph, pool: FakePool, stream: FakeStream, capture_error_mode: str
    ) -> Iterator[None]:
        assert stream is not self.default and stream.has_waited and stream.has_run, "it was warmed up on that stream"
        assert capture_error_mode == "thread_local" and not cuda_graph.work and not self.is_capturing
        cuda_graph.pool, self.current, before, self.is_capturing = pool, stream, self.current, True
        try:
            with _Recorder(cuda_graph):
                yield
        finally:
            self.is_capturing = False
        self.current = before  # the real one does not get here either when a capture fails
        cuda_graph.is_complete = True
        self.num_captured += 1


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_flatten(values)[0] if isinstance(value, torch.Tensor)]


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _spoil(tensor: torch.Tensor) -> None:
    tensor.fill_(float("nan") if tensor.is_floating_point() else -77)
