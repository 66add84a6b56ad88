"""`python -m outboxd` is `outboxd`."""

from __future__ import annotations

import sys

from outboxd.cli import main

if __name__ == "__main__":
    sys.exit(main())
