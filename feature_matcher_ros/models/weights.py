"""Published weights: where they come from, how to tell that they are unharmed, and what their licence allows."""

from __future__ import annotations

import logging
import os
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from typing import BinaryIO

from feature_matcher_ros.errors import OutputError, WeightsError

_LOG = logging.getLogger(__name__)
_BLOCK = 1 << 20
_TIMEOUT_S = 30.0
_LIGHTGLUE = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/"
_XFEAT = (
    "https://raw.githubusercontent.com/verlab/accelerated_features/e92685f57f8318b18725c5c8c0bd28c7fe188d9a/weights/"
)
_ALIKED = "https://raw.githubusercontent.com/Shiaoming/ALIKED/683d7c65197395c0b3f01ebe76e1084a27e73a65/models/"
_SUPERGLUE = "https://raw.githubusercontent.com/magicleap/SuperGluePretrainedNetwork/master/models/weights/"
_MAGIC_LEAP = "Magic Leap: academic or non-profit, non-commercial research use only"
_DISK = "https://raw.githubusercontent.com/cvlab-epfl/disk/master/"


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """One file of weights as its authors published it."""

    name: str
    url: str
    sha256: str | None  # None: not known, so that the file is taken as it comes
    licence: str

    @property
    def file_name(self) -> str:
        """The name of the file in the cache, with the ending of the published file."""
        return self.name + Path(self.url).suffix


PUBLISHED_WEIGHTS = (
    PublishedWeights(
        "lightglue_superpoint",
        _LIGHTGLUE + "superpoint_lightglue.pth",
        "6ff7040d0a497fc6639337946d7538dae07428c18f77a067a0b5a960e7cc551a",
        "Apache-2.0",
    ),
    PublishedWeights(
        "lightglue_disk",
        _LIGHTGLUE + "disk_lightglue.pth",
        "b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335",
        "Apache-2.0",
    ),
    PublishedWeights(
        "lightglue_aliked",
        _LIGHTGLUE + "aliked_lightglue.pth",
        "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
        "Apache-2.0",
    ),
    PublishedWeights(
        "lightglue_sift",
        _LIGHTGLUE + "sift_lightglue.pth",
        "5b52b8d9982d43532dc042606b346bb9594c9f5a4bd6f64362c63866287b4ac0",
        "Apache-2.0",
    ),
    PublishedWeights(
        "lightglue_doghardnet",
        _LIGHTGLUE + "doghardnet_lightglue.pth",
        "21468c1b417a1b15f83a7c3b5ae2bd5e1d7c31d392aa2732e247e7223bb4aa40",
        "Apache-2.0",
    ),
    PublishedWeights(
        "lighterglue_xfeat",
        _XFEAT + "xfeat-lighterglue.pt",
        "766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
        "Apache-2.0",
    ),
    PublishedWeights(
        "xfeat",
        _XFEAT + "xfeat.pt",
        "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
        "Apache-2.0",
    ),
    PublishedWeights(
        "aliked_n16",
        _ALIKED + "aliked-n16.pth",
        "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
        "BSD-3-Clause",
    ),
    PublishedWeights(
        "disk",
        _DISK + "depth-save.pth",
        "9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
        "Apache-2.0",
    ),
    PublishedWeights(
        "superpoint",
        _LIGHTGLUE + "superpoint_v1.pth",
        "52b6708629640ca883673b5d5c097c4ddad37d8048b33f09c8ca0d69db12c40e",
        _MAGIC_LEAP,
    ),
    PublishedWeights("superglue_indoor", _SUPERGLUE + "superglue_indoor.pth", None, _MAGIC_LEAP),
    PublishedWeights("superglue_outdoor", _SUPERGLUE + "superglue_outdoor.pth", None, _MAGIC_LEAP),
    PublishedWeights(
        "loftr_outdoor", "https://huggingface.co/kornia/loftr/resolve/main/loftr_outdoor.ckpt", None, "Apache-2.0"
    ),
)


def published_weights(name: str) -> PublishedWeights:
    """The entry of that name.

    Raises:
        WeightsError: there is none.
    """
    for weights in PUBLISHED_WEIGHTS:
        if weights.name == name:
            return weights
    known = ", ".join(weights.name for weights in PUBLISHED_WEIGHTS)
    raise WeightsError(f"there are no published weights '{name}': choose one of {known}.")


def recognised_weights(sha256: str) -> PublishedWeights | None:
    """The published weights of that content, if there are any."""
    return next((weights for weights in PUBLISHED_WEIGHTS if weights.sha256 == sha256), None)


def default_weights_folder() -> Path:
    """Where pulled weights lie: in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "feature_matcher_ros" / "weights"


def verify_weights(weights: PublishedWeights, folder: Path) -> Path:
    """The path of pulled weights whose content is the published one, as far as that is known.

    Raises:
        WeightsError: the file is missing, or its content is not the published one.
    """
    path = folder / weights.file_name
    if not path.is_file():
        raise WeightsError(f"{path} is missing: run feature-matcher weights pull {weights.name}.")
    with path.open("rb") as file:
        _require_content(weights, path, _copy(file, lambda block: None))
    return path


def pull_weights(weights: PublishedWeights, folder: Path) -> Path:
    """Download weights unless they are there already, and return their path; a damaged file is never kept.

    Raises:
        WeightsError: they cannot be downloaded, or the content is not the published one.
        OutputError: the folder cannot be written.
    """
    path = folder / weights.file_name
    if path.is_file():
        return verify_weights(weights, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=weights.name, delete=False) as file:
            partial = Path(file.name)
    except OSError as error:
        raise OutputError(f"cannot write weights to {folder} ({error}): choose a writable folder.") from error
    try:
        _require_content(weights, weights.url, _download(weights, partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _download(weights: PublishedWeights, path: Path) -> str:
    """Write the published file and return the SHA-256 of what came."""
    try:
        with urllib.request.urlopen(weights.url, timeout=_TIMEOUT_S) as response, path.open("wb") as file:
            digest, announced = _copy(response, file.write), response.headers["Content-Length"]
            if announced is not None and file.tell() != int(announced):  # which reading in blocks does not notice
                raise IncompleteRead(b"", int(announced) - file.tell())
            return digest
    except (OSError, HTTPException) as error:  # also of the network
        raise WeightsError(
            f"cannot download {weights.url} ({' '.join(str(error).split())}): check the connection, or put the file at "
            f"{path.parent / weights.file_name} yourself."
        ) from error


def _copy(source: BinaryIO, write: Callable[[bytes], object]) -> str:
    """Hand everything on block by block; returns its SHA-256."""
    digest = sha256()
    while block := source.read(_BLOCK):
        digest.update(block)
        write(block)
    return digest.hexdigest()


def _require_content(weights: PublishedWeights, place: Path | str, found: str) -> None:
    if weights.sha256 is None:
        _LOG.warning("%s cannot be verified: no SHA-256 of %s is known, this file has %s", place, weights.name, found)
    elif found != weights.sha256:
        raise WeightsError(
            f"{place} has the SHA-256 {found[:12]}... where {weights.name} has {weights.sha256[:12]}..., so it is "
            "truncated or was changed: delete it and pull the weights again."
        )
