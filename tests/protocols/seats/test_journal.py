import os
from pathlib import Path

import pytest

from protocols.errors import BadSavedState
from protocols.seats.journal import Journal
from protocols.seats.vault import Vault, new_key


def test_a_record_that_another_replaced_cannot_be_put_back(tmp_path: Path) -> None:
    """Both were sealed for this place: the first write was thought to have failed."""
    path, vault = tmp_path / "journal", Vault(new_key())
    journal = Journal.create(path, vault, b"born")
    list(journal.replay())
    born = path.stat().st_size
    journal.append(b"heard")
    replaced = path.read_bytes()
    os.truncate(path, born)
    again = Journal.open(path, vault)
    assert list(again.replay()) == []
    again.append(b"heard")
    again.append(b"answered")
    whole = path.read_bytes()
    assert [record for _, record in Journal.open(path, vault).replay()] == [b"heard", b"answered"]
    path.write_bytes(replaced + whole[len(replaced) :])
    records = Journal.open(path, vault).replay()
    assert next(records)[1] == b"heard"
    with pytest.raises(BadSavedState, match="damaged"):
        next(records)
