"""The flow from fetch to settle, behind ports."""
