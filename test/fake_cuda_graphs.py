"""The part of NVIDIA's driver that captures streams, for machines without a GPU, called as the real one is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_uint64, c_void_p
from types import SimpleNamespace
from typing import Any

from fake_tensorrt import Gpu

STREAM = 77
INVALID, NO_CONTEXT, INVALIDATED = 1, 201, 901
_TEXTS = {INVALID: b"invalid argument", NO_CONTEXT: b"invalid device context", INVALIDATED: b"capture was invalidated"}


class FakeDriverLibrary:
    """As libcuda.so.1, whose functions check what they are given."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._next = 0x55AA_0000_1000
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.executables: dict[int, list[Callable[[], None]]] = {}
        self.num_instantiated = 0
        self.num_launched = 0
        self.begin_status = 0
        self.functions = {
            "cuStreamBeginCapture_v2": ctypes.CFUNCTYPE(c_int, c_void_p, c_int)(self._begin),
            "cuStreamEndCapture": ctypes.CFUNCTYPE(c_int, c_void_p, POINTER(c_void_p))(self._end),
            "cuGraphInstantiateWithFlags": ctypes.CFUNCTYPE(c_int, POINTER(c_void_p), c_void_p, c_uint64)(self._make),
            "cuGraphLaunch": ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)(self._launch),
            "cuGraphDestroy": ctypes.CFUNCTYPE(c_int, c_void_p)(self._destroy),
            "cuGraphExecDestroy": ctypes.CFUNCTYPE(c_int, c_void_p)(self._destroy_executable),
            "cuGetErrorString": ctypes.CFUNCTYPE(c_int, c_int, POINTER(c_char_p))(self._text),
        }

    def library(self, name: str) -> Any:
        """In place of ``ctypes.CDLL``."""
        assert name == "libcuda.so.1"
        return SimpleNamespace(**self.functions)

    def _begin(self, stream: int, mode: int) -> int:
        if self._gpu.num_active < 1:
            return NO_CONTEXT
        if stream != STREAM or mode not in (0, 1, 2) or self._gpu.captured is not None:
            return INVALID
        if self.begin_status == 0:
            self._gpu.captured, self._gpu.is_capture_broken = [], False
        return self.begin_status

    def _end(self, stream: int, graph: Any) -> int:
        captured, self._gpu.captured = self._gpu.captured, None
        if stream != STREAM or captured is None:
            return INVALID
        if self._gpu.is_capture_broken:
            graph[0] = None
            return INVALIDATED
        graph[0] = self._handle()
        self.graphs[graph[0]] = captured
        return 0

    def _make(self, executable: Any, graph: int, flags: int) -> int:
        if graph not in self.graphs or flags != 0:
            return INVALID
        self.num_instantiated += 1
        executable[0] = self._handle()
        self.executables[executable[0]] = list(self.graphs[graph])
        return 0

    def _launch(self, executable: int, stream: int) -> int:
        if self._gpu.num_active < 1:
            return NO_CONTEXT
        if executable not in self.executables or stream != STREAM or self._gpu.captured is not None:
            return INVALID
        work = self.executables[executable]
        self.num_launched += 1
        self._gpu.launch(lambda: [done() for done in work] and None)
        return 0

    def _destroy(self, graph: int) -> int:
        return 0 if self.graphs.pop(graph, None) is not None else INVALID

    def _destroy_executable(self, executable: int) -> int:
        return 0 if self.executables.pop(executable, None) is not None else INVALID

    def _text(self, status: int, text: Any) -> int:
        text[0] = _TEXTS.get(status, b"unrecognized error code")
        return 0

    def _handle(self) -> int:
        self._next += 0x100
        return self._next
