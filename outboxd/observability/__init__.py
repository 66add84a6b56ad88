"""What people and their tools see of a running daemon: the log, the metrics, its state and its alerts."""
