"""A ledger knows the rows of a table again, and its patients, whatever became of the file."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris

from protocols import Additive
from secure_afl.analytic.rows import ClientData
from secure_afl.data.tables.design import make_design
from secure_afl.data.tables.dictionary import Category, Dictionary, Id, Ignored, Number
from secure_afl.data.tables.marks import row_marks
from secure_afl.data.tables.raw import table_of_frame
from secure_afl.errors import LedgerRefusal
from secure_afl.features.table import frame_rows
from secure_afl.federation.known import KnownBy, known_by
from secure_afl.methods import AFL
from secure_afl.privacy.ledger import Budget, Ledger
from secure_afl.privacy.ledger.alike import Alike
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
    """A ledger, and runs over several files each."""

    def __init__(self, path: Path, budget: float | None = None, **columns: Any) -> None:
        kept = None if budget is None else Budget(budget, 1e-5, "example", "add-remove")
        self.ledger = Ledger.open(path, kept, new=True)
        self.columns = COLUMNS | columns

    def run(
        self,
        name: str,
        frame: pd.DataFrame,
        epsilon: float | None = None,
        *,
        sites: int = 3,
        cut: list[int] | None = None,
        **columns: Any,
    ) -> None:
        used = {k: v for k, v in (self.columns | columns).items() if v is not None}
        design = make_design(Dictionary(used), target="ill")
        clients = [
            frame_rows(f"{name}{place}", frame.iloc[rows], design)
            for place, rows in enumerate(np.array_split(np.arange(len(frame)), cut or sites))
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


@pytest.mark.slow
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


def test_running_numbers_as_ids_are_refused_with_what_helps(book: Callable[..., Book]) -> None:
    made = book(2.5, pid=Id())
    frame = table(90, 0).assign(pid=[f"{row % 30}" for row in range(90)])
    with pytest.raises(LedgerRefusal, match=r"30 of 30 patients were in.*make ids unlike, as nort"):
        made.run("one", frame, 1.0)
    # One that two hospitals have is a coincidence in a run, and stays one in the next.
    apart = table(90, 7).assign(pid=[f"{row // 30}-{max(row % 30, 1)}" for row in range(90)])
    apart.loc[[0, 30, 60], "pid"] = "same"
    for times in (1, 2):
        made.run("apart", apart, 1.0)
        assert made.ledger.spent("/data/apart1.csv").releases == times
    # Elsewhere it is one patient too many.
    with pytest.raises(LedgerRefusal, match="1 of 30 patients were in lineage '/data/apart0"):
        made.run("else", table(90, 1).replace({"pid": {"p1-0": "same"}}), 2.0)


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


def told(marks: Any, patients: tuple[str, ...] | None = None) -> KnownBy:
    rows = len(marks)
    data = ClientData("a", np.eye(rows), np.zeros(rows, dtype=np.int64), patients, marks=marks)
    return known_by(data, lambda rows: row_digests(rows, b"key"))


def test_rows_that_agree_with_others_of_their_table_tell_nothing() -> None:
    marks = np.arange(5 * 12 * 4, dtype=np.float32).reshape(5, 12, 4) + 1
    marks[1:, 0] = marks[1, 0]
    marks[1:3, 2] = marks[1, 2]
    found = told(marks)
    assert found.rows == ()
    assert found.lost == 0.0
    # All are recorded, for another table may tell them apart.
    assert [len(kind.digests) for kind in found.alike] == [2, 5, 4] + [5] * 9
    assert [len(kind.alone) for kind in found.alike] == [1, 5, 3] + [5] * 9
    # Of a part of the columns a mark is no sure sign, and one pair more is counted than there is.
    assert [kind.pairs for kind in found.alike] == [0, 0, 2] + [1] * 9
    assert told(np.tile(marks[:1], (5, 1, 1))).lost == 1.0


def test_rows_of_one_patient_may_be_alike() -> None:
    marks = np.arange(5 * 12 * 4, dtype=np.float32).reshape(5, 12, 4) + 1
    marks[1:, 0] = marks[1, 0]
    found = told(marks, ("p",) * 5)
    assert [len(kind.alone) for kind in found.alike] == [2] + [5] * 11 + [1]
    assert [kind.what for kind in found.alike] == ["rows"] * 12 + ["patients"]
    assert [kind.pairs for kind in found.alike] == [1] * 12 + [0]
    # Rows without a name are a patient each.
    found = told(marks, ("p", "", "", "", ""))
    assert len(found.alike[0].alone) == 1
    assert len(found.alike[-1].digests) == 1


def test_a_table_that_has_each_row_twice_is_the_same_table() -> None:
    marks = np.arange(30 * 12 * 4, dtype=np.float32).reshape(30, 12, 4) + 1
    once, twice = told(marks), told(np.concatenate([marks, marks]))
    assert twice.lost == 0.0
    assert [kind.alone for kind in twice.alike] == [kind.alone for kind in once.alike]
    assert [kind.pairs for kind in twice.alike] == [0, 0] + [1] * 10


def test_what_agrees_by_chance_follows_from_the_pairs() -> None:
    def kind(alone: int, pairs: int, slack: int = 2) -> Alike:
        digests = tuple(bytes(8) for _ in range(alone))
        return Alike(digests, digests, alone, pairs, slack)

    assert kind(100, 0).by_chance(10**6) == 2
    assert kind(100, 0, 0).by_chance(10**6) == 0
    # All of few rows that there are elsewhere are more than chance.
    assert kind(100, 0).by_chance(2) < 2
    # Of 25 pairs that were found there may be 35: 7 of 100 others agree.
    assert kind(1000, 25).by_chance(100) == pytest.approx(7 + 4 * math.sqrt(7) + 2, abs=0.1)
    # One pair more, of 1 + 2 that there may be.
    assert kind(1000, 0).by_chance(1000, pairs=1) == pytest.approx(
        6 + 4 * math.sqrt(6) + 2, abs=0.1
    )
    # Nearly half is expected: nine tenths are the same data, and of more others nobody knows.
    expected = 100 * (1 - math.exp(-350 * 0.16 / 100))
    most = kind(100, 4).by_chance(350)
    assert most == pytest.approx(expected + 4 * math.sqrt(expected) + 2, abs=0.1)
    assert kind(20, 1).by_chance(40) == 18
    assert kind(100, 4).by_chance(1000) == math.inf
    assert kind(0, 0).by_chance(100) == math.inf


@pytest.mark.parametrize("rows", [60, 300])
@pytest.mark.parametrize("ids", [False, True])
def test_others_are_met_as_often_as_is_promised(rows: int, ids: bool) -> None:
    """Tables of other people, of columns in which a few agree, beside an earlier large one."""

    def coarse(rows: int, seed: int) -> KnownBy:
        rng = np.random.default_rng(seed)
        cells = {
            "age": rng.integers(18, 95, rows),
            "bmi": np.round(rng.normal(27, 5, rows)),
            "pressure": np.round(rng.normal(130, 18, rows)),
            **{name: rng.choice(["f", "m"], rows) for name in ("sex", "smoker", "ill")},
        }
        table = table_of_frame({k: [str(x) for x in v] for k, v in cells.items()}, "a")
        return told(
            row_marks(table, list(cells)),
            tuple(f"{seed}-{row}" for row in range(rows)) if ids else None,
        )

    earlier = {digest for kind in coarse(2000, 0).alike for digest in kind.digests}
    for seed in range(1, 6):
        for kind in coarse(rows, seed).alike:
            assert len(earlier.intersection(kind.alone)) <= kind.by_chance(2000)


@pytest.mark.parametrize("ids", [False, True])
def test_rows_that_are_all_alike_hide_none_of_the_others(
    book: Callable[..., Book], ids: bool
) -> None:
    made = book(**({"pid": Id()} if ids else {}))
    month = table(60, 0)
    made.run("one", month)
    empty = month.head(1).assign(pid="nobody")
    with pytest.raises(LedgerRefusal, match="were in lineage"):
        made.run("two", whole([month, *[empty] * 300]))


def renamed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns={"lab": "laboratory"})


def later_and_named_anew(frame: pd.DataFrame) -> pd.DataFrame:
    return named_anew(later(frame))


def later_and_with_more(frame: pd.DataFrame) -> pd.DataFrame:
    return with_more(later(frame))


def missing_otherwise(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(note="keine Angabe", remark="NULL")


def with_commas(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(weight=frame.weight.str.replace(".", ","))


@pytest.mark.slow
@pytest.mark.parametrize(
    "edit", [renamed, later_and_named_anew, later_and_with_more, missing_otherwise, with_commas]
)
def test_edits_of_two_columns_make_no_new_rows(
    book: Callable[..., Book], edit: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    def export() -> pd.DataFrame:
        rng = np.random.default_rng(5)
        frame = table(150, 0).assign(note="", remark="-")
        for name in ("weight", "height", "pulse", "temperature"):
            frame[name] = [f"{value:.1f}" for value in rng.uniform(30, 200, len(frame))]
        return frame

    made = book()
    made.run("one", export())
    more: dict[str, Any] = {}
    if edit is renamed:
        more = {"lab": None, "laboratory": COLUMNS["lab"]}
    with pytest.raises(LedgerRefusal, match="were in lineage"):
        made.run("two", edit(export()), **more)


def test_a_table_of_few_columns_is_known_by_its_file_and_that_is_said(
    book: Callable[..., Book], caplog: pytest.LogCaptureFixture
) -> None:
    made = book(age=None, bmi=None, lab=None)
    frame = table(90, 0)[["sex", "ill"]]
    made.run("one", frame)
    said = [record.message for record in caplog.records if "knows them by" in record.message]
    assert [words.split(":")[0] for words in said] == [f"client 'one{n}'" for n in range(3)]
    assert all("100 % of the rows" in words and 'type = "id"' in words for words in said)
    with pytest.raises(LedgerRefusal, match="another run had an exact release"):
        made.run("one", frame)
    caplog.clear()
    made.run("two", table(90, 1)[["sex", "ill"]])
    assert len([r for r in caplog.records if "knows them by" in r.message]) == 3


def hospitals(columns: list[int]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Fisher's irises, of which a few are equal, and their dictionary."""
    iris = load_iris()
    names = [f"x{place}" for place in columns]
    kinds = [str(kind) for kind in iris.target_names]
    frame = pd.DataFrame(iris.data[:, columns], columns=names)
    frame["ill"] = [kinds[label] for label in iris.target]
    spec = {name: Number(range=(0, 10)) for name in names}
    order = np.random.default_rng(0).permutation(len(frame))
    return frame.iloc[order], {**spec, "ill": Category(tuple(kinds))}


