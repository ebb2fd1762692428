"""How found matches compare with the truth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MatchCounts:
    """How the matches read off one layer compare with the truth."""

    correct: int
    wrong: int  # of a point with another partner, or with none
    true: int  # that could have been found

    @property
    def precision(self) -> float:
        return self.correct / max(1, self.correct + self.wrong)

    @property
    def recall(self) -> float:
        return self.correct / max(1, self.true)

    def __add__(self, other: MatchCounts) -> MatchCounts:
        return MatchCounts(self.correct + other.correct, self.wrong + other.wrong, self.true + other.true)
