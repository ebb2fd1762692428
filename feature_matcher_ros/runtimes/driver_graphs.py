"""CUDA graphs of a stream, by the driver itself: pycuda has a stream but no words for capturing it.

What is asked of a stream that is being captured is not executed but recorded, and can then be launched as a whole as
often as wanted. Everything here needs a current context.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_uint64, c_void_p
from functools import cache
from typing import Any

from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.runtimes.tensorrt_library import DRIVER

_OF_THIS_THREAD = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile does no harm
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_uint64),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
}


class StreamGraph:
    """What was asked of a stream while it was captured."""

    def __init__(self, stream: int, work: Callable[[], bool]) -> None:
        """Capture what ``work`` asks of the stream; it returns whether it could be asked for, and does nothing else.

        Raises:
            MatcherError: the work failed or did what cannot be captured; it may be asked for again without that.
        """
        self._stream = stream
        with _captured(stream, work) as graph:
            executable = c_void_p()
            status = _driver().cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, 0)
            _require("cuGraphInstantiateWithFlags", status)
        self._executable = executable
        weakref.finalize(self, _driver().cuGraphExecDestroy, executable).atexit = False

    def launch(self) -> None:
        """Ask the stream for it once more.

        Raises:
            MatcherError: the driver fails.
        """
        _require("cuGraphLaunch", _driver().cuGraphLaunch(self._executable, self._stream))


@contextmanager
def _captured(stream: int, work: Callable[[], bool]) -> Iterator[c_void_p]:
    """The graph, which is not needed any more once it has been instantiated."""
    graph = c_void_p()
    _require("cuStreamBeginCapture_v2", _driver().cuStreamBeginCapture_v2(stream, _OF_THIS_THREAD))
    try:
        try:
            is_asked_for = work()
        finally:  # a stream is of no use while it is captured
            status = _driver().cuStreamEndCapture(stream, ctypes.byref(graph))
        _require("cuStreamEndCapture", status)
        if not is_asked_for or not graph:
            raise MatcherError("the work cannot be asked of a stream that is captured: ask for it without that.")
        yield graph
    finally:
        if graph:
            _driver().cuGraphDestroy(graph)


def _require(function: str, status: int) -> None:
    if status != 0:
        text = c_char_p()
        _driver().cuGetErrorString(status, ctypes.byref(text))
        said = (text.value or b"unknown").decode()
        raise MatcherError(f"{function} failed: {said} (CUDA error {status}); set the runtime to onnx if it stays so.")


@cache
def _driver() -> Any:
    """The driver's library.

    Raises:
        MatcherError: it is older than CUDA 11.4.
    """
    library = ctypes.CDLL(DRIVER)
    for name, types in _SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise MatcherError(
                f"NVIDIA's driver has no {name}, for it is older than CUDA 11.4: install a newer one."
            ) from error
        function.argtypes, function.restype = types, c_int
    return library
