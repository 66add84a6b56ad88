"""The revisions of the schema are known without Alembic, and are those that Alembic knows."""

from __future__ import annotations

import subprocess
import sys

from alembic.config import Config
from alembic.script import ScriptDirectory

from outboxd.postgres.schema.revisions import known_revisions, migrations_path, required_revision


def test_known_revisions_are_alembics_in_the_order_of_an_upgrade() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    assert known_revisions() == tuple(script.revision for script in scripts.walk_revisions())[::-1]
    assert required_revision() == scripts.get_current_head()


def test_the_daemon_loads_no_alembic_which_takes_memory_for_as_long_as_it_runs() -> None:
    script = "import sys, outboxd.daemon; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
