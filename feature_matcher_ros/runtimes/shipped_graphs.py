"""Where the networks lie that come with the package."""

from __future__ import annotations

from pathlib import Path

from feature_matcher_ros.errors import RuntimeLoadError

_PACKAGE = "feature_matcher_ros"
_FOLDER = "engines"


def find_shipped_graphs(name: str) -> Path | None:
    """The folder of a network: beside the package in a checkout, in ``share`` where it was installed; None: none."""
    package = Path(__file__).resolve().parents[1]
    places = [package.parent / _FOLDER, *(parent / "share" / _PACKAGE / _FOLDER for parent in package.parents)]
    return next((place / name for place in places if (place / name / "manifest.json").is_file()), None)


def shipped_graphs(name: str) -> Path:
    """The folder of a network that must be there.

    Raises:
        RuntimeLoadError: there is none of that name.
    """
    found = find_shipped_graphs(name)
    if found is None:
        raise RuntimeLoadError(
            f"no network {name} came with this installation: give matcher.graphs the folder of one that "
            "feature-matcher export or train wrote."
        )
    return found
