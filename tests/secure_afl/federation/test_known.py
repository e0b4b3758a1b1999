"""A ledger knows the rows of a table again, and its patients, whatever became of the file."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from protocols import Additive
from secure_afl.analytic.rows import ClientData
from secure_afl.data.tables.design import make_design
from secure_afl.data.tables.dictionary import Category, Dictionary, Id, Ignored, Number
from secure_afl.errors import LedgerRefusal
from secure_afl.features.table import frame_rows
from secure_afl.federation.known import known_by
from secure_afl.methods import AFL
from secure_afl.privacy.ledger import Budget, Ledger
from secure_afl.privacy.ledger.rows import row_digests
from secure_afl.privacy.mechanism import Privacy
from secure_afl.runs.frames import table_federation

pytestmark = pytest.mark.filterwarnings("ignore:.* not in the dictionary are not read:UserWarning")

COLUMNS: dict[str, Any] = {
    "age": Number(range=(0, 100)),
    "bmi": Number(range=(10, 60)),
    "lab": Number(range=(0, 10)),
    "sex": Category(("f", "m")),
    "ill": Category(("no", "yes")),
}


def table(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(20, 80, rows),
            "bmi": np.round(rng.uniform(15, 45, rows), 1),
            "lab": np.round(rng.uniform(0, 9, rows), 2),
            "sex": rng.choice(["f", "m"], rows),
            "ill": rng.choice(["no", "yes"], rows),
            "pid": [f"p{seed}-{row}" for row in range(rows)],
        }
    )


def whole(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True).sample(frac=1, random_state=1)


class Book:
    """A ledger, and runs over three files each."""

    def __init__(self, path: Path, budget: float | None = None, **columns: Any) -> None:
        kept = None if budget is None else Budget(budget, 1e-5, "example", "add-remove")
        self.ledger = Ledger.open(path, kept, new=True)
        self.columns = COLUMNS | columns

    def run(
        self, name: str, frame: pd.DataFrame, epsilon: float | None = None, **columns: Any
    ) -> None:
        used = {k: v for k, v in (self.columns | columns).items() if v is not None}
        design = make_design(Dictionary(used), target="ill")
        clients = [
            frame_rows(f"{name}{place}", frame.iloc[rows], design)
            for place, rows in enumerate(np.array_split(np.arange(len(frame)), 3))
        ]
        table_federation(
            design,
            AFL(),
            Additive(),
            ledger=self.ledger,
            lineages={client.name: f"/data/{client.name}.csv" for client in clients},
            privacy=None if epsilon is None else Privacy(epsilon),
        ).run(clients, classes=design.classes, max_rows=None if epsilon is None else 1000)


@pytest.fixture
def book(tmp_path: Path) -> Callable[..., Book]:
    def made(budget: float | None = None, **columns: Any) -> Book:
        return Book(tmp_path / "ledger.json", budget, **columns)

    return made


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("budget", [None, 2.5])
def test_a_year_is_made_of_its_months(
    book: Callable[..., Book], ids: bool, budget: float | None
) -> None:
    made = book(budget, **({"pid": Id()} if ids else {}))
    epsilon = None if budget is None else 2.0
    months = [table(60, seed) for seed in range(6)]
    for place, month in enumerate(months):
        made.run(f"month{place}-", month, epsilon)
    words = "patients were in lineage" if ids else "rows were in lineage"
    with pytest.raises(LedgerRefusal, match=words):
        made.run("year", whole(months), epsilon)
    # Twelve fresh rows a month are a fifth, and too many to be there by chance.
    with pytest.raises(LedgerRefusal, match="were in lineage"):
        made.run("next", whole([table(48, 99), *(month.head(2) for month in months)]), epsilon)
    made.run("fresh", table(60, 100), epsilon)


def test_a_month_is_part_of_its_year_and_few_old_rows_are_found_among_many(
    book: Callable[..., Book],
) -> None:
    made = book()
    month = table(90, 0)
    made.run("first", month)
    with pytest.raises(LedgerRefusal, match="were in lineage"):
        made.run("many", whole([month, table(1600, 1)]))
    made.run("year", whole([table(600, 2), table(600, 3)]))
    with pytest.raises(LedgerRefusal, match="were in lineage"):
        made.run("month", table(600, 3).head(60))


@pytest.mark.parametrize(
    "columns",
    [{"lab": Ignored()}, {"lab": None}, {"pid": Ignored()}, {"sex": Ignored(), "age": None}],
    ids=["ignored", "left out", "one more", "two"],
)
def test_another_dictionary_makes_no_new_rows(
    book: Callable[..., Book], columns: dict[str, Any]
) -> None:
    made = book()
    made.run("one", table(90, 0))
    with pytest.raises(LedgerRefusal, match="were in lineage"):
        made.run("two", table(90, 0), **columns)


def later(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(age=frame.age + 1)


def in_capitals(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(sex=frame.sex.str.upper())


def with_more(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(extra=np.arange(len(frame)))


def named_anew(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(pid=[f"q{place}" for place in range(len(frame))])


@pytest.mark.parametrize("edit", [later, in_capitals, with_more, named_anew])
@pytest.mark.parametrize("ids", [False, True])
def test_an_edited_export_has_the_same_rows(
    book: Callable[..., Book], edit: Callable[[pd.DataFrame], pd.DataFrame], ids: bool
) -> None:
    made = book(**({"pid": Id()} if ids else {}))
    made.run("one", table(90, 0))
    sexes: dict[str, Any] = {"sex": Category(("F", "M"))} if edit is in_capitals else {}
    with pytest.raises(LedgerRefusal, match="were in lineage"):
        made.run("two", edit(table(90, 0)), **sexes)


def test_one_patient_who_comes_back_is_known(book: Callable[..., Book]) -> None:
    made = book(pid=Id())
    made.run("one", table(90, 0))
    again = table(90, 1)
    again.loc[40, "pid"] = "p0-7"
    with pytest.raises(LedgerRefusal, match=r"1 of 30 patients were in lineage.*make ids unlike"):
        made.run("two", again)


def test_sites_whose_rows_agree_by_chance_are_charged_apart(book: Callable[..., Book]) -> None:
    """Three sites, rows of two columns: many agree, among their own as well."""
    made = book(4.0, bmi=None, lab=None, pid=None)
    rng = np.random.default_rng(0)
    for place, name in enumerate(("first", "second")):
        frame = pd.DataFrame(
            {
                "age": rng.integers(0, 200, 300) / 2,
                "sex": rng.choice(["f", "m"], 300),
                "ill": rng.choice(["no", "yes"], 300),
            }
        )
        made.run(f"{name}{place}-", frame, 3.0)


def test_marks_of_which_most_agree_are_left_out() -> None:
    marks = np.arange(80, dtype=np.float32).reshape(5, 4, 4)
    marks[1:, 0] = marks[0, 0]
    data = ClientData("a", np.eye(5), np.zeros(5, dtype=np.int64), marks=marks)
    found = known_by(data, lambda rows: row_digests(rows, b"key"))
    assert found.rows == ()
    assert [len(kind.digests) for kind in found.alike] == [5, 5, 5]
    assert {kind.share for kind in found.alike} == {0.0}
    # Rows of one patient may well be alike.
    of_one = ClientData("a", np.eye(5), data.labels, ("p",) * 5, marks=marks)
    found = known_by(of_one, lambda rows: row_digests(rows, b"key"))
    assert [kind.what for kind in found.alike] == ["rows"] * 4 + ["patients"]
