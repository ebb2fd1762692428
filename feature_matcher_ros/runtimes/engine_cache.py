"""Where built engines lie, and why one of them is used or not.

An engine is code for the GPU: nothing is loaded that is not, byte for byte, what this user built for this graph,
library and GPU. All of that is checked before the library sees a byte of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.runtimes.engine_manifest import (
    EngineManifest,
    Environment,
    manifest_text,
    read_engine_manifest,
)
from feature_matcher_ros.runtimes.own_files import replace_file, require_own, unwritable

_LOG = logging.getLogger(__name__)
_SHORT = 16  # characters of a hash in the name of a file


def default_engine_folder() -> Path:
    """Where engines lie: in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "feature_matcher_ros" / "engines"


@dataclass(frozen=True, slots=True, eq=False)
class CachedEngine:
    """An engine that passed every test, as it is to be given to the library."""

    manifest: EngineManifest
    content: bytes
    path: Path


class EngineCache:
    """A folder of engines with their manifests, those of one graph side by side."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or default_engine_folder()

    @property
    def folder(self) -> Path:
        return self._folder

    def find(self, graph_sha256: str, environment: Environment) -> CachedEngine:
        """The engine of a graph that was chosen last.

        ``environment`` has one architecture, that of the GPU at hand.

        Raises:
            RuntimeLoadError: there is none for this environment, or it was changed or truncated, or others than
                this user may write to it.
        """
        manifests = self.manifests(graph_sha256)
        fitting = [found for found in manifests if _fits(found, environment)]
        if not fitting:
            raise RuntimeLoadError(_why_none(manifests, environment))
        manifest = max(fitting, key=lambda found: (found.chosen_at, found.key))
        return CachedEngine(manifest, self._content(manifest), self._path(graph_sha256, manifest.key))

    def holds(self, manifest_key: str, graph_sha256: str) -> EngineManifest | None:
        """The manifest of an unharmed engine with exactly this key; None where there is none."""
        path = self._path(graph_sha256, manifest_key).with_suffix(".json")
        if not path.is_file():
            return None
        try:
            manifest = read_engine_manifest(path)
            self._content(manifest)
        except RuntimeLoadError as error:
            _LOG.warning("%s", error)
            return None
        return manifest

    def manifests(self, graph_sha256: str) -> list[EngineManifest]:
        """The manifests of all engines of a graph; files that cannot be read as one are named in the log."""
        read = map(_manifest_or_none, sorted(self._place(graph_sha256).glob("*.json")))
        return [manifest for manifest in read if manifest is not None]

    def store(self, manifest: EngineManifest, content: bytes) -> Path:
        """Write an engine and then its manifest, each at once or not at all; returns the path of the engine.

        Until it is chosen, others are used before it.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = self._path(manifest.source.graph, manifest.key)
        replace_file(path, content)
        replace_file(path.with_suffix(".json"), manifest_text(manifest).encode())
        return path

    def choose(self, manifest: EngineManifest, acceptance: Mapping[str, Any] | None) -> EngineManifest:
        """Make a stored engine the one that is used from now on; returns its new manifest.

        Raises:
            OutputError: the folder cannot be written.
        """
        now = datetime.now(timezone.utc).isoformat()
        chosen = replace(manifest, chosen_at=now, acceptance=acceptance or manifest.acceptance)
        replace_file(
            self._path(manifest.source.graph, manifest.key).with_suffix(".json"), manifest_text(chosen).encode()
        )
        return chosen

    @contextmanager
    def locked(self, graph_sha256: str) -> Iterator[None]:
        """Hold the engines of a graph against other processes, waiting for those that hold them.

        Raises:
            OutputError: the folder cannot be written.
            RuntimeLoadError: others may write to it, so that no engine in it would be used.
        """
        place = self._place(graph_sha256)
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = (place / "lock").open("a")
        except OSError as error:
            raise unwritable(place, error) from error
        with file:
            require_own(place)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _LOG.info("another process builds engines in %s: waiting for it", place)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield  # closing the file releases it

    def _content(self, manifest: EngineManifest) -> bytes:
        path = self._path(manifest.source.graph, manifest.key)
        for part in (path.parent, path, path.with_suffix(".json")):
            require_own(part)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RuntimeLoadError(f"the engine {path} cannot be read ({error}): build it again.") from error
        if hashlib.sha256(content).hexdigest() != manifest.sha256:
            raise RuntimeLoadError(
                f"the engine {path} has {len(content)} bytes that are not those that were built "
                f"({manifest.num_bytes} bytes), so it is truncated or was changed: build it again."
            )
        return content

    def _place(self, graph_sha256: str) -> Path:
        return self._folder / graph_sha256[:_SHORT]

    def _path(self, graph_sha256: str, key: str) -> Path:
        return self._place(graph_sha256) / f"{key[:_SHORT]}.engine"


def _manifest_or_none(path: Path) -> EngineManifest | None:
    try:
        return read_engine_manifest(path)
    except RuntimeLoadError as error:
        _LOG.warning("%s", error)
        return None


def _fits(manifest: EngineManifest, environment: Environment) -> bool:
    built = manifest.source.environment
    same = (built.library, built.version, built.cuda) == (environment.library, environment.version, environment.cuda)
    return same and set(environment.architectures) <= set(built.architectures)


def _why_none(manifests: list[EngineManifest], environment: Environment) -> str:
    if not manifests:
        return f"there is no engine for {_named(environment)}"
    others = sorted({f"{_named(found.source.environment)} in {found.source.precision}" for found in manifests})
    return f"there is no engine for {_named(environment)}, only for {'; '.join(others)}"


def _named(environment: Environment) -> str:
    cuda = f" with CUDA {environment.cuda}" if environment.cuda else ""
    capabilities = ", ".join(environment.architectures)
    return f"{environment.library} {environment.version}{cuda} and compute capability {capabilities}"
