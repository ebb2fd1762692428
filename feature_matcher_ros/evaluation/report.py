"""The report of a run: ``report.html`` to look at, ``report.json`` to compute with."""

from __future__ import annotations

from pathlib import Path

from feature_matcher_ros.evaluation import report_page as html
from feature_matcher_ros.evaluation import summary
from feature_matcher_ros.evaluation.evaluate import RunEvaluation
from feature_matcher_ros.evaluation.json_text import to_json
from feature_matcher_ros.evaluation.metrics import Statistics
from feature_matcher_ros.evaluation.report_plots import (
    plot_errors,
    plot_latency,
    plot_matches,
    plot_timeline,
    plot_trajectory,
)
from feature_matcher_ros.evaluation.track_quality import CONSISTENT_PX, WINDOW
from feature_matcher_ros.evaluation.worst_pairs import WorstPairs, draw_worst_pairs


def write_report(evaluation: RunEvaluation, folder: Path) -> Path:
    """Write both files into ``folder`` and return the path of the page.

    Raises:
        OutputError: a file cannot be written.
    """
    html.write_text(folder / "report.json", to_json(evaluation))
    return html.write_text(folder / "report.html", render_report(evaluation, draw_worst_pairs(evaluation)))


def render_report(evaluation: RunEvaluation, worst: WorstPairs) -> str:
    """The page as text; the same evaluation gives the same text."""
    run = evaluation.run
    subtitle = f"{run.modality.value.lower()} · {run.matcher} · {run.layout or 'recording'} · {run.source}"
    body = [
        html.tiles(_tiles(evaluation)),
        html.remarks(evaluation.remarks),
        _trajectory(evaluation),
        _pairs(evaluation),
        html.section("Matches", html.figure(plot_matches(evaluation)), *_tracks(evaluation)),
        html.section("Frames", html.figure(plot_timeline(evaluation)), _counts(evaluation)),
        html.section("Latency", html.figure(plot_latency(evaluation)), *_latency_tables(evaluation)),
        _worst_pairs(worst),
        _details(evaluation),
    ]
    return html.page(run.name, subtitle, body)


def _tiles(evaluation: RunEvaluation) -> list[tuple[str, str]]:
    frames, pairs, trajectory = evaluation.frames, evaluation.pairs, evaluation.trajectory
    total = evaluation.matched_latency_ms
    entries = [("pairs accepted", summary.percent(frames.accepted_share))]
    if pairs is not None:
        entries.append(("rotation error, median", f"{pairs.rotation_deg.median:.2f}°"))
        if pairs.direction_deg is not None:
            entries.append(("direction error, median", f"{pairs.direction_deg.median:.1f}°"))
        if pairs.scale_error_percent is not None:
            entries.append(("scale error, median", f"{pairs.scale_error_percent.median:.1f} %"))
    if trajectory is not None:
        entries.append((f"ATE after {trajectory.alignment}", summary.metres(trajectory.ate_m.rmse)))
    if trajectory is not None and trajectory.drift is not None:
        entries.append(("drift", f"{trajectory.drift.translation_percent:.2f} %"))
    entries.append(("time per matched frame", summary.number(None if total is None else total.p50, 1, " ms")))
    entries.append(("rate that can be kept up", summary.number(evaluation.mean_rate_hz, 1, " Hz")))
    return entries


def _trajectory(evaluation: RunEvaluation) -> str:
    trajectory = evaluation.trajectory
    if trajectory is None:
        return html.section("Trajectory", html.figure(plot_trajectory(evaluation)))
    if evaluation.metric:
        note = "The run is metric: it was aligned to the truth by a rigid motion, SE(3), so errors of scale count. "
    else:
        note = "The run has no metric scale: it was aligned to the truth by a similarity, Sim(3), scale included. "
    note += "ATE and RPE are those of evo_ape and evo_rpe with the same alignment."
    rows = [
        ("position (ATE)", *_statistics(trajectory.ate_m, 1000.0, "mm")),
        ("step between poses (RPE), translation", *_statistics(trajectory.rpe_translation_m, 1000.0, "mm")),
        ("step between poses (RPE), rotation", *_statistics(trajectory.rpe_rotation_deg, 1.0, "°")),
    ]
    facts = [
        f"{trajectory.num_poses} poses have a true one",
        f"the true path is {summary.metres(trajectory.true_length_m)} long",
    ]
    if trajectory.scale is not None:
        meaning = "1 is right" if evaluation.metric else "metres per unit of the run"
        facts.append(f"the scale of the best similarity is {trajectory.scale:.4f} ({meaning})")
    if trajectory.drift is not None:
        facts.append(
            f"the drift is {trajectory.drift.translation_percent:.2f} % and "
            f"{trajectory.drift.rotation_deg_per_m:.2f} ° per metre, over stretches of 10 to 50 % of the path"
        )
    return html.section(
        "Trajectory",
        html.figure(plot_trajectory(evaluation)),
        html.table(["error", "rmse", "mean", "median", "90 %", "max"], rows),
        f'<p class="note">{"; ".join(facts)}.</p>',
        note=note,
    )


