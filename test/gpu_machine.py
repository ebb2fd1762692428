"""A computer with a GPU, as far as the package can tell: its driver and its libraries are fakes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_cuda_graphs import FakeDriverLibrary
from fake_tensorrt import FakeEngine, Gpu, fake_driver, fake_library

from feature_matcher_ros import runtimes
from feature_matcher_ros.runtimes import driver_graphs, tensorrt_library
from feature_matcher_ros.runtimes.engine_cache import EngineCache
from feature_matcher_ros.runtimes.tensorrt_device import cuda_device
from feature_matcher_ros.runtimes.tensorrt_library import load_tensorrt

_CACHED = (load_tensorrt, cuda_device, driver_graphs._driver)


@dataclass
class Machine:
    """What a test may look at."""

    gpu: Gpu
    cache: EngineCache
    opened: list[FakeEngine]
    driver: FakeDriverLibrary


@contextmanager
def gpu_machine(
    monkeypatch: pytest.MonkeyPatch,
    cache_folder: Path,
    library: str = "tensorrt_rtx",
    version: str = "1.7.1",
    capability: tuple[int, int] = (8, 9),
) -> Iterator[Machine]:
    """A machine with an empty cache of engines; its modules are imported as the real ones are."""
    gpu, opened = Gpu(), []
    driver = fake_driver(gpu, capability)
    modules = {"tensorrt": None, "tensorrt_rtx": None, "pycuda": SimpleNamespace(driver=driver)}
    modules |= {"pycuda.driver": driver, library: fake_library(gpu, opened, library, version)}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    library_of_driver = FakeDriverLibrary(gpu)
    monkeypatch.setattr(driver_graphs.ctypes, "CDLL", library_of_driver.library)
    monkeypatch.setattr(tensorrt_library, "driver_problem", lambda: None)
    monkeypatch.setattr(runtimes, "_is_tensorrt_installed", lambda: True)
    monkeypatch.setattr(runtimes, "_is_torch_on_gpu_expected", lambda: False)
    monkeypatch.setattr(runtimes, "_warned", set())
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_folder))
    for function in _CACHED:
        function.cache_clear()
    try:
        yield Machine(gpu, EngineCache(), opened, library_of_driver)
    finally:
        for function in _CACHED:
            function.cache_clear()
    assert gpu.num_active == 0, "every thread gives its context back"
