"""Ending an MCAP file whose writing failed, so that what it holds can be read."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")  # kind, bytes that follow
_DATA_END = _RECORD.pack(0x0F, 4) + struct.pack("<I", 0)
_FOOTER = _RECORD.pack(0x02, 20) + struct.pack("<QQI", 0, 0, 0)  # no summary: readers look at every record


def complete_mcap(path: Path) -> None:
    """Cut a file off behind its last whole record and end it there, without an index.

    A disk that was full has room for the few bytes of the end where the torn record was.

    Raises:
        OSError: the file cannot be changed.
    """
    with path.open("r+b") as file:
        end = _end_of_whole_records(file, path.stat().st_size)
        file.truncate(end)
        file.seek(end)
        file.write(_DATA_END + _FOOTER + _MAGIC)


def _end_of_whole_records(file: BinaryIO, size: int) -> int:
    end = len(_MAGIC)
    while end + _RECORD.size <= size:
        file.seek(end)
        kind, length = _RECORD.unpack(file.read(_RECORD.size))
        if end + _RECORD.size + length > size or kind == 0x0F:
            break
        end += _RECORD.size + length
    return end
