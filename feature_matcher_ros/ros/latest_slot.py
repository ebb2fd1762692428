"""Where images wait between the thread that receives them and the one that processes them.

Both kinds share one condition among all cameras, so that one worker can wait for any of them. Their counts
are exact: what was put in has been taken out, was dropped, or waits.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, Protocol, TypeVar

Item = TypeVar("Item")


class Mailbox(Protocol[Item]):
    """Hands items from one thread to another."""

    def put(self, item: Item) -> Item | None:
        """Leave an item; returns the one that was dropped for it, or because the mailbox is closed."""

    def take(self) -> Item | None:
        """Take the next item out; None if there is none."""

    def close(self) -> int:
        """Take no more items, let go of those that wait, and return how many these are."""

    def __len__(self) -> int: ...


class LatestSlot(Generic[Item]):
    """Holds one item, the latest: who is slow gets the present, not the past."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._item: Item | None = None
        self._is_open = True

    def put(self, item: Item) -> Item | None:
        with self._changed:
            if not self._is_open:
                return item
            dropped, self._item = self._item, item
            self._changed.notify_all()
            return dropped

    def take(self) -> Item | None:
        with self._changed:
            item, self._item = self._item, None
            return item

    def close(self) -> int:
        with self._changed:
            self._is_open = False
            return 0 if self.take() is None else 1

    def __len__(self) -> int:
        return 0 if self._item is None else 1


class PatientQueue(Generic[Item]):
    """Holds a few items; while it is full, whoever brings another one waits."""

    def __init__(self, changed: threading.Condition, capacity: int) -> None:
        self._changed = changed
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._is_open = True

    def put(self, item: Item) -> Item | None:
        with self._changed:
            while self._is_open and len(self._items) >= self._capacity:
                self._changed.wait()
            if not self._is_open:
                return item
            self._items.append(item)
            self._changed.notify_all()
            return None

    def take(self) -> Item | None:
        with self._changed:
            if not self._items:
                return None
            self._changed.notify_all()
            return self._items.popleft()

    def close(self) -> int:
        with self._changed:
            self._is_open = False
            waiting = len(self._items)
            self._items.clear()
            self._changed.notify_all()
            return waiting

    def __len__(self) -> int:
        return len(self._items)
