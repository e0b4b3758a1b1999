"""A small hospital's table and its dictionary, for tests."""

from pathlib import Path
from typing import Any

from secure_afl.data.tables.design import Design, make_design
from secure_afl.data.tables.dictionary import Dictionary, make_dictionary

CONTENT: dict[str, Any] = {
    "target": "ill",
    "missing": ["NA"],
    "columns": {
        "age": {"type": "number", "unit": "years", "range": [0, 100], "missing": 50},
        "bmi": {"type": "number", "range": [10, 60]},
        "sex": {"type": "category", "categories": ["female", "male", "other"]},
        "ill": {"type": "category", "categories": ["no", "yes"]},
        "patient": {"type": "id"},
        "note": {"type": "ignore"},
    },
}
CSV = """age,bmi,sex,ill,patient,note
40,25.5,male,yes,p1,"a ""quoted"" note
over two lines"
NA,30,female,no,p2,
61,22.25,other,no,p1,x
"""


def dictionary(**columns: Any) -> Dictionary:
    """The dictionary, with other columns than it has; None takes one out."""
    changed = {**CONTENT["columns"], **columns}
    kept = {name: spec for name, spec in changed.items() if spec is not None}
    return make_dictionary({**CONTENT, "columns": kept}, "dictionary.toml")


def design(**settings: Any) -> Design:
    """The design of all columns, or of a formula."""
    return make_design(dictionary(), **settings)


def written(folder: Path, text: str | bytes, name: str = "site.csv") -> Path:
    """Write a file."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path
