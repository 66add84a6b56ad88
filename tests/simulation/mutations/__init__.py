"""Deliberate bugs: a check that cannot fail proves nothing."""
