"""The plots of a run: its path, its errors, its matches, its motion and its latency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Float, MotionType, Status, Trajectory
from feature_matcher_ros.evaluation.evaluate import RunEvaluation, lost_stretches
from feature_matcher_ros.evaluation.pair_table import STAGES, PairRow
from feature_matcher_ros.evaluation.plot_style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RED,
    TEAL,
    Plot,
    new_figure,
    plot_style,
    to_svg,
)

MOTION_COLORS = {
    MotionType.GENERAL: BLUE,
    MotionType.PLANAR: TEAL,
    MotionType.ROTATION_ONLY: PURPLE,
    MotionType.STATIC: GREY,
    MotionType.UNKNOWN: RED,
}
_MAX_VECTORS = 3000  # more strokes than this are drawn as pixels, for a page of moderate size
_STATUS_KEYS = (("pose", GREEN), ("gated", GREY), ("first frame", INK), ("no pose", RED))


def plot_trajectory(evaluation: RunEvaluation) -> Plot | None:
    """Path from above and height over time; None if no frame has a place."""
    aligned, estimate = evaluation.series.aligned, evaluation.series.estimate
    if aligned is None and estimate is None:
        return None
    with plot_style():
        figure = new_figure(4.3)
        top, side = figure.subplots(1, 2, width_ratios=(3, 2))
        shown = {"truth": aligned.truth, "estimate": aligned.estimate} if aligned else {"estimate": estimate}
        paths = {name: path for name, path in shown.items() if path is not None}
        unit = "m" if evaluation.metric or aligned else "first baselines"
        draw_paths(top, side, [(path, GREY if name == "truth" else BLUE) for name, path in paths.items()], unit)
        svg = to_svg(figure, "trajectory")
    keys = (("truth", GREY), ("estimate", BLUE)) if aligned else (("estimate", BLUE),)
    note = "Up is the axis of the world nearest to the top of the images; circles are first poses."
    return Plot(svg, keys, note)


def draw_paths(top: Axes, side: Axes, paths: Sequence[tuple[Trajectory, str]], unit: str) -> None:
    """Draw paths from above, and their height over time."""
    first = paths[0][0]
    u, v, vertical, sign = _ground_plane(first)
    start_ns = int(first.stamps_ns[0])
    for path, color in paths:
        positions, time_s = path.world_from_cam[:, :3, 3], (path.stamps_ns - start_ns) / 1e9
        width = 5.0 if color == GREY else 1.6
        top.plot(positions[:, u], positions[:, v], color=color, linewidth=width)
        top.plot(positions[:1, u], positions[:1, v], "o", color=color, markersize=7, markerfacecolor="none")
        side.plot(time_s, sign * positions[:, vertical], color=color, linewidth=width)
    top.set(title="From above", xlabel=f"{'xyz'[u]} ({unit})", ylabel=f"{'xyz'[v]} ({unit})")
    top.set_aspect("equal", adjustable="datalim")
    side.set(title="Height over time", xlabel="time (s)", ylabel=f"{'-' if sign < 0 else ''}{'xyz'[vertical]} ({unit})")


def plot_errors(evaluation: RunEvaluation) -> Plot | None:
    """Errors of poses and of the trajectory over time; None without truth."""
    aligned, errors = evaluation.series.aligned, evaluation.series.pair_errors
    if aligned is None and not errors:
        return None
    start_ns = evaluation.series.rows[0].stamp_ns
    keys = []
    with plot_style():
        figure = new_figure(5.4 if aligned else 3.8)
        panels = list(figure.subplots(3 if aligned else 2, 1, sharex=True))
        _draw_pair_errors(panels[0], panels[1], evaluation, start_ns)
        keys += [("pose error", BLUE), ("2 reported sigma", GREY)]
        keys += [("false acceptance", RED)] if any(error.wrong for error in errors) else []
        if aligned is not None:
            time_s = (aligned.estimate.stamps_ns - start_ns) / 1e9
            panels[2].fill_between(time_s, aligned.position_errors_m, color=ORANGE, alpha=0.2, linewidth=0)
            panels[2].plot(time_s, aligned.position_errors_m, color=ORANGE)
            panels[2].set(title="Position error of the trajectory (m)", ylim=(0, None))
            keys.append(("position error", ORANGE))
        for panel in panels:
            _shade_lost(panel, evaluation.series.rows, start_ns)
        panels[-1].set_xlabel("time (s)")
        svg = to_svg(figure, "errors")
    return Plot(svg, (*keys, ("lost", RED)) if evaluation.frames.num_lost_frames else tuple(keys))


def plot_matches(evaluation: RunEvaluation) -> Plot | None:
    """Matches, inliers and layers over time, with keyframes and lost stretches; None if nothing was matched."""
    rows = [row for row in evaluation.series.rows if row.num_matches is not None]
    if not rows:
        return None
    start_ns = evaluation.series.rows[0].stamp_ns
    has_layers = bool(evaluation.frames.layers_run)
    with plot_style():
        figure = new_figure(4.6 if has_layers else 3.6)
        panels = list(
            figure.subplots(3 if has_layers else 2, 1, sharex=True, height_ratios=(2, 1, 1)[: 2 + has_layers])
        )
        time_s = _time_s(rows, start_ns)
        _draw_counts(panels[0], evaluation.series.rows, rows, start_ns)
        panels[1].plot(time_s, [100.0 * (row.inlier_ratio or 0.0) for row in rows], ".", color=TEAL, markersize=5)
        panels[1].set(title="Share of inliers (%)", ylim=(0, 105))
        if has_layers:
            layered = [row for row in rows if row.layers_run is not None]
            layers = [row.layers_run or 0 for row in layered]
            panels[2].plot(_time_s(layered, start_ns), layers, ".", color=PURPLE, markersize=5)
            panels[2].set(title="Layers run", ylim=(0, max(layers) + 0.5))
        for panel in panels:
            _shade_lost(panel, evaluation.series.rows, start_ns)
        panels[-1].set_xlabel("time (s)")
        svg = to_svg(figure, "matches")
    keys = [("matches", GREY), ("inliers", BLUE), ("keyframe", ORANGE), ("inlier share", TEAL)]
    keys += [("layers", PURPLE)] if has_layers else []
    return Plot(svg, (*keys, ("lost", RED)) if evaluation.frames.num_lost_frames else tuple(keys))


def plot_timeline(evaluation: RunEvaluation) -> Plot | None:
    """What became of every frame, and which motion was seen; None without frames."""
    rows = evaluation.series.rows
    if not rows:
        return None
    start_ns = rows[0].stamp_ns
    matched = [row for row in rows if row.attempted]
    with plot_style():
        figure = new_figure(1.9)
        status, motion = figure.subplots(2, 1, sharex=True)
        edges = _edges_s(rows, start_ns)
        _draw_strip(status, edges, [_status_color(row.status) for row in rows])
        status.set_title("Frames")
        if matched:
            _draw_strip(motion, _edges_s(matched, start_ns), [MOTION_COLORS[row.motion_type] for row in matched])
        motion.set(title="Motion of the matched pairs", xlabel="time (s)", xlim=(edges[0], edges[-1]))
        svg = to_svg(figure, "timeline")
    seen = {row.motion_type for row in matched}
    motions = tuple((kind.value, color) for kind, color in MOTION_COLORS.items() if kind in seen)
    return Plot(svg, (*_STATUS_KEYS, *motions))


def plot_latency(evaluation: RunEvaluation) -> Plot | None:
    """How the time of a frame is spread, and which stage takes it; None without frames."""
    rows = evaluation.series.rows
    if not rows:
        return None
    matched = [row.total_ms for row in rows if row.attempted]
    others = [row.total_ms for row in rows if not row.attempted]
    with plot_style():
        figure = new_figure(3.4)
        whole, stages = figure.subplots(1, 2)
        limit = max(float(np.percentile(matched + others, 99.5)), 1e-3)
        bins = np.linspace(0.0, 1.05 * limit, 41)
        clipped = [np.minimum(np.asarray(times), bins[-1]) for times in (others, matched)]
        whole.hist(clipped, bins=bins, stacked=True, color=[GREY, BLUE])
        whole.set(title="Time of a whole frame", xlabel="ms (the last bar holds all that is longer)", ylabel="frames")
        _draw_stage_boxes(stages, rows)
        svg = to_svg(figure, "latency")
    note = "Bars: 25 to 75 %, line: median, whiskers: 5 to 95 %, dot: maximum."
    return Plot(svg, (("matched frames", BLUE), ("other frames", GREY)), note)


def _draw_pair_errors(rotation: Axes, direction: Axes, evaluation: RunEvaluation, start_ns: int) -> None:
    errors = evaluation.series.pair_errors
    for axes, name, title in (
        (rotation, "rotation", "Rotation error of the pairs (deg)"),
        (direction, "direction", "Direction error of the moving pairs (deg)"),
    ):
        known = [error for error in errors if getattr(error, f"{name}_deg") is not None]
        time_s = np.array([(error.stamp_ns - start_ns) / 1e9 for error in known])
        values = np.array([getattr(error, f"{name}_deg") for error in known])
        sigmas = np.array([2.0 * (getattr(error, f"{name}_sigma_deg") or 0.0) for error in known])
        wrong = np.array([error.wrong for error in known], dtype=bool)
        axes.vlines(time_s, 0.0, sigmas, color=GREY, linewidth=2.2, alpha=0.6, rasterized=len(known) > _MAX_VECTORS)
        axes.plot(time_s[~wrong], values[~wrong], ".", color=BLUE, markersize=5)
        axes.plot(time_s[wrong], values[wrong], "x", color=RED, markersize=6, markeredgewidth=1.8)
        axes.set(title=title, ylim=(0, _robust_top(np.concatenate([values, sigmas]), values)))


def _draw_counts(axes: Axes, rows: Sequence[PairRow], matched: Sequence[PairRow], start_ns: int) -> None:
    time_s = _time_s(matched, start_ns)
    heights, dense = [row.num_matches or 0 for row in matched], len(matched) > _MAX_VECTORS
    axes.vlines(time_s, 0, heights, color=GREY, linewidth=2.2, alpha=0.6, rasterized=dense)
    axes.plot(time_s, [row.num_inliers or 0 for row in matched], color=BLUE, marker=".", markersize=4, linewidth=0.9)
    keyframes = _time_s([row for row in rows if row.is_keyframe], start_ns)
    axes.plot(keyframes, np.zeros(len(keyframes)), "^", color=ORANGE, markersize=5, clip_on=False, zorder=5)
    axes.set(title="Matches and inliers", ylim=(0, None))


def _draw_strip(axes: Axes, edges_s: Float, colors: Sequence[str]) -> None:
    """Fill the time up to the next frame with the colour of each frame; equal neighbours are joined."""
    first = 0
    for index in range(1, len(colors) + 1):
        if index == len(colors) or colors[index] != colors[first]:
            axes.axvspan(edges_s[first], edges_s[index], color=colors[first], linewidth=0)
            first = index
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)


def _draw_stage_boxes(axes: Axes, rows: Sequence[PairRow]) -> None:
    spent = {stage: [time for row in rows if (time := row.stage_ms(stage)) is not None] for stage in STAGES}
    known = [stage for stage in reversed(STAGES) if spent[stage]]
    for height, stage in enumerate(known):
        times = spent[stage]
        p5, p25, p50, p75, p95 = np.percentile(times, (5, 25, 50, 75, 95))
        color = INK if stage == "total" else BLUE
        axes.hlines(height, p5, p95, color=color, linewidth=1.2)
        axes.barh(height, max(p75 - p25, 1e-9), left=p25, height=0.5, color=color, alpha=0.35)
        axes.vlines(p50, height - 0.25, height + 0.25, color=color, linewidth=2.2)
        axes.plot(max(times), height, ".", color=MUTED, markersize=5)
    axes.set(title="Time by stage", xlabel="ms", yticks=range(len(known)), yticklabels=known, xlim=(0, None))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _shade_lost(axes: Axes, rows: Sequence[PairRow], start_ns: int) -> None:
    for first_ns, last_ns in lost_stretches(rows):
        axes.axvspan((first_ns - start_ns) / 1e9, (last_ns - start_ns) / 1e9, color=RED, alpha=0.12, linewidth=0)


def _status_color(status: Status) -> str:
    if status in (Status.OK, Status.FIRST_FRAME):
        return GREEN if status is Status.OK else INK
    return GREY if status in (Status.GATED, Status.REPEATED_STAMP) else RED


def _robust_top(values: Float, necessary: Float) -> float | None:
    """Upper end of an axis: all of ``necessary``, and of the rest what does not dwarf it."""
    if len(necessary) == 0:
        return None
    return 1.08 * float(max(necessary.max(), min(values.max(), 3.0 * necessary.max()), 1e-3))


def _ground_plane(path: Trajectory) -> tuple[int, int, int, float]:
    """The two horizontal axes of the world, the vertical one, and 1 if that points up, else -1.

    Up is where the top of the images points on average; only the axis nearest to it is told.
    """
    up = -path.world_from_cam[:, :3, 1].mean(axis=0)
    vertical = int(np.argmax(np.abs(up)))
    u, v = (axis for axis in range(3) if axis != vertical)
    return u, v, vertical, 1.0 if up[vertical] > 0 else -1.0


def _time_s(rows: Sequence[PairRow], start_ns: int) -> Float:
    return np.array([(row.stamp_ns - start_ns) / 1e9 for row in rows])


def _edges_s(rows: Sequence[PairRow], start_ns: int) -> NDArray[np.float64]:
    """Begin of every frame's time, and the end of the last one's."""
    begins = _time_s(rows, start_ns)
    last = float(np.median(np.diff(begins))) if len(begins) > 1 else 1.0
    return np.append(begins, begins[-1] + last)
