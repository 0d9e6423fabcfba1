"""How many orders are usual: what a load brought, against the same time of earlier weeks.

Loads come at any time: by the clock, and whenever the sensor sees a change. What one of them brought
says little; so each is spread evenly over the time since the one before it, and what is compared is the
number of orders in a period, be it an hour with sixty loads or a day with one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

WEEK = timedelta(weeks=1)
WEEKS = 4
ENOUGH_WEEKS = 3
"""Of the four before; a median of fewer would be moved by a single odd one."""
SHORTEST_PERIOD = timedelta(hours=1)
FEW_ORDERS = 10
"""Counts below this vary as this one does: nobody is to be told of 3 orders instead of none."""


@dataclass(frozen=True)
class Load:
    """What one materialization brought: orders that became visible after the one before it."""

    start: datetime
    end: datetime
    orders: int

    def orders_within(self, start: datetime, end: datetime) -> float:
        """Its share of a period; what it brought is spread evenly over its own."""
        overlap = (min(end, self.end) - max(start, self.start)).total_seconds()
        length = (self.end - self.start).total_seconds()
        return self.orders * min(1.0, overlap / length) if overlap > 0 and length > 0 else 0.0


@dataclass(frozen=True)
class Usual:
    """What earlier weeks say about a period.

    Attributes:
        orders: the median of the weeks.
        lowest, highest: what is still as expected.
    """

    orders: float
    lowest: float
    highest: float

    def holds(self, orders: float) -> bool:
        return self.lowest <= orders <= self.highest


def orders_in(loads: Sequence[Load], start: datetime, end: datetime) -> float:
    return sum(load.orders_within(start, end) for load in loads)


def usual(weeks: Sequence[float], factor: float) -> Usual | None:
    """What is to be expected, None while there are too few weeks to tell.

    Around a third and three times the median (for a factor of 3), three standard deviations of a count
    of that size are allowed, which is what makes the difference where orders are few.
    """
    if len(weeks) < ENOUGH_WEEKS:
        return None
    middle = median(weeks)
    least, most = middle / factor, middle * factor
    return Usual(middle, max(0.0, least - _spread(least)), most + _spread(most))


def _spread(count: float) -> float:
    return 3 * math.sqrt(max(count, FEW_ORDERS))
