"""Kernels that ``tensorrt_rtx`` has compiled for the GPU at hand, kept beside their engine.

It compiles at the first inference what an engine leaves open, which may take long. What one process has compiled
the next one need not, if it has the same engine and the same GPU.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from feature_matcher_ros.errors import OutputError, RuntimeLoadError
from feature_matcher_ros.runtimes.engine_cache import CachedEngine
from feature_matcher_ros.runtimes.own_files import replace_file, require_own

_LOG = logging.getLogger(__name__)
_SHORT = 16  # characters of a hash in the name of a file
_DIGEST_BYTES = 32


def kernel_path(cached: CachedEngine, gpu: str) -> Path:
    """Where the kernels of an engine lie for a GPU of that name."""
    key = hashlib.sha256(f"{cached.manifest.sha256} {gpu}".encode()).hexdigest()
    return cached.path.with_name(f"{cached.path.stem}.{key[:_SHORT]}.kernels")


class KernelCache:
    """What is compiled for one engine, of this process and of those before it."""

    def __init__(self, config: Any, path: Path) -> None:
        """Let a runtime configuration use what was kept; in an active context.

        What is damaged, may have been written by others, or was compiled by another driver is compiled anew.
        """
        self._path = path
        self._cache = config.create_runtime_cache()  # must outlive the contexts that are created with it
        self._kept = _read(path)
        if self._kept and not self._cache.deserialize(self._kept):
            _LOG.info("%s was compiled for another driver: its kernels are compiled again", path)
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write what has been compiled, if it is new. Where that fails, the next start takes longer."""
        content = bytes(self._cache.serialize())
        if content == self._kept:
            return
        try:
            replace_file(self._path, hashlib.sha256(content).digest() + content)
        except OutputError as error:
            _LOG.warning("compiled kernels are not kept: %s", error)
        self._kept = content


def _read(path: Path) -> bytes:
    """What was kept; nothing where there is none that can be trusted."""
    if not path.is_file():
        return b""
    try:
        for part in (path.parent, path):
            require_own(part)
        content = path.read_bytes()
    except (RuntimeLoadError, OSError) as error:
        _LOG.warning("kernels are compiled again: %s", error)
        return b""
    digest, kernels = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(kernels).digest() != digest:
        _LOG.warning("kernels are compiled again: %s is damaged", path)
        return b""
    return kernels