def _pairs(evaluation: RunEvaluation) -> str:
    pairs = evaluation.pairs
    if pairs is None:
        return html.section("Errors", html.figure(plot_errors(evaluation)))
    rows = [("rotation", str(pairs.rotation_deg.count), *_statistics(pairs.rotation_deg, 1.0, "°"))]
    if pairs.direction_deg is not None:
        rows.append(("direction", str(pairs.direction_deg.count), *_statistics(pairs.direction_deg, 1.0, "°")))
    if pairs.scale_error_percent is not None:
        rows.append(("scale", str(pairs.scale_error_percent.count), *_statistics(pairs.scale_error_percent, 1.0, "%")))
    blocks = [html.table(["error of the pairs", "pairs", "rmse", "mean", "median", "90 %", "max"], rows)]
    consistency = summary.consistency_rows(pairs)
    if consistency:
        header = ["error / reported sigma", "pairs", "mean square", "median", "within 2 sigma"]
        blocks.append(html.table(header, consistency))
    missed = f"; {pairs.num_motion_missed} moving pairs were given no direction" if pairs.num_motion_missed else ""
    note = (
        f"{pairs.num_pairs} accepted pairs have a true pose at both ends; {pairs.num_moving} of them count as moving, "
        f"with a true baseline of at least {summary.metres(pairs.min_baseline_m)}, below which the noise of the truth "
        f"blurs its direction. {pairs.num_wrong} are false acceptances{missed}. A mean square of 1 means that the "
        "reported sigmas are right, as far as the truth itself is exact."
    )
    return html.section("Errors", html.figure(plot_errors(evaluation)), *blocks, note=note)


def _tracks(evaluation: RunEvaluation) -> tuple[str, ...]:
    tracks = evaluation.tracks
    if tracks is None:
        return ()
    poses = "estimated" if evaluation.series.truth is None else "true"
    facts = [
        f"{tracks.num_tracks} tracks over {tracks.num_keyframes} keyframes, the longest seen in {tracks.longest}",
        f"of {WINDOW} in a row a track is seen in {tracks.mean_length:.1f} on average",
    ]
    if tracks.consistent_share is not None:
        facts.append(
            f"{summary.percent(tracks.consistent_share)} of {tracks.num_checked} tracks of three rays or more are seen "
            f"within {CONSISTENT_PX:g} px of where one point would be at the {poses} poses, "
            f"the worst ray at the median by {tracks.median_error_px:.2f} px"
        )
    return (f'<p class="note">{"; ".join(facts)}.</p>',)


def _counts(evaluation: RunEvaluation) -> str:
    frames = evaluation.frames
    blocks = [
        _count_table("frames by status", frames.status),
        _count_table("matched pairs by motion", frames.motion_type),
        _count_table("keyframes by reason", frames.keyframe_reason),
        _count_table("pairs by layers run", frames.layers_run),
        _count_table("skipped", evaluation.run.skipped),
    ]
    return html.columns(*blocks)


def _latency_tables(evaluation: RunEvaluation) -> tuple[str, ...]:
    rows = [
        (
            stage,
            str(spread.count),
            *(f"{value:.2f}" for value in (spread.p50, spread.p90, spread.p95, spread.p99, spread.max)),
        )
        for stage, spread in evaluation.latency_ms.items()
    ]
    whole = html.table(["ms", "frames", "p50", "p90", "p95", "p99", "max"], rows)
    return (whole, _matcher_table(evaluation)) if evaluation.matcher_stages else (whole,)


def _matcher_table(evaluation: RunEvaluation) -> str:
    """What the matcher's layers cost, and how many points they still had to look at."""
    rows = [
        (
            stage.name,
            str(stage.num_pairs),
            f"{stage.median_ms:.2f}",
            summary.number(stage.median_points, 0),
            summary.percent(stage.kept_share),
        )
        for stage in evaluation.matcher_stages
    ]
    header = ["step of the matcher", "pairs", "ms, median", "points, median", "points kept, mean"]
    return html.table(header, rows)


def _worst_pairs(worst: WorstPairs) -> str:
    pictures = [html.picture(pair.jpeg, pair.caption) for pair in worst.pairs]
    return html.section("Worst pairs", *(pictures or ["<p></p>"]), note=worst.note) if pictures or worst.note else ""


def _details(evaluation: RunEvaluation) -> str:
    run = evaluation.run
    config = html.table(["parameter", "value"], [(path, str(value)) for path, value in run.config.items()])
    versions = html.table(["package", "version"], [(name, str(version)) for name, version in run.versions.items()])
    return html.details("Parameters and versions", html.columns(config, versions))


def _count_table(title: str, counts: object) -> str:
    rows = [(str(name), str(count)) for name, count in counts.items()] if isinstance(counts, dict) else []
    return html.table([title, ""], rows) if rows else ""


def _statistics(values: Statistics, factor: float, unit: str) -> tuple[str, ...]:
    space = "" if unit == "°" else " "
    return tuple(
        f"{factor * value:.3g}{space}{unit}"
        for value in (values.rmse, values.mean, values.median, values.p90, values.max)
    )
