"""Real daemons, real servers, real faults. Short by default; OUTBOXD_CHAOS=long takes the full lengths."""
