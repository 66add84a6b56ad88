"""What documents show: the fenced blocks of a Markdown file, by language, with their lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDES = (
    ROOT / "README.md",
    ROOT / "docs" / "install.md",
    ROOT / "docs" / "configure.md",
    ROOT / "docs" / "applications.md",
    *sorted((ROOT / "docs" / "operations").glob("*.md")),
)
_FENCED = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")


@dataclass(frozen=True)
class Block:
    """One fenced block. `place` is the file and the line where it begins."""

    document: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block, with continued lines joined and comments left out."""
        joined = self.text.replace("\\\n", " ")
        lines = [re.sub(r"\s+# .*$", "", line).strip() for line in joined.splitlines()]
        return [line for line in lines if line and not line.startswith("#")]


def blocks(language: str, *documents: Path) -> list[Block]:
    """All blocks of this language, in the documents' order."""
    found: list[Block] = []
    for document in documents or GUIDES:
        text = document.read_text(encoding="utf-8")
        found += [
            Block(document, text.count("\n", 0, match.start()) + 1, match[1], match[2])
            for match in _FENCED.finditer(text)
            if match[1] == language
        ]
    return found
