"""The files that a Kafka client reads when it is made: certificates and keys. Who renews one mostly keeps its path."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PROPERTIES: Final = (
    "ssl.ca.location", "ssl.certificate.location", "ssl.crl.location", "ssl.key.location", "ssl.keystore.location",
)  # fmt: skip


def contents(properties: Mapping[str, str]) -> dict[str, str]:
    """Return for each property that names a file or a directory of them what is there now, as a digest."""
    return {name: _digest(Path(properties[name])) for name in PROPERTIES if name in properties}


def _digest(path: Path) -> str:
    """What cannot be read has none; the client itself refuses it in words."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        digest = hashlib.sha256()
        for file in files:
            digest.update(
                file.name.encode(errors="surrogateescape") + b"\0" + hashlib.sha256(file.read_bytes()).digest()
            )
    except OSError:
        return ""
    return digest.hexdigest()
