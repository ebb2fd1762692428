"""What stands beside exported graphs: where they come from, what they take, and how to tell that they are unharmed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from feature_matcher_ros.errors import OutputError, RuntimeLoadError
from feature_matcher_ros.runtimes import open_runtime
from feature_matcher_ros.runtimes.graph_news import GraphNews, tell_of_graph
from feature_matcher_ros.runtimes.graph_spec import GraphSpec, TensorSpec
from feature_matcher_ros.runtimes.runtime import Runtime

FORMAT = 1
_PERMISSIVE = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT")
_LOG = logging.getLogger(__name__)
FILE_NAME = "manifest.json"
_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True, slots=True)
class GraphEntry:
    """One exported graph."""

    file: str  # beside the manifest
    sha256: str
    spec: GraphSpec
    max_difference: float  # largest difference from the model's own output, measured at export


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about one exported network."""

    method: str  # the matcher or extractor that it belongs to: "lightglue", "xfeat" ...
    weights: str  # name of the checkpoint
    licence: str
    source: str  # where the checkpoint comes from
    operators: str  # "onnxruntime": fused operators of that runtime; "standard": any runtime
    network: Mapping[str, Any]  # the configuration of the model, as that understands it
    graphs: Mapping[str, GraphEntry]
    versions: Mapping[str, str]  # of the programs that exported it


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it beside its graphs.

    Raises:
        OutputError: the folder cannot be written.
    """
    content = {"format": FORMAT, **asdict(manifest)}
    try:
        (folder / FILE_NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {folder / FILE_NAME} ({error}): choose a writable folder.") from error


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder of graphs.

    Raises:
        RuntimeLoadError: there is none, or it was written by another version of this package.
    """
    path = folder / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RuntimeLoadError(
            f"cannot read {path} ({error}): give a folder written by feature-matcher export."
        ) from error
    try:
        if content.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        graphs = {name: _graph_entry(entry) for name, entry in content.pop("graphs").items()}
        return Manifest(graphs=graphs, **content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RuntimeLoadError(
            f"{path} is not a manifest of this version of the package ({error}): export the graphs again."
        ) from error


def parse_network(
    folder: Path, manifest: Manifest, methods: Sequence[str], parse: Callable[[dict[str, Any]], _Parsed]
) -> _Parsed:
    """What ``parse`` makes of the network in a manifest, which has to be that of one of these methods.

    Raises:
        RuntimeLoadError: it is that of another method, or ``parse`` fails.
    """
    if manifest.method not in methods:
        raise RuntimeLoadError(
            f"{folder} holds the graphs of '{manifest.method}', not of {' or '.join(methods)}: give another folder, "
            "written by feature-matcher export."
        )
    try:
        return parse(dict(manifest.network))
    except (KeyError, TypeError, ValueError) as error:
        raise RuntimeLoadError(
            f"the manifest of {folder} does not describe a network ({error}): export the network again."
        ) from error


def open_graph(folder: Path, manifest: Manifest, name: str, spec: GraphSpec, runtime: str, num_threads: int) -> Runtime:
    """Open one of the graphs of a manifest after checking that it is the one that was exported.

    Raises:
        RuntimeLoadError: it is missing, was changed, does not fit ``spec``, or the runtime cannot open it.
    """
    if name not in manifest.graphs:
        raise RuntimeLoadError(f"the manifest of {folder} names no graph '{name}': export the network again.")
    tell_of_graph(GraphNews(manifest.method, name))
    opened = open_runtime(verified_graph_path(folder, manifest.graphs[name]), spec, runtime, num_threads)
    tell_of_graph(GraphNews(manifest.method, name, opened))
    announce_licence(manifest)
    return opened


def verified_graph_path(folder: Path, entry: GraphEntry) -> Path:
    """The path of a graph whose content is what the manifest says.

    Raises:
        RuntimeLoadError: the file is missing, cannot be read, or is not the one that was exported.
    """
    path = folder / entry.file
    if not path.is_file():
        raise RuntimeLoadError(f"the graph {path} named in the manifest is missing: export the graphs again.")
    try:
        found = sha256_of(path)
    except OSError as error:
        raise RuntimeLoadError(f"the graph {path} cannot be read ({error}): change its permissions.") from error
    if found != entry.sha256:
        raise RuntimeLoadError(
            f"{path} has the SHA-256 {found[:12]}... where the manifest says {entry.sha256[:12]}..., so it is "
            "truncated or was changed: export the graphs again."
        )
    return path


def announce_licence(manifest: Manifest) -> None:
    """Log, once in a process, on what terms weights may be used; those of unfree weights as a warning."""
    _announce(manifest.weights, manifest.licence)


@cache
def _announce(weights: str, licence: str) -> None:
    level = logging.INFO if licence in _PERMISSIVE else logging.WARNING
    _LOG.log(level, "licence of the weights %s: %s", weights, licence)


def _graph_entry(content: Mapping[str, Any]) -> GraphEntry:
    spec = GraphSpec(*(tuple(map(_tensor_spec, content["spec"][role])) for role in ("inputs", "outputs")))
    return GraphEntry(content["file"], content["sha256"], spec, content["max_difference"])


def _tensor_spec(content: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(content["name"], tuple(content["shape"]), content["dtype"])
