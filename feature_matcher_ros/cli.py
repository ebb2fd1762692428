"""The command line ``feature-matcher``: parse, call, print.

Exit codes: 0 done, 1 bad input (one line on stderr says what to do), 2 usage, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from feature_matcher_ros.cli_bench import bench
from feature_matcher_ros.cli_build import build
from feature_matcher_ros.cli_calibrate import calibrate
from feature_matcher_ros.cli_console import console, print_table, progress_bar, show_log
from feature_matcher_ros.cli_live import CONTEXT, doctor, live
from feature_matcher_ros.cli_networks import export, weights_app
from feature_matcher_ros.cli_options import (
    ConfigOption,
    MatcherOption,
    SetOption,
    configured,
    modality_named,
    refuse_idle,
    require_writable,
)
from feature_matcher_ros.cli_training import train
from feature_matcher_ros.config import FrontEndConfig
from feature_matcher_ros.errors import ConfigError, FeatureMatcherError

app = typer.Typer(
    help="Real-time visual SLAM front-end: correspondences with track ids, and robust relative poses.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # rich cuts names and texts on a terminal of 80 columns
)


def main() -> NoReturn:
    """Run the command line; errors of this package become one line and exit code 1."""
    signal.signal(signal.SIGTERM, _interrupt)
    # The error that follows says better, and once, what OpenCV and FFmpeg say of a broken file.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")
    show_log()
    try:
        app()
    except FeatureMatcherError as error:
        _exit_with(str(error))
    except MemoryError:
        _exit_with("out of memory: process fewer or smaller images at a time.")
    sys.exit(0)


def replay(
    source: Annotated[Path, typer.Argument(help="Bag, dataset folder, folder of images, or video.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to, instead of runs/NAME.")
    ] = None,
    matcher: MatcherOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    modality: Annotated[str | None, typer.Option(help="mono, stereo or rgbd, where the source offers several.")] = None,
    layout: Annotated[str | None, typer.Option(help="Layout of a dataset folder, where its files fit several.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="YAML calibration, instead of the source's own.")] = None,
    image_topic: Annotated[str | None, typer.Option(help="Topic of the image; with stereo, of the left one.")] = None,
    camera_info_topic: Annotated[str | None, typer.Option(help="Topic of its CameraInfo.")] = None,
    right_topic: Annotated[str | None, typer.Option(help="Topic of the right image.")] = None,
    right_camera_info_topic: Annotated[str | None, typer.Option(help="Topic of its CameraInfo.")] = None,
    depth_topic: Annotated[str | None, typer.Option(help="Topic of the depth image.")] = None,
    depth_camera_info_topic: Annotated[str | None, typer.Option(help="Topic of its CameraInfo.")] = None,
    ground_truth_topic: Annotated[str | None, typer.Option(help="Topic of the true poses.")] = None,
    start: Annotated[float, typer.Option(help="Seconds to leave out at the beginning.")] = 0.0,
    duration: Annotated[float | None, typer.Option(help="Seconds to process.")] = None,
    stride: Annotated[int, typer.Option(help="Process every n-th frame.")] = 1,
    color: Annotated[bool, typer.Option("--color", help="Decode in colour, for pictures and recordings.")] = False,
    topics: Annotated[bool, typer.Option(help="Write an MCAP bag with the topics of the live node.")] = True,
    video: Annotated[bool, typer.Option("--video", help="Write a video of the matches.")] = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Write a recording for the rerun viewer.")] = False,
    report: Annotated[bool, typer.Option(help="Write report.html and report.json.")] = True,
) -> None:
    """Run the front-end over a recording and write a report.

    Poses, matches and the topics of the live node are written beside it.
    """
    from feature_matcher_ros.evaluation.replay import ReplayOptions
    from feature_matcher_ros.evaluation.sequences import Selection

    selection = Selection(
        modality=modality_named(modality),
        layout=layout,
        image_topic=image_topic,
        camera_info_topic=camera_info_topic,
        right_topic=right_topic,
        right_camera_info_topic=right_camera_info_topic,
        depth_topic=depth_topic,
        depth_camera_info_topic=depth_camera_info_topic,
        ground_truth_topic=ground_truth_topic,
        calibration=calibration,
        color=color or video or rerun,
        start_s=start,
        duration_s=duration,
        stride=stride,
    )
    # A dot in the name of a folder begins no suffix: walk.1 and walk.2 are two recordings.
    output = output or Path("runs") / (source.resolve().name if source.is_dir() else source.stem)
    options = ReplayOptions(topics=topics, video=video, rerun=rerun)
    _replay(source, output, selection, configured(config, settings, matcher), options, report)


def evaluate(
    paths: Annotated[list[Path], typer.Argument(help="Run folders, or JSON files of image pairs with true poses.")],
    ground_truth: Annotated[Path | None, typer.Option(help="TUM file; otherwise the one of the run.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of a comparison, instead of comparison.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture to write: layers run on image pairs, by how much these overlap.")
    ] = None,
    matcher: MatcherOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Measure runs against the truth, or matchers on image pairs.

    Several runs are compared side by side.
    """
    pair_sets = [path for path in paths if path.suffix == ".json"]
    runs = [path for path in paths if path.suffix != ".json"]
    refuse_idle(
        {
            "--plot draws the results of image pairs: give a JSON file of them": plot is not None and not pair_sets,
            "--config, --set and --matcher choose what matches image pairs: give a JSON file of them": (
                (config is not None or matcher is not None or bool(settings)) and not pair_sets
            ),
            "--ground-truth is what runs are measured against: give a run folder": ground_truth is not None
            and not runs,
            "--output is where a comparison is written: give several run folders": output is not None and len(runs) < 2,
        }
    )
    require_writable(plot)
    if pair_sets:
        _evaluate_pair_sets(pair_sets, configured(config, settings, matcher), plot)
    if len(runs) == 1:
        _report(runs[0], ground_truth)
    elif runs:
        _compare(runs, output or Path("comparison"), ground_truth)


