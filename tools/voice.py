"""How long the sentences of the documents are.

python -m tools.voice
"""

import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from tools.documents import ROOT, documents

_FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_DISPLAYED = re.compile(r"^ {4,}\S.*$", re.MULTILINE)
_TABLE_OR_HEADING = re.compile(r"^ *(?:\||#|---).*$", re.MULTILINE)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]+\)")
_CODE = re.compile(r"`[^`\n]+`")
_ITEM = re.compile(r"^ *(?:[-*]|\d+\.) +", re.MULTILINE)
# A full stop ends a sentence, but after "et al." and such; a colon does before a capital.
_END = re.compile(r"(?<=[.!?])(?<! al\.)(?<!vs\.)(?<!e\.g\.)[\")*]*\s+|(?<=:)\s+(?=[*\"]*[A-Z])")


class Voice(NamedTuple):
    """Sentences of a document: how many, the mean of their words, and the longest."""

    sentences: int
    mean: float
    longest: int


def voice(text: str) -> Voice:
    """Measure a document in Markdown, without code, tables and headings."""
    lengths = [len(words(sentence)) for sentence in sentences(text)]
    return Voice(len(lengths), fmean(lengths) if lengths else 0.0, max(lengths, default=0))


def sentences(text: str) -> Iterator[str]:
    """List the sentences of the prose; a colon before a capital ends one, as a full stop does."""
    for pattern in (_FENCE, _COMMENT, _TABLE_OR_HEADING):
        text = pattern.sub("\n", text)
    text = _CODE.sub("X", _LINK.sub(r"\1", text))
    text = _ITEM.sub("\n\n", text)
    for paragraph in re.split(r"\n\s*\n", text):
        if _DISPLAYED.fullmatch(paragraph.strip("\n")):
            continue
        for sentence in _END.split(" ".join(paragraph.split())):
            if words(sentence):
                yield sentence


def words(sentence: str) -> list[str]:
    """List the words of a sentence; signs and lone symbols are none."""
    return [word for word in sentence.split() if re.search(r"\w", word)]


def main() -> None:
    """Print each document's figures, the longest mean first."""
    found: list[tuple[Voice, Path]] = [(voice(p.read_text("utf-8")), p) for p in documents()]
    print(f"{'document':42}  sentences  mean  longest")
    for one, path in sorted(found, key=lambda pair: -pair[0].mean):
        name = path.relative_to(ROOT).as_posix()
        print(f"{name:42}  {one.sentences:9}  {one.mean:4.1f}  {one.longest:7}")


if __name__ == "__main__":
    main()