@pytest.mark.slow
@pytest.mark.parametrize("columns", [[0, 1, 2, 3], [2, 3], [0, 1], [3]], ids=str)
def test_hospitals_that_were_told_apart_are_so_in_all_runs(
    book: Callable[..., Book], columns: list[int]
) -> None:
    frame, spec = hospitals(columns)
    made = book(2.5, **(dict.fromkeys(COLUMNS) | spec))
    for times in (1, 2, 3):
        made.run("h", frame, 1.0, sites=5)
        for lineage in made.ledger.lineages:
            assert made.ledger.shares(lineage) == ()
            assert made.ledger.spent(lineage).releases == times
    with pytest.raises(LedgerRefusal, match="would exceed the budget"):
        made.run("h", frame, 2.0, sites=5)


def test_hospitals_in_a_second_run_are_looked_at_again_where_they_have_new_rows(
    book: Callable[..., Book],
) -> None:
    made = book(4.0)
    first = [table(40, seed) for seed in range(3)]
    made.run("h", pd.concat(first), 1.0)
    first[1] = pd.concat([first[1], first[0].head(20)])
    second = pd.concat(first)
    made.run("h", second, 1.0, cut=[40, 100])
    assert made.ledger.shares("/data/h1.csv") == ("/data/h0.csv",)
    assert made.ledger.shares("/data/h2.csv") == ()
    assert made.ledger.spent("/data/h1.csv").releases == 4


