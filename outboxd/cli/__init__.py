"""The command line: one file a command, loaded only when it is asked for.

To add a command NAME:

1. Write `outboxd/cli/NAME.py` with `app = typer.Typer(add_completion=False)` and its function under `@app.command()`;
   a module with several `@app.command()`s (or an `@app.callback()`) becomes a group, such as `outboxd config show`.
2. Add one line to `COMMANDS` in `outboxd/cli/registry.py`.

Every command and group then takes `-c/--config FILE` and `--set SECTION.KEY=VALUE`, before or after its other
arguments. What a command may use:

- `outboxd.cli.context.load_settings()`: the configuration as the command line asks for it.
- `outboxd.cli.output.console()`, `stderr_console()`, `print_json(obj)`: output that is plain without a terminal.
- errors: raise one of `outboxd.errors`; it is shown as it is and its exit code is the process's.
"""

from __future__ import annotations

try:
    from outboxd.cli.main import main
except KeyboardInterrupt:
    # Somebody was quicker than the imports, which take most of a short command's time: as `main` ends it then.
    raise SystemExit(130) from None

__all__ = ["main"]
