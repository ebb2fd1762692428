"""Records as JSON: the same names, None as null, no NaN."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

LEFT_OUT = {"json": False}  # as the metadata of a field that does not go into the text


def to_json(record: object) -> str:
    """Write a dataclass as JSON text.

    Raises:
        ValueError: it holds a NaN or an infinity.
        TypeError: it holds something that has no place in JSON.
    """
    return json.dumps(to_plain(record), indent=2, allow_nan=False) + "\n"


def to_plain(value: Any) -> Any:
    """Turn records into dictionaries, all the way down."""
    if is_dataclass(value):
        kept = [field.name for field in fields(value) if field.metadata.get("json", True)]
        return {name: to_plain(getattr(value, name)) for name in kept}
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(entry) for entry in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value
