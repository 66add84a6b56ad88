"""What people and their tools see of a running daemon: the log, the metrics, its state and its traces.

Nothing here may hold up the relay: it calls by the batch, and what may block has a bounded queue and a thread. What
finds that full is dropped and counted, and the number is told later.

    the relay ──▶ observer ──▶ log: an event of the catalogue, by structlog, to the journal, as JSON or a terminal
                     ├──▶ metrics: counted by the batch; gauges are made from the board when somebody asks
                     └──▶ the alerts' queue, for the events that the catalogue marks (sent by `maintenance.alerts`)
    the relay, after a turn ──▶ status board ──▶ `/status`, the page, health, the gauges

- `events` is the catalogue: every line has a stable name, a level, a sentence and known fields, and `event_document`
  writes docs/events.md from it. `library_lines` makes events of what libraries log.
- `observer` is the relay's port of that name; any thread may give it an event.
- `logs`, `journal` and `sink` write; `metrics` and `histogram` count. Names and labels are a contract: never a key, an
  id or a payload in a label, and topics only up to a number.
- `status` is the board: every write replaces a frozen value, so that readers need no lock. It keeps the last ten
  minutes as points, and whether the servers answer (`contact`); `status_words` are those of its one line.
- `tracing` stands between the relay and its publisher, where OpenTelemetry's own variables ask for traces, and passes
  everything on.
"""
