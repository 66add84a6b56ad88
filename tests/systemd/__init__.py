"""The service on a machine of its own with a real systemd: `make systemd`."""
