"""TensorRT in whichever of its two flavours is installed, and what is missing where it cannot be used.

``tensorrt`` tunes engines on the GPU that they are for; ``tensorrt_rtx`` builds them anywhere, for several kinds of
GPU, and finishes them on the GPU when they are opened. What is used here is the same in both.
"""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

from feature_matcher_ros.errors import RuntimeLoadError

_LOG = logging.getLogger(__name__)
CPU_ALTERNATIVE = "or set the runtime to onnx, which needs no GPU"
DRIVER = "libcuda.so.1"


@dataclass(frozen=True, slots=True, eq=False)
class TensorRT:
    """The imported library."""

    module: Any
    name: str  # "tensorrt" or "tensorrt_rtx"

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    @property
    def is_rtx(self) -> bool:
        return self.name == "tensorrt_rtx"


@cache
def load_tensorrt() -> TensorRT:
    """Import ``tensorrt``, or else ``tensorrt_rtx``.

    Raises:
        RuntimeLoadError: neither can be imported.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:  # a library that the wheel cannot load is an OSError
        first = error
    else:
        return TensorRT(tensorrt, "tensorrt")
    try:
        import tensorrt_rtx
    except (ImportError, OSError) as error:
        problems = "; ".join(" ".join(str(problem).split()) for problem in (first, error))
        raise RuntimeLoadError(
            f"TensorRT cannot be imported ({problems}): run pip install tensorrt-rtx, {CPU_ALTERNATIVE}."
        ) from error
    return TensorRT(tensorrt_rtx, "tensorrt_rtx")


def require_driver() -> None:
    """Check that there is a GPU and a driver for it.

    Raises:
        RuntimeLoadError: one of them is missing.
    """
    problem = driver_problem()
    if problem is not None:
        raise RuntimeLoadError(f"{problem}: install NVIDIA's driver on a machine with a GPU, {CPU_ALTERNATIVE}.")


def driver_problem() -> str | None:
    """What keeps CUDA from being used on this machine, found out without any package; None: nothing."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return f"there is no NVIDIA driver on this machine ({DRIVER} is missing)"
    status, count = driver.cuInit(0), ctypes.c_int(0)
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0:
        return f"the NVIDIA driver does not answer (CUDA error {status})"
    return None if count.value else "the NVIDIA driver finds no GPU"


def make_logger(library: TensorRT) -> Any:
    """A logger as the library wants one, that keeps the errors for the sentence that the user gets.

    It has ``errors``, a list of strings.
    """
    base: Any = library.module.ILogger  # the class to derive from is known only now
    errors = (base.Severity.INTERNAL_ERROR, base.Severity.ERROR)

    class Logger(base):
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in errors:
                self.errors.append(" ".join(message.split()))
            elif severity == base.Severity.WARNING:
                _LOG.debug("%s", message)

    return Logger()
