"""The daemon's life: one process that relays one outbox, from its configuration to its exit code.

    started ──schema checked──▶ standing by or owner ──first fetch and a broker's answer──▶ READY
            ──SIGHUP──▶ reloaded, and goes on
            ──SIGTERM or SIGINT──▶ draining (STOPPING) ──▶ ended; a second signal ends at once

- `daemon`: that life, around the relay's loop, on the main thread, where signals arrive.
- `wiring`: the relay's parts, made from the configuration and put together; `assembly`: what it made, reconfigured,
  watched and closed together; `relay_configuration`: the configuration in the relay's terms.
- `surroundings`: what runs beside the relay and may fail: the page, jobs, alerts, the wake-up, questions to brokers.
- `signals`, `rivals`, `thread_deaths`: what may end it; `conclusion`: what whoever started it sees of its end.
- `reload`: what another configuration changes at once, and what waits for a restart.
- `service_manager`, `database_watch`: what systemd is told, and whether PostgreSQL answers.
- `mailbox`: where other threads leave events for the relay's loop.

What always holds: whatever ends the daemon ends it by `conclusion`, with an exit code of `outboxd.errors`; what runs
beside the relay may fail without hurting it; and a configuration that cannot be used changes nothing.

Imports point one way: `daemon`, the single matters, `wiring`, `assembly`, `relay_configuration` and `mailbox`.
"""
