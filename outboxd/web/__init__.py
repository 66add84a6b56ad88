"""The daemon's HTTP side: metrics, health, its state as JSON, and the page."""
