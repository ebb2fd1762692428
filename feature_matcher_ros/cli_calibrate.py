"""The command ``feature-matcher calibrate``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_matcher_ros.cli_console import console, print_table, progress_bar
from feature_matcher_ros.cli_options import (
    ConfigOption,
    SetOption,
    configured,
    modality_named,
    refuse_idle,
    require_writable,
)
from feature_matcher_ros.errors import ConfigError

if TYPE_CHECKING:
    from feature_matcher_ros.evaluation.threshold_calibration import Calibration


def calibrate(
    source: Annotated[Path, typer.Argument(help="Bag, dataset folder, folder of images, video or JSON of pairs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="YAML file to write.")] = Path(
        "matcher_calibration.yaml"
    ),
    agreement: Annotated[
        float | None,
        typer.Option(help="Share of the matches of all layers that early stops must keep; 0.98 unless given."),
    ] = None,
    budget_ms: Annotated[
        float | None, typer.Option(help="Instead: the best agreement in at most this long per pair, on average.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=20, help="Pairs to use at most; half choose, half test the choice.")] = 200,
    plot: Annotated[Path | None, typer.Option(help="Picture to write; default: a PNG beside the YAML.")] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    modality: Annotated[str | None, typer.Option(help="mono, stereo or rgbd, where the source offers several.")] = None,
    layout: Annotated[str | None, typer.Option(help="Layout of a dataset folder, where its files fit several.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="YAML calibration, instead of the source's own.")] = None,
    image_topic: Annotated[str | None, typer.Option(help="Topic of the image; with stereo, of the left one.")] = None,
    camera_info_topic: Annotated[str | None, typer.Option(help="Topic of its CameraInfo.")] = None,
    start: Annotated[float, typer.Option(help="Seconds to leave out at the beginning.")] = 0.0,
    duration: Annotated[float | None, typer.Option(help="Seconds to process.")] = None,
    stride: Annotated[int, typer.Option(help="Process every n-th frame.")] = 1,
) -> None:
    """Choose when a network stops, and what lightglue drops.

    The choice is made on your own data, instead of by a fixed schedule.
    """
    from feature_matcher_ros.evaluation.sequences import Selection
    from feature_matcher_ros.evaluation.threshold_calibration import Wish
    from feature_matcher_ros.evaluation.threshold_calibration import calibrate as run_calibration
    from feature_matcher_ros.evaluation.threshold_report import plot_calibration, write_calibration
    from feature_matcher_ros.evaluation.threshold_sample import collect_pairs

    if agreement is not None and budget_ms is not None:
        raise ConfigError("--agreement and --budget-ms exclude each other: give the one that matters more.")
    wish = Wish(budget_ms=budget_ms) if agreement is None else Wish(agreement)
    selection = Selection(
        modality=modality_named(modality),
        layout=layout,
        image_topic=image_topic,
        camera_info_topic=camera_info_topic,
        calibration=calibration,
        start_s=start,
        duration_s=duration,
        stride=stride,
    )
    is_idle = source.suffix == ".json" and selection != Selection()
    refuse_idle({"--start and all other choices of frames have no effect on image pairs: give a recording": is_idle})
    picture = plot or output.with_suffix(".png")
    require_writable(output, picture)
    with progress_bar(source.name) as on_progress:
        sample = collect_pairs(source, configured(config, settings), selection, pairs, on_progress)
    with progress_bar("try the thresholds") as on_progress:
        found = run_calibration(sample, wish, on_progress)
    _show(found)
    write_calibration(found, output)
    plot_calibration(found, picture)
    console.print(f"wrote {output} and {picture}: give --config {output} to other commands, or to the node")


def _show(found: Calibration) -> None:
    from feature_matcher_ros.evaluation.threshold_report import calibration_table, layer_table

    console.print(
        f"{found.num_chosen_on + found.num_tried_on} of {found.num_seen} pairs: {found.num_chosen_on} chose, "
        f"the tables are of the other {found.num_tried_on}"
    )
    print_table(*layer_table(found), title="layers")
    print_table(*calibration_table(found), title=f"{found.source}, wanted agreement {100 * found.wanted:g} %")
    for doubt in _doubts(found):
        console.print(doubt, style="yellow")


def _doubts(found: Calibration) -> Iterator[str]:
    """What the pairs that had no part in the choice say against it."""
    if found.calibrated.agreement < found.wanted:
        yield (
            f"the pairs that did not choose keep {100 * found.calibrated.agreement:.1f} %, less than wanted: "
            "calibrate on more, and more varied, pairs"
        )
    if found.budget_ms is not None and found.calibrated.match_ms > found.budget_ms:
        yield (
            f"the pairs that did not choose take {found.calibrated.match_ms:.1f} ms, more than the budget of "
            f"{found.budget_ms:g} ms: calibrate while nothing else keeps the machine busy, or set "
            "matcher.match_budget_ms as well"
        )
