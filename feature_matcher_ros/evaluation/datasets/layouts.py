"""Tells dataset layouts apart by the files they consist of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.evaluation.datasets import euroc, image_folder, kitti, seven_scenes, tum_rgbd, video
from feature_matcher_ros.evaluation.image_files import IMAGE_SUFFIXES
from feature_matcher_ros.evaluation.sequences import BAG_SUFFIXES, TOPICS, Selection, Sequence, is_bag, refuse_names

_MAX_NAMED = 8  # sequences named in a message


@dataclass(frozen=True, slots=True)
class Layout:
    """One way of storing a sequence in a folder."""

    name: str  # as --layout takes it
    looked_for: str
    matches: Callable[[Path], bool]
    open: Callable[[Path, Selection], Sequence]
    topics: tuple[str, ...] = ()  # of the selection, those that name a folder here


LAYOUTS = (
    Layout("tum_rgbd", tum_rgbd.LOOKED_FOR, tum_rgbd.matches, tum_rgbd.open_tum_rgbd),
    Layout("euroc", euroc.LOOKED_FOR, euroc.matches, euroc.open_euroc),
    Layout("kitti", kitti.LOOKED_FOR, kitti.matches, kitti.open_kitti, ("image_topic",)),
    Layout("seven_scenes", seven_scenes.LOOKED_FOR, seven_scenes.matches, seven_scenes.open_seven_scenes),
)
# Only where no other fits: every dataset consists of folders with images.
PLAIN_IMAGES = Layout("image_folder", image_folder.LOOKED_FOR, image_folder.matches, image_folder.open_image_folder)


def open_dataset(path: Path, selection: Selection) -> Sequence:
    """Open a dataset folder or a video file.

    Raises:
        SourceError: the layout is not known, or several fit.
        CalibrationError: the camera is unknown, or does not fit the images.
        ConfigError: the selection names what such a source does not have.
    """
    if path.is_dir():
        layout = choose_layout(path, selection.layout)
        refuse_names(path, selection, [name for name in TOPICS if name not in layout.topics])
        return layout.open(path, selection)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise SourceError(f"'{path}' is one image: give the folder of the sequence that it belongs to.")
    refuse_names(path, selection, [*TOPICS, "layout"])
    return video.open_video(path, selection)


def choose_layout(folder: Path, name: str | None) -> Layout:
    """Find the layout of a folder, or the one that was asked for.

    Raises:
        SourceError: none fits, several fit, or the one asked for does not.
    """
    known = (*LAYOUTS, PLAIN_IMAGES)
    if name is not None:
        return _asked_for(folder, name, known)
    fitting = [layout for layout in LAYOUTS if layout.matches(folder)]
    if len(fitting) > 1:
        names = ", ".join(layout.name for layout in fitting)
        raise SourceError(f"'{folder}' fits several layouts ({names}): choose one with --layout.")
    if fitting:
        return fitting[0]
    inside = _sequences_inside(folder)
    if inside:
        names = ", ".join(f"'{child}'" for child in inside[:_MAX_NAMED]) + (" ..." if len(inside) > _MAX_NAMED else "")
        raise SourceError(f"'{folder}' is no sequence itself but holds {len(inside)}: give one of {names}.")
    if PLAIN_IMAGES.matches(folder):
        return PLAIN_IMAGES
    raise SourceError(_nothing_found(folder, known))


def _asked_for(folder: Path, name: str, known: tuple[Layout, ...]) -> Layout:
    layout = next((layout for layout in known if layout.name == name), None)
    if layout is None:
        raise SourceError(f"there is no layout '{name}': choose {', '.join(layout.name for layout in known)}.")
    if not layout.matches(folder):
        raise SourceError(f"'{folder}' is not of the layout {name}: it lacks {layout.looked_for}.")
    return layout


def _sequences_inside(folder: Path) -> list[Path]:
    """Sequences and bags one level below, for a person who gave the folder above."""
    children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    return [child for child in children if _is_sequence(child)]


def _is_sequence(path: Path) -> bool:
    if path.is_file():
        return path.suffix in (*BAG_SUFFIXES, *video.VIDEO_SUFFIXES)
    return is_bag(path) or any(layout.matches(path) for layout in LAYOUTS)


def _nothing_found(folder: Path, known: tuple[Layout, ...]) -> str:
    content = "is empty" if not any(folder.iterdir()) else "holds no sequence that is known"
    return f"'{folder}' {content}: looked for a bag, and for {'; '.join(layout.looked_for for layout in known)}."
