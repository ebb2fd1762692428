"""Memory and a stream on the GPU, by pycuda on the primary context, which is also that of torch.

pycuda is compiled when it is installed and cannot be imported without a driver, so it is imported only when a GPU
is used. A thread makes the context its own for the length of a call and gives it back: pycuda ends the process if a
thread that has one ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.errors import MatcherError, RuntimeLoadError
from feature_matcher_ros.runtimes.engine_manifest import Environment
from feature_matcher_ros.runtimes.tensorrt_library import CPU_ALTERNATIVE, TensorRT, require_driver

_GRANULE = 1 << 16  # bytes: sizes that differ by little need no new memory
# CU_STREAM_NON_BLOCKING: users of the default stream, such as torch, neither wait for ours nor break a capture of it.
_INDEPENDENT = 1


class CudaDevice:
    """The first GPU, and the one stream on which everything happens, in the order in which it is asked for."""

    def __init__(self) -> None:
        """Retain the primary context.

        Raises:
            RuntimeLoadError: there is no driver, no GPU or no pycuda.
        """
        require_driver()
        self._driver = _import_pycuda()
        self._driver.init()
        self._device = self._driver.Device(0)
        self._context = self._device.retain_primary_context()
        with self.active():
            self._stream = self._driver.Stream(_INDEPENDENT)
        self._shared: Any = None
        self._shared_bytes = 0

    @property
    def compute_capability(self) -> str:
        major, minor = self._device.compute_capability()
        return f"{major}.{minor}"

    @property
    def cuda_version(self) -> str:
        """The newest that the driver knows."""
        version = self._driver.get_driver_version()
        return f"{version // 1000}.{version % 1000 // 10}"

    @property
    def name(self) -> str:
        return str(self._device.name())

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return int(self._stream.handle)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the context that of this thread; everything below needs that."""
        self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()

    def allocate(self, num_bytes: int) -> Any:
        """Memory of the GPU, an object that has its address as ``int`` and is freed with it.

        Raises:
            MatcherError: there is not enough of it.
        """
        try:
            return self._driver.mem_alloc(num_bytes)
        except self._driver.MemoryError as error:
            raise MatcherError(
                f"the GPU has no {num_bytes / 1e6:.0f} MB left ({error}): "
                "lower max_keypoints or max_image_px in the configuration, or free memory of the GPU."
            ) from error

    def shared_memory(self, num_bytes: int) -> Any:
        """Scratch memory whose content nobody relies on; one that is too small lives on while it is used.

        Raises:
            MatcherError: there is not enough of it.
        """
        if num_bytes > self._shared_bytes or self._shared is None:
            self._shared = self.allocate(max(num_bytes, _GRANULE))
            self._shared_bytes = max(num_bytes, _GRANULE)
        return self._shared

    def allocate_host(self, num_bytes: int) -> NDArray[np.uint8]:
        """Memory of the host that the GPU can reach by itself."""
        return np.asarray(self._driver.pagelocked_empty(num_bytes, np.uint8))

    def upload(self, source: NDArray[np.uint8], address: int) -> None:
        """Begin to copy; the source must stay as it is until then."""
        self._driver.memcpy_htod_async(address, source, self._stream)

    def download(self, address: int, target: NDArray[np.uint8]) -> None:
        """Begin to copy."""
        self._driver.memcpy_dtoh_async(target, address, self._stream)

    def mark(self) -> Any:
        """What has been asked for up to now, as something to ``synchronize`` with."""
        event = self._driver.Event()
        event.record(self._stream)
        return event

    def synchronize(self) -> None:
        """Wait for all that has been asked for."""
        self._stream.synchronize()

    def used_bytes(self) -> int:
        """Memory of the GPU that is in use by anyone."""
        free, total = self._driver.mem_get_info()
        return int(total - free)


@cache
def cuda_device() -> CudaDevice:
    """The GPU, opened once in a process.

    Raises:
        RuntimeLoadError: there is no driver, no GPU or no pycuda.
    """
    return CudaDevice()


def gpu_environment(library: TensorRT, device: CudaDevice) -> Environment:
    """What an engine must have been built for to run here; ``tensorrt_rtx`` finishes engines for any CUDA."""
    cuda = "" if library.is_rtx else device.cuda_version
    return Environment(library.name, library.version, cuda, (device.compute_capability,))


