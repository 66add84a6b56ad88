"""The real relay and policy in a simulated world: one seed is one history, with its faults, crashes and rivals."""
