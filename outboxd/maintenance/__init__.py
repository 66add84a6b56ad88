"""Jobs beside the relay: purge, gauges, alerts."""