def match(
    image0: Annotated[Path, typer.Argument(help="First image.")],
    image1: Annotated[Path, typer.Argument(help="Second image.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture to write.")] = Path("matches.png"),
    csv: Annotated[
        Path | None, typer.Option(help="Table to write: x0,y0,x1,y1 in pixels, score and inlier of each match.")
    ] = None,
    calibration: Annotated[Path | None, typer.Option(help="YAML calibration; without one there is no pose.")] = None,
    against: Annotated[
        str | None, typer.Option(help="Another matcher to draw below, with the matches of both on low texture.")
    ] = None,
    matcher: MatcherOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Match two images and draw the correspondences."""
    from feature_matcher_ros.evaluation.match_images import compare_matchers, match_images

    if csv is not None and against is not None:
        raise ConfigError("--csv is the table of one matcher: leave out --against.")
    chosen = configured(config, settings, matcher)
    if against is None:
        console.print(match_images(image0, image1, output, chosen, calibration, csv))
    else:
        console.print(compare_matchers(image0, image1, output, chosen, against, calibration))
    console.print(f"wrote {output}" + (f" and {csv}" if csv else ""))


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("demo"),
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Render a scene into a bag, replay it and write the report.

    It takes two minutes, and needs no camera and no download.
    """
    from feature_matcher_ros.evaluation.demo_scene import write_demo_bag
    from feature_matcher_ros.evaluation.replay import ReplayOptions
    from feature_matcher_ros.evaluation.sequences import Selection

    with progress_bar("render the scene") as on_progress:
        write_demo_bag(output / "rendered_room", on_progress=on_progress)
    _replay(output / "rendered_room", output / "run", Selection(), configured(config, settings), ReplayOptions(), True)
    console.print("the light is off for part of the way: the demo shows how the track is lost and found again")


# In the order in which a newcomer meets them.
app.command()(demo)
app.command()(replay)
app.command()(match)
app.command()(evaluate)
app.command(context_settings=CONTEXT)(live)
app.command(context_settings=CONTEXT)(doctor)
app.command()(calibrate)
app.command()(train)
app.command()(export)
app.command()(build)
app.command()(bench)
app.add_typer(weights_app, name="weights", no_args_is_help=True)


def _replay(source: Path, output: Path, selection: Any, config: FrontEndConfig, options: Any, report: bool) -> None:
    from feature_matcher_ros.evaluation.replay import replay as run_replay

    with progress_bar(source.name) as on_progress:
        summary = run_replay(
            source, output, selection=selection, config=config, options=options, on_progress=on_progress
        )
    for reason, count in summary.skipped.items():
        console.print(f"[yellow]skipped {count}[/]: {reason}")
    if not summary.finished:
        console.print(f"interrupted after {summary.num_frames} frames; {output} holds everything up to there")
        raise typer.Exit(130)
    rate = summary.num_frames / summary.wall_s if summary.wall_s else 0.0
    console.print(
        f"{summary.num_frames} frames of {summary.name} ({summary.modality.lower()}), {rate:.1f} Hz, in {output}"
    )
    if report:
        _report(output, None)


def _report(run: Path, ground_truth: Path | None) -> None:
    from feature_matcher_ros.evaluation.evaluate import evaluate_run
    from feature_matcher_ros.evaluation.report import write_report
    from feature_matcher_ros.evaluation.summary import ABSENT, summary_rows

    with console.status("writing the report"):
        evaluation = evaluate_run(run, ground_truth)
        path = write_report(evaluation, run)
    rows = [(label, value) for label, value in summary_rows(evaluation) if value != ABSENT]
    print_table(["", ""], rows, title=str(run))
    for remark in evaluation.remarks:
        console.print(remark, markup=False)
    console.print(f"report: {path}")


def _evaluate_pair_sets(paths: list[Path], config: FrontEndConfig, plot: Path | None) -> None:
    from feature_matcher_ros.evaluation.evaluate_pairs import evaluate_pairs, pair_set_table
    from feature_matcher_ros.evaluation.layers_plot import plot_layers

    evaluations = []
    for path in paths:
        with progress_bar(path.stem) as on_progress:
            evaluations.append(evaluate_pairs(path, config, on_progress=on_progress))
        print_table(*pair_set_table(evaluations[-1]), title=path.stem)
    if plot is not None:
        plot_layers(evaluations, plot)
        console.print(f"wrote {plot}")


def _compare(runs: list[Path], output: Path, ground_truth: Path | None) -> None:
    from feature_matcher_ros.evaluation.compare import compare_runs, comparison_table

    comparison = compare_runs(runs, output, ground_truth)
    print_table(*comparison_table(comparison), title="comparison")
    console.print(f"report: {output / 'comparison.html'}")


def _exit_with(sentence: str) -> NoReturn:
    sys.stderr.write(f"feature-matcher: {sentence}\n")
    sys.exit(1)


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
