"""The command ``feature-matcher train``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_matcher_ros.cli_console import console, print_table, progress_bar
from feature_matcher_ros.errors import RuntimeLoadError

if TYPE_CHECKING:
    from feature_matcher_ros.training.progress import TrainingProgress

_LICENCE = "that of your images and settings"


def train(
    photographs: Annotated[Path | None, typer.Argument(help="Folder of images; default: procedural ones.")] = None,
    preset: Annotated[
        str,
        typer.Option(help="sift: the shipped matcher. efficient_loftr, loftr: no detector. smoke: tiny, in minutes."),
    ] = "sift",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; resumes what is there.")] = Path(
        "runs/train"
    ),
    views: Annotated[Path | None, typer.Option(help="Folder that keeps the views for several runs.")] = None,
    initial: Annotated[Path | None, typer.Option(help="Weights to start from, such as the shipped ones.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="One value of the recipe, e.g. matching.steps=3000. Repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; torchrun assigns the GPUs itself.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that make batches.")] = 0,
) -> None:
    """Train a matcher on pairs made of your images, and export it.

    Needs torch. An interrupted run goes on when started again.
    """
    try:
        from feature_matcher_ros.evaluation.training_curves import draw_training_curves
        from feature_matcher_ros.export.from_checkpoint import export_checkpoint
        from feature_matcher_ros.matchers.lightglue_graphs import threshold_entries
        from feature_matcher_ros.runtimes.manifest import write_manifest
        from feature_matcher_ros.training.config import preset as named_preset
        from feature_matcher_ros.training.config import with_settings
        from feature_matcher_ros.training.held_back_schedule import held_back_schedule
        from feature_matcher_ros.training.train import TrainingPlaces, choose_device, make_scenes
        from feature_matcher_ros.training.train import train as run_training
        from feature_matcher_ros.training.trainer import TrainerOptions, is_first_process
    except ModuleNotFoundError as error:
        raise RuntimeLoadError(
            f"train needs torch and onnx ({error}): run pip install 'feature_matcher_ros[torch]'."
        ) from error
    config = with_settings(named_preset(preset), settings or ())
    options = TrainerOptions(device=choose_device(device), num_workers=workers)
    places = TrainingPlaces(output, photographs, initial, views)
    with progress_bar("views") as on_views:
        scenes = make_scenes(config, places, on_views, str(options.device))
    trained = run_training(config, places, scenes, options, _show)
    if not is_first_process():
        return
    graphs = output / "graphs"
    licence = _LICENCE if initial is None else f"{_LICENCE}, and of {initial.name}, which training began with"
    manifest = export_checkpoint(trained.weights, graphs, licence)
    found = held_back_schedule(graphs, trained.held_back)
    chosen = threshold_entries(found.thresholds, found.matchability_thresholds)
    if chosen:
        write_manifest(graphs, replace(manifest, network={**manifest.network, **chosen}))
    draw_training_curves(output / "metrics.jsonl", output / "curves.png")
    console.print(f"weights: {trained.weights}\ngraphs: {graphs} ({len(manifest.graphs)})")
    for name, values in (("confidence", found.thresholds), ("matchability", found.matchability_thresholds)):
        console.print(f"{name} thresholds: {', '.join(f'{value:.3f}' for value in values) or 'of the paper'}")
    console.print(f"curves: {output / 'curves.png'}")


def _show(progress: TrainingProgress) -> None:
    """One line, and a table of the layers where they were just tested."""
    where = f"{progress.stage} {progress.step}/{progress.steps}"
    if progress.losses:
        console.print(f"{where}: loss {progress.loss:.3f}, {progress.pairs_per_s:.1f} pairs/s")
    if progress.layers:
        rows = [
            (f"layer {number}", f"{100 * layer.precision:.1f} %", f"{100 * layer.recall:.1f} %")
            for number, layer in enumerate(progress.layers, start=1)
        ]
        print_table(["", "precision", "recall"], rows, title=f"{where}: validation")
