"""Documents keep to short sentences."""

from pathlib import Path

import pytest

from tools.documents import ROOT, documents
from tools.voice import sentences, voice, words

MEAN, LONGEST = 17, 40


@pytest.mark.parametrize("page", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sentences_are_short(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert voice(text).mean <= MEAN
    assert not [sentence for sentence in sentences(text) if len(words(sentence)) > LONGEST]


def test_what_counts_as_a_sentence() -> None:
    text = (
        "# A heading that is none\n\nOne two (Bell et al. 2020). Three `a b c`, four:\n"
        "and *on*. Say: Five.\n\n| a | table |\n\n- an item\n- another "
        "[link here](page.md) item\n\n"
        "```sh\nsecure-afl run\n```\n\n    a = b + c\n"
    )
    found = ["One two (Bell et al. 2020).", "Three X, four: and *on*.", "Say:", "Five."]
    assert list(sentences(text)) == [*found, "an item", "another link here item"]
    assert voice(text).longest == 6


def test_a_long_sentence_is_noticed() -> None:
    assert voice("word " * 41 + ".").longest == 41
    assert voice("").mean == 0
