"""The commands about networks: ``feature-matcher export`` and ``feature-matcher weights``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from feature_matcher_ros.cli_options import configured
from feature_matcher_ros.errors import ConfigError, RuntimeLoadError
from feature_matcher_ros.models.dense_config import DenseTuning
from feature_matcher_ros.models.weights import (
    PUBLISHED_WEIGHTS,
    PublishedWeights,
    default_weights_folder,
    published_weights,
    pull_weights,
    verify_weights,
)

weights_app = typer.Typer(help="List, download and check published weights of networks.")

NamesArgument = Annotated[list[str] | None, typer.Argument(help="Names as listed; default: all that are there.")]
FolderOption = Annotated[
    Path | None, typer.Option("--folder", help="Folder of the weights; default: the user's cache.")
]


def export(
    weights: Annotated[list[str], typer.Argument(help="Names of pulled weights, or files of weights.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("graphs"),
    licence: Annotated[str | None, typer.Option("--licence", help="Licence of local files, e.g. Apache-2.0.")] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="File that calibrate wrote: its thresholds and matcher.max_image_px stay with the graphs."),
    ] = None,
) -> None:
    """Export networks to graphs, one folder each.

    Name the folders in extractor.graphs and matcher.graphs. Only the export needs torch.
    """
    try:
        from feature_matcher_ros.export.from_checkpoint import export_checkpoint
    except ModuleNotFoundError as error:
        raise RuntimeLoadError(
            f"export needs torch and onnx ({error}): run pip install 'feature_matcher_ros[torch]', here or on another "
            "machine, and copy the folder that it writes."
        ) from error
    chosen = configured(calibration, None).matcher
    tuning = DenseTuning(chosen.confidence_thresholds, chosen.max_image_px or DenseTuning().max_image_px)
    folders = [Path(name).stem for name in weights]
    for name in folders:
        if folders.count(name) > 1:
            raise ConfigError(
                f"two of the weights would be written to {output / name}: export them one by one with -o."
            )
    for name in weights:
        pulled = None if Path(name).suffix else published_weights(name)
        path = Path(name) if pulled is None else verify_weights(pulled, default_weights_folder())
        folder = output / path.stem
        manifest = export_checkpoint(path, folder, licence, tuning, chosen.matchability_thresholds, pulled)
        largest = max(graph.max_difference for graph in manifest.graphs.values())
        typer.echo(f"{folder}: {manifest.method}, {len(manifest.graphs)} graphs, within {largest:.1e} of the network")
        typer.echo(f"licence of the weights: {manifest.licence}")


@weights_app.command("list")
def list_weights(folder: FolderOption = None) -> None:
    """List the published weights with their licence and source."""
    typer.echo(f"{'name':<22}{'here':<8}licence and source")
    for entry in PUBLISHED_WEIGHTS:
        is_here = ((folder or default_weights_folder()) / entry.file_name).is_file()
        typer.echo(f"{entry.name:<22}{'pulled' if is_here else '-':<8}{entry.licence}\n{'':<30}{entry.url}")


@weights_app.command("pull")
def pull(
    names: Annotated[list[str], typer.Argument(help="Names as listed.")],
    folder: FolderOption = None,
) -> None:
    """Download weights, check them and print their licence."""
    for entry in _chosen(names):
        path = pull_weights(entry, folder or default_weights_folder())
        typer.echo(f"{path}\nlicence of the weights: {entry.licence}")


@weights_app.command("verify")
def verify(names: NamesArgument = None, folder: FolderOption = None) -> None:
    """Check that pulled weights are the published ones."""
    place = folder or default_weights_folder()
    entries = _chosen(names) if names else [entry for entry in PUBLISHED_WEIGHTS if (place / entry.file_name).is_file()]
    for entry in entries:
        is_known = entry.sha256 is not None
        typer.echo(f"{verify_weights(entry, place)} is {'as published' if is_known else 'there, but unverified'}")
    if not entries:
        typer.echo(f"no weights lie in {place}")


def _chosen(names: Sequence[str]) -> list[PublishedWeights]:
    return [published_weights(name) for name in names]
