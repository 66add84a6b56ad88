"""Times that people may write by hand, as Python and arithmetic can take them.

A `timestamptz` may be infinite, or before the first year or after the last one that Python has; so may what is told of
it, and one such row must not keep everybody from what the others say.
"""

from __future__ import annotations


def finite(at: str) -> str:
    """Return the expression of `at`, which is never null, or the nearest time that Python has in every time zone."""
    return f"least(greatest({at}, '0001-01-02 00:00:00+00'), '9999-12-30 00:00:00+00')"


def finite_ms(at: str) -> str:
    """Return the expression of the same in milliseconds since 1970."""
    return f"(date_part('epoch', {finite(at)}) * 1000)::bigint"
