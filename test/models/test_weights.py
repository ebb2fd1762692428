from __future__ import annotations

import hashlib
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from feature_matcher_ros.errors import OutputError, WeightsError
from feature_matcher_ros.models.weights import (
    PUBLISHED_WEIGHTS,
    PublishedWeights,
    default_weights_folder,
    published_weights,
    pull_weights,
    verify_weights,
)


@pytest.fixture
def published(tmp_path: Path) -> PublishedWeights:
    source = tmp_path / "server" / "net.pth"
    source.parent.mkdir()
    source.write_bytes(b"tensors" * 1000)
    return PublishedWeights("net", source.as_uri(), hashlib.sha256(source.read_bytes()).hexdigest(), "Apache-2.0")


def test_the_table_is_complete() -> None:
    assert len({weights.name for weights in PUBLISHED_WEIGHTS}) == len(PUBLISHED_WEIGHTS)
    for weights in PUBLISHED_WEIGHTS:
        assert weights.url.startswith("https://")
        assert weights.sha256 is None or len(bytes.fromhex(weights.sha256)) == 32
        assert weights.licence
        assert published_weights(weights.name) is weights
    with pytest.raises(WeightsError, match=r"'superglu'.*choose one of lightglue_superpoint"):
        published_weights("superglu")


def test_what_belongs_to_magic_leap_is_for_research_only() -> None:
    for name in ("superpoint", "superglue_indoor", "superglue_outdoor"):
        assert "non-commercial research use only" in published_weights(name).licence


def test_pulled_weights_are_verified_and_pulled_once(published: PublishedWeights, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "weights"
    with pytest.raises(WeightsError, match="weights pull net"):
        verify_weights(published, folder)
    path = pull_weights(published, folder)
    assert path == folder / "net.pth"
    assert pull_weights(replace(published, url="file:///nowhere/net.pth"), folder) == path
    assert [entry.name for entry in folder.iterdir()] == ["net.pth"]


def test_weights_without_a_known_checksum_are_pulled_with_a_warning(
    published: PublishedWeights, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = replace(published, sha256=None)
    path = pull_weights(unknown, tmp_path)
    assert verify_weights(unknown, tmp_path) == path
    assert f"this file has {published.sha256}" in caplog.text


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"x" + data[1:], lambda data: b""])
def test_truncated_and_changed_files_are_detected(published: PublishedWeights, tmp_path: Path, damage) -> None:
    path = pull_weights(published, tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    for use in (verify_weights, pull_weights):
        with pytest.raises(WeightsError, match=r"net.pth has the SHA-256 .* truncated or was changed"):
            use(published, tmp_path)


def test_a_damaged_download_is_not_kept(published: PublishedWeights, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(WeightsError, match="truncated or was changed"):
        pull_weights(replace(published, sha256="00" * 32), folder)
    with pytest.raises(WeightsError, match=r"cannot download file:///nowhere.*put the file at"):
        pull_weights(replace(published, url="file:///nowhere/net.pth"), folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nx",
        b"?",
    ],
    ids=["too short", "broken off", "no HTTP"],
)
def test_a_download_that_breaks_off_is_not_kept_for_want_of_a_checksum(answer: bytes, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/net.pth"
        with pytest.raises(WeightsError, match=r"cannot download .* check the connection"):
            pull_weights(PublishedWeights("net", url, None, "MIT"), tmp_path)
        thread.join()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(published: PublishedWeights, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="choose a writable folder"):
        pull_weights(published, tmp_path / "file" / "weights")


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_weights_folder() == tmp_path / "feature_matcher_ros" / "weights"
