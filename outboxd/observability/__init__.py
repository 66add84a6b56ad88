"""Logs, metrics, health, tracing."""
