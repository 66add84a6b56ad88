"""What is done beside the relay: removing what is past its retention, measuring the backlog, telling people."""
