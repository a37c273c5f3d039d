"""Which values the parameters of an estimator may take; checked in `fit`, before any work.

Each class lists its constraints in a table, parameter -> constraint. A constraint is a `Number`, or
a tuple of names, one of which must be chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from mmclust.profiles.values import brief, hint
from mmclust.words import check_different


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`, both allowed, and greater than `above`.

    `integer`: no fractions. `alternatives`: further values that are allowed, such as "full".
    """

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    integer: bool = False
    alternatives: tuple[str | None, ...] = ()

    def allows(self, value: Any) -> bool:
        number: Any = Integral if self.integer else Real
        if isinstance(value, number) and not isinstance(value, bool):
            return self.low <= value <= self.high and value > self.above
        return value in self.alternatives

    def __str__(self) -> str:
        limits = f"of at least {self.low}"
        if self.above > -math.inf:
            limits = f"above {self.above}"
        elif self.high < math.inf:
            limits = f"from {self.low} to {self.high}"
        number = f"{'an integer' if self.integer else 'a number'} {limits}"
        return " or ".join([number, *map(repr, self.alternatives)])


POSITIVE_INTEGER = Number(low=1, integer=True)
NOT_NEGATIVE = Number(low=0)
POSITIVE = Number(above=0)

Constraint = Number | tuple[str, ...]


def check_parameters(values: Mapping[str, Any], constraints: Mapping[str, Constraint]) -> None:
    """Raise ValueError for the first value that its constraint does not allow."""
    for name, value in values.items():
        allowed = constraints.get(name)
        if isinstance(allowed, tuple):
            check_choice(name, value, allowed)
        elif allowed is not None and not allowed.allows(value):
            raise ValueError(f"{name} must be {allowed}, not {brief(value)}")


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ValueError if a value is not one of the allowed names."""
    if value not in allowed:
        similar = hint(value, allowed)
        raise ValueError(f"{name} {brief(value)} is not one of {', '.join(allowed)}{similar}")


def check_words(words: Any) -> None:
    """Raise ValueError unless `words` is a list of different reference words, at least one."""
    if not isinstance(words, (list, tuple, np.ndarray)) or not len(words):
        rule = "words must be a list of at least one reference word"
        raise ValueError(f"{rule}, not {brief(words)}: mm.ReferenceWords makes one")
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise ValueError(f"a reference word must be a text, not {brief(word)}")
    check_different(words)