class DeviceMeter:
    """Measures by events on the stream on which everything happens."""

    name = "CUDA events"

    def __init__(self, device: CudaDevice) -> None:
        self._device = device

    def mark(self) -> Any:
        with self._device.active():
            return self._device.mark()

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        with self._device.active():
            end.synchronize()
            return float(end.time_since(begin))

    def memory_mb(self) -> float:
        with self._device.active():
            return self._device.used_bytes() * 1e-6


class DeviceBuffer:
    """Memory that grows when more is wanted, and then moves; else it stays where it is."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._memory: Any = None
        self._host: NDArray[np.uint8] | None = None
        self._capacity = 0
        self._copied: Any = None  # the last copy between the two memories

    @property
    def address(self) -> int:
        return int(self._memory)

    def refill(self, num_bytes: int) -> int:
        """Make room for new content and return the address; what was there before is lost.

        Raises:
            MatcherError: there is not enough memory; the buffer is empty then, and may be asked for less.
        """
        if num_bytes > self._capacity:
            if self._memory is not None:
                self._device.synchronize()  # somebody may still be reading
                self._memory.free()
                self._memory, self._host, self._capacity = None, None, 0
            capacity = -(-num_bytes // _GRANULE) * _GRANULE
            self._memory = self._device.allocate(capacity)
            self._capacity = capacity
        return self.address

    def upload(self, array: NDArray[Any]) -> int:
        """Begin to copy an array and return where it will be."""
        address = self.refill(max(1, array.nbytes))
        staged = self._staged(array.nbytes)
        if self._copied is not None:
            self._copied.synchronize()
        staged[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._device.upload(staged, address)
        self._copied = self._device.mark()
        return address

    def begin_download(self, num_bytes: int) -> None:
        """Begin to copy the content to the host."""
        self._device.download(self.address, self._staged(num_bytes))
        self._copied = self._device.mark()

    def downloaded(self, num_bytes: int) -> NDArray[np.uint8]:
        """What ``begin_download`` copied, once it has arrived; good until the next copy."""
        self._copied.synchronize()
        return self._staged(num_bytes)

    def _staged(self, num_bytes: int) -> NDArray[np.uint8]:
        if self._host is None:
            self._host = self._device.allocate_host(self._capacity)
        return self._host[:num_bytes]


class DeviceTensor:
    """A tensor that stays on the GPU until somebody asks numpy for an array of it.

    Its memory is its own as long as somebody holds it: features of a keyframe outlive many runs of their graph.
    """

    __slots__ = ("_buffer", "_device", "_give_back", "_is_on_its_way", "dtype", "shape")

    def __init__(
        self,
        device: CudaDevice,
        buffer: DeviceBuffer,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        give_back: Callable[[DeviceBuffer], None],
    ) -> None:
        """Take what is in a buffer, which is given back when nobody holds the tensor any more."""
        self._device, self._buffer, self._give_back = device, buffer, give_back
        self.shape, self.dtype = shape, dtype
        self._is_on_its_way = False

    def __del__(self) -> None:
        # Whoever fills the buffer next asks for that on the same stream, behind all that still reads it.
        self._give_back(self._buffer)

    @property
    def address(self) -> int:
        """Where it lies."""
        return self._buffer.address

    def __len__(self) -> int:
        return self.shape[0]

    def fetch(self) -> None:
        """Begin to copy it to the host, in an active context."""
        self._buffer.begin_download(self._num_bytes)
        self._is_on_its_way = True

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        with self._device.active():
            if not self._is_on_its_way:
                self.fetch()
            content = self._buffer.downloaded(self._num_bytes).copy()
        array: NDArray[Any] = content.view(self.dtype).reshape(self.shape)
        return array if dtype is None else array.astype(dtype)

    @property
    def _num_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def _import_pycuda() -> Any:
    try:
        import pycuda.driver
    except ImportError as error:
        raise RuntimeLoadError(
            f"pycuda cannot be imported ({error}): install NVIDIA's CUDA toolkit, which its installation compiles "
            f"with, and run pip install pycuda, {CPU_ALTERNATIVE}."
        ) from error
    return pycuda.driver
