"""What stands beside an engine: what it was built from, for what and how it was tested."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from feature_matcher_ros.errors import RuntimeLoadError

FORMAT = 1
# To be raised when a graph is turned into an engine in another way: what was built before is then built again.
RECIPE = 1

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """The shapes of all inputs that an engine was tuned for: smallest, customary and largest."""

    shapes: Mapping[str, tuple[Sizes, Sizes, Sizes]]

    def covers(self, shapes: Mapping[str, Sizes]) -> bool:
        """Whether inputs of these shapes may be given."""
        return all(
            low <= size <= high
            for name, (smallest, _, largest) in self.shapes.items()
            for low, size, high in zip(smallest, shapes[name], largest, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Environment:
    """What an engine is bound to beside its graph."""

    library: str  # "tensorrt" or "tensorrt_rtx"
    version: str
    cuda: str  # of the driver where that counts, else of the library
    architectures: tuple[str, ...]  # compute capabilities, e.g. "8.9"


@dataclass(frozen=True, slots=True)
class EngineSource:
    """All that decides on the content of an engine."""

    graph: str  # SHA-256 of the exported graph
    environment: Environment
    precision: str  # "float32", or "float16" for what tolerates it
    profiles: tuple[Profile, ...]

    @property
    def key(self) -> str:
        """SHA-256 of it all."""
        content = json.dumps({"recipe": RECIPE, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class EngineManifest:
    """One engine."""

    name: str  # of the graph, for people
    key: str
    source: EngineSource
    sha256: str  # of the engine
    num_bytes: int
    build_s: float
    chosen_at: str  # ISO 8601, UTC: of all engines of a graph the one that was chosen last is used
    acceptance: Mapping[str, Any] | None  # how it was compared with the graph in float32; None: it was not


def manifest_text(manifest: EngineManifest) -> str:
    """The manifest as it is written to a file."""
    return json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1) + "\n"


def read_engine_manifest(path: Path) -> EngineManifest:
    """Read what ``manifest_text`` wrote.

    Raises:
        RuntimeLoadError: it cannot be read, was written by another version of this package, or was changed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        manifest = EngineManifest(**{**content, "source": _source(content["source"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RuntimeLoadError(f"{path} is not the manifest of an engine ({error}): build the engine again.") from error
    if manifest.key != manifest.source.key:
        raise RuntimeLoadError(
            f"{path} was changed, or written by another version of the package: build the engine again."
        )
    return manifest


def _source(content: Mapping[str, Any]) -> EngineSource:
    environment = dict(content["environment"])
    environment["architectures"] = tuple(environment["architectures"])
    profiles = tuple(Profile(dict(map(_shapes, profile["shapes"].items()))) for profile in content["profiles"])
    return EngineSource(content["graph"], Environment(**environment), content["precision"], profiles)


def _shapes(item: tuple[str, Any]) -> tuple[str, tuple[Sizes, Sizes, Sizes]]:
    name, (smallest, customary, largest) = item
    return name, (tuple(smallest), tuple(customary), tuple(largest))
