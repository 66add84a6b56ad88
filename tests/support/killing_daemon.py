"""A launcher of the daemon whose broker's port is the one of `killing_publisher`.

`python -m tests.support.killing_daemon run -c FILE [--until-empty]`: `KILL` dies when it is published, `KILL LATER`
when its delivery report is in.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # The process that tries suspects loads this module too, and needs none of these.
    from tests.support.decorated_daemon import run_decorated
    from tests.support.killing_publisher import decorated

    sys.exit(run_decorated(decorated))
