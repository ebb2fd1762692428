"""What a benchmark holds for: a machine, a number of its cores, and how fast these multiply."""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PRODUCT_SIZE = 2048  # large enough to reach what the processor can do, 17 GFLOP


@contextmanager
def limited_process(cores: int) -> Iterator[ProcessPoolExecutor]:
    """A process whose libraries use this many threads: they read the variables when they are loaded."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(cores)))
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context, initializer=partial(cv2.setNumThreads, cores)) as pool:
            yield pool
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def machine_line() -> str:
    """Processor, number of cores and what else kept them busy in the last minute, in one line."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before"


def times_faster(own_ms: Sequence[float], base_ms: Sequence[float]) -> float:
    """Median of the ratios of turns that were taken one after the other."""
    return float(np.median([base / own for own, base in zip(own_ms, base_ms, strict=True)]))


class MatrixProduct:
    """A large product of float32 matrices, as fast as this process can multiply."""

    def __init__(self, size: int = _PRODUCT_SIZE) -> None:
        self._factors = np.random.default_rng(0).random((2, size, size), np.float32)
        self._product = np.empty((size, size), np.float32)

    def gflops(self) -> float:
        """Multiply once; multiplications and additions per nanosecond."""
        begun_ns = time.perf_counter_ns()
        np.matmul(self._factors[0], self._factors[1], out=self._product)
        return float(2.0 * self._product.shape[0] ** 3 / (time.perf_counter_ns() - begun_ns))
