"""Text files of rows and columns, with the place of every row for messages about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.errors import SourceError


def read_rows(path: Path) -> list[tuple[str, list[str]]]:
    """Rows as (place, words); words are separated by blanks or commas, ``#`` begins a comment.

    The mark that editors of Windows put before the first line is left out.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"'{path}' cannot be read ({error}): give a text file.") from error
    rows = ((number, line.partition("#")[0].replace(",", " ").split()) for number, line in enumerate(lines, start=1))
    return [(f"'{path}', line {number}", words) for number, words in rows if words]


def read_matrix(where: str, words: list[str], rows: int, columns: int) -> Float:
    """Turn the words of a row into a matrix (rows, columns) of finite numbers.

    Raises:
        SourceError: they are not.
    """
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError as error:
        raise SourceError(f"{where}: '{' '.join(words)[:60]}' are no numbers: correct the line.") from error
    if len(numbers) != rows * columns or not np.all(np.isfinite(numbers)):
        raise SourceError(
            f"{where}: {len(numbers)} numbers where {rows * columns} finite ones belong: correct the line."
        )
    return numbers.reshape(rows, columns)
