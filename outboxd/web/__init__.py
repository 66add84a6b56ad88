"""The daemon's HTTP side: metrics, health, its state as JSON, and the page.

    request ──▶ server: one of a few places, and a limit on time and size ──▶ app ──▶ guard ──▶ one short method

- What is shown comes from the status board and the registry of metrics, which no request can hold up; only dead letters
  are read from the database, by few requests at a time.
- On a loopback address everybody on the machine may read; the Host header has to name the machine itself, so that a
  page elsewhere cannot. On any other address what shows keys and payloads needs the token.
- Changes (replay, discard) need the token always, and come from the page itself; without a configured token there are
  none. They go through the schema's own functions, as psql's and the command line's do.
- A refusal is a status and a sentence. A client that hangs loses its place after a while; the relay notices nothing.

The modules: `listening` (takes the address, or waits until another daemon leaves it), `server`, `app` (the paths),
`guard` (who may ask for what), `health` (is the loop alive, and can the daemon do its work?), `dead_letters` (as the
page needs them), `page` (one file, sent as it is, whose script and style are allowed by their hashes).
"""
