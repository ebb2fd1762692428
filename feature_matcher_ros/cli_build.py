"""The command ``feature-matcher build``."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from feature_matcher_ros.cli_console import console, print_table, progress_bar
from feature_matcher_ros.errors import RuntimeLoadError

KeypointsOption = Annotated[
    list[int] | None,
    typer.Option(
        "--keypoints",
        help="Most keypoints of an image, or most matches of a detector-free network. Repeatable: one profile each.",
    ),
]
ImageOption = Annotated[
    list[int] | None,
    typer.Option("--image-px", help="Longer side of the largest image of a network that sees images. Repeatable."),
]
ArchitectureOption = Annotated[
    list[str] | None, typer.Option("--for", help="Compute capability, e.g. 8.9; default: all. Repeatable.")
]


def build(
    graphs: Annotated[list[Path], typer.Argument(help="Folders of exported graphs.")],
    precision: Annotated[str, typer.Option(help="float16, where it does no harm, or float32.")] = "float16",
    keypoints: KeypointsOption = None,
    image_px: ImageOption = None,
    architectures: ArchitectureOption = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Try float16 on image pairs; where it fails, build float32.")
    ] = False,
    pairs: Annotated[Path | None, typer.Option(help="JSON file of pairs to try; default: rendered frames.")] = None,
    points: Annotated[Path | None, typer.Option(help="Graphs of the extractor to try with; default: SIFT.")] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build engines that exist already, too.")] = False,
) -> None:
    """Build TensorRT engines of exported graphs.

    They are written to the user's cache. With tensorrt-rtx this needs no GPU.
    """
    try:
        from feature_matcher_ros.export.engine_profiles import EngineBudget
        from feature_matcher_ros.export.to_tensorrt import EngineOptions
    except ModuleNotFoundError as error:
        raise RuntimeLoadError(
            f"building engines needs onnx ({error}): run pip install 'feature_matcher_ros[engines]'."
        ) from error
    default = EngineBudget()
    largest: list[int | None] = [*sorted(set(image_px))] if image_px else [default.max_image_px]
    counts = sorted(set(keypoints or [default.max_keypoints]))
    budgets = tuple(EngineBudget(count, pixels) for count, pixels in product(counts, largest))
    options = EngineOptions(precision, budgets, tuple(architectures or ()), rebuild)
    for folder in graphs:
        _build_folder(folder, options, pairs, points, accept)


def _build_folder(folder: Path, options: Any, pairs: Path | None, points: Path | None, accept: bool) -> None:
    from feature_matcher_ros.export.accepted_engines import TrialSource, build_accepted
    from feature_matcher_ros.export.to_tensorrt import build_network, precisions_of
    from feature_matcher_ros.runtimes.manifest import read_manifest

    with progress_bar(folder.name) as on_progress:

        def report(name: str, share: float) -> None:
            on_progress(round(100.0 * share), 100)

        if accept:
            built, acceptance = build_accepted(folder, options, TrialSource(pairs, points), report)
        else:
            precisions = precisions_of(read_manifest(folder), options.precision)
            built, acceptance = build_network(folder, options, precisions, on_progress=report), None
    rows = [
        (engine.name, engine.source.precision, f"{engine.num_bytes / 1e6:.2f}", f"{engine.build_s:.1f}")
        for engine in (found.manifest for found in built)
    ]
    environment = built[0].manifest.source.environment
    title = f"{folder}: {environment.library} {environment.version} for {', '.join(environment.architectures)}"
    print_table(["graph", "precision", "MB", "built in s"], rows, title=title)
    console.print(f"{sum(found.is_new for found in built)} engines built, {len(built)} in the cache")
    if acceptance is not None:
        _print_acceptance(acceptance)


def _print_acceptance(acceptance: Any) -> None:
    rows = [
        ("executed by", acceptance.executed_by),
        ("pairs, matches in float32", f"{acceptance.num_pairs}, {acceptance.num_matches}"),
        ("of them found again", f"{100.0 * acceptance.retention:.2f} %"),
        ("others found", f"{100.0 * acceptance.added:.2f} %"),
        (
            "difference of scores",
            f"{acceptance.mean_score_difference:.1e}, at most {acceptance.max_score_difference:.1e}",
        ),
        ("pairs with as many layers", f"{100.0 * acceptance.same_layers:.0f} %"),
        (
            "difference of rotations",
            f"{acceptance.median_rotation_deg:.3f}°, at most {acceptance.max_rotation_deg:.3f}°",
        ),
        ("of directions", f"{acceptance.median_direction_deg:.3f}°, at most {acceptance.max_direction_deg:.3f}°"),
        ("poses lost", str(acceptance.lost_poses)),
    ]
    print_table(["", "float16 beside float32"], rows, title="acceptance")
