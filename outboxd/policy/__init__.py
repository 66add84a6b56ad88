"""Pure decisions: no clock, no I/O, the standard library only."""