def test_a_copy_of_one_file_is_charged_for_that_file_alone(book: Callable[..., Book]) -> None:
    made = book(4.0, pid=Ignored())
    made.run("h", table(300, 0), 1.0)
    made.run("copy", table(300, 0).head(100), 1.0, sites=2)
    for copy in ("/data/copy0.csv", "/data/copy1.csv"):
        assert "/data/h0.csv" in made.ledger.shares(copy)
    assert made.ledger.shares("/data/h1.csv") == ()
    assert made.ledger.spent("/data/h0.csv").releases == 3


def test_months_in_one_run_are_parts_of_the_year_in_another(book: Callable[..., Book]) -> None:
    made = book()
    months = [table(60, seed) for seed in range(4)]
    made.run("month", pd.concat(months), sites=4)
    with pytest.raises(LedgerRefusal, match="were in lineage"):
        made.run("year", whole(months))


@pytest.mark.slow
def test_a_copy_of_one_file_is_known_in_a_large_ledger_of_few_columns(
    book: Callable[..., Book],
) -> None:
    """Chance explains what all earlier rows together have, and not what one file has."""
    made = book(age=Number(range=(0, 200)), bmi=None, lab=None, pid=None)

    def coarse(seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        cells = {"age": rng.integers(0, 200, 300), "sex": rng.choice(["f", "m"], 300)}
        return pd.DataFrame(cells | {"ill": rng.choice(["no", "yes"], 300)})

    for seed in range(20, 32):
        made.run(f"file{seed}-", coarse(seed))
    with pytest.raises(LedgerRefusal, match="were in lineage '/data/file27-"):
        made.run("copy", coarse(27))
