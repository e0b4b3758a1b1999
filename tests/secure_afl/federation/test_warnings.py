import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from protocols.protocol import Protocol
from protocols.schemes.additive.protocol import Additive
from protocols.schemes.encrypted.protocol import Ckks
from protocols.schemes.plain import Plain
from secure_afl.analytic.rows import ClientData
from secure_afl.data.columns import Column, Columns
from secure_afl.federation.simulation import Federation
from secure_afl.federation.task import Terms
from secure_afl.federation.warnings import session_warnings, warnings
from secure_afl.methods import AFL, AnyMethod, FedAvg, FedHiP
from secure_afl.methods.evaluated import evaluated
from secure_afl.privacy.mechanism import Mechanism, Privacy
from tests.kit.samples import make_client, make_clients, make_task


def warned(method: AnyMethod, protocol: Protocol, clients: Sequence[ClientData]) -> str:
    return "\n".join(warnings(Terms(method, protocol), make_task(clients), clients))


def rows_of(name: str, labels: Sequence[int]) -> ClientData:
    features = np.random.default_rng(len(labels)).random((len(labels), 6))
    return ClientData(name, features, np.array(labels, dtype=np.int64))


MANY = make_clients((120, 120))
FEW = make_clients((20, 20))


def test_many_rows_over_a_blind_sum_need_no_advice() -> None:
    assert warned(AFL(), Additive(), MANY) == ""
    assert warned(FedHiP(personal="proximal"), Additive(), MANY) == ""


def test_a_client_with_hardly_more_rows_than_classes_is_named_with_what_helps() -> None:
    # n − C is 1 for four rows of three classes, and 2 for five.
    bare, enough = rows_of("bare", (0, 1, 2, 2)), rows_of("enough", (0, 1, 2, 2, 2))
    found = warned(AFL(), Additive(), [bare, enough, *MANY])
    assert "'bare': hardly more rows than classes" in found
    assert "More rows of a class" in found
    # Classes that a client has no row of do not count.
    assert "hardly" not in warned(AFL(), Additive(), [rows_of("one-class", (1, 1, 1)), *MANY])
    assert "hardly" not in warned(FedAvg(), Additive(), [bare, *MANY])
    both = warned(AFL(), Additive(), [bare, rows_of("single", (0,)), *MANY])
    assert "'bare' and 1 more clients" in both


def test_joint_fedhip_with_two_clients_is_warned_of() -> None:
    assert "what is left is the other's" in warned(FedHiP(), Additive(), MANY)
    assert "--personal proximal" in warned(FedHiP(), Additive(), MANY)
    three = make_clients((120, 120, 120))
    assert "what is left is the other's" not in warned(FedHiP(), Additive(), three)
    assert "what is left" not in warned(FedHiP(personal="proximal"), Additive(), MANY)


def test_who_receives_g_where_w_would_do_is_named() -> None:
    assert "The collector receives (G, Q)" in warned(AFL(), Additive(), FEW)
    assert "The key holder receives (G, Q)" in warned(AFL(), Ckks(), FEW)
    # Of plain it is said already, and worse.
    assert "receives (G, Q)" not in warned(AFL(), Plain(), FEW)
    assert "give every client (G, Q)" in warned(FedHiP(), Additive(), FEW)


def test_with_privacy_nothing_is_said_that_depends_on_the_rows() -> None:
    dangerous = [rows_of("bare", (0, 1, 2, 2)), rows_of("single", (0,))]
    safe = [rows_of("bare", (0,) * 400), rows_of("single", (0,) * 400)]
    for method in (AFL(), FedHiP()):
        exact = make_task(dangerous)
        noisy = replace(exact, mechanism=Mechanism(Privacy(1.0), 1, 2, 0, 1))
        said = [warnings(Terms(method, Plain()), noisy, rows) for rows in (dangerous, safe)]
        assert said[0] == said[1] != ()
        assert "nothing" in said[0][0]
        assert warnings(Terms(method, Plain()), exact, dangerous) != said[0]


def test_a_session_is_warned_of_by_the_rows_that_are_declared() -> None:
    few, many = make_task(FEW, max_rows=20), make_task(MANY, max_rows=120)
    (rows, receives) = session_warnings(AFL(), Additive(), few)
    assert rows.startswith("at most 40 rows in the sum for 6 dimensions")
    assert "The collector receives (G, Q)" in receives
    assert session_warnings(AFL(), Additive(), many) == ()
    assert "protects nothing" in session_warnings(AFL(), Plain(), many)[0]
    noisy = replace(few, mechanism=Mechanism(Privacy(1.0), 1, 2, 0, 1))
    assert session_warnings(AFL(), Additive(), noisy) == ()


COLUMNS = Columns(tuple(Column.over(f"c{i}", 0, 1) for i in range(6)))


@pytest.mark.parametrize(
    ("method", "advice"),
    [
        (FedHiP(), "take --personal auto or prior"),
        (AFL(personal="proximal"), "take --personal auto or prior"),
        (evaluated(AFL(personal="joint"), 0.2), "take --personal auto or prior"),
        (AFL(head="ridge", standardise=False), "leave that out, or take --intercept"),
        (AFL(), None),
        (AFL(head="ridge"), None),
        (AFL(head="ridge", standardise=False, intercept=True), None),
        (AFL(personal="auto"), None),
        (AFL(personal="prior"), None),
    ],
)
def test_ridge_that_turns_on_declared_ranges_is_warned_of(
    method: AnyMethod, advice: str | None
) -> None:
    table = replace(make_task(MANY), columns=COLUMNS)
    found = [text for text in session_warnings(method, Additive(), table) if "ranges" in text]
    assert [f"Better: {advice}." in text for text in found] == ([] if advice is None else [True])
    terms = Terms(method, Additive())
    assert found == [text for text in warnings(terms, table, MANY) if "ranges" in text]
    assert "ranges" not in warned(method, Additive(), MANY)


@pytest.mark.parametrize(
    ("head", "epsilon", "advice"),
    [
        ("ridge", 8.0, "take --head lda"),
        ("auto", 0.01, "declare more rows, narrower ranges or fewer columns"),
        ("auto", 20.0, None),
        ("lda", 0.01, None),
    ],
)
def test_noise_that_leaves_ridge_to_declared_ranges_is_warned_of(
    head: str, epsilon: float, advice: str | None
) -> None:
    promised = Mechanism(Privacy(epsilon), 1, 2, 0, 1)
    table = replace(make_task(MANY), columns=COLUMNS, mechanism=promised)
    found = "".join(session_warnings(AFL(head=head), Additive(), table))
    assert (f"Better: {advice}" in found) if advice else found == ""


def grouped(name: str, each: int) -> ClientData:
    """A client of sixty rows, so many to a patient."""
    rows = make_client(name, 60, dim=2)
    return dataclasses.replace(rows, patients=tuple(f"{name}{i // each}" for i in range(60)))


def test_counts_of_patients_with_several_rows_have_intervals_that_are_warned_of() -> None:
    method = evaluated(AFL(), 0.4)

    def said(each: int, **settings: Any) -> list[str]:
        clients = [grouped(f"c{i}", each) for i in range(3)]
        federation = Federation(method, Additive(), **settings)
        report = federation.run(clients, classes="012", max_rows=64).report
        assert report.pooled is not None
        return [text for text in report.warnings if "sites kept out" in text]

    (found,) = said(5)
    rows, patients = (int(word) for word in found.split() if word.isdigit())
    assert rows == 5 * patients > 0
    assert "too narrow" in found
    assert said(1) == []
    # What it says would follow from the rows.
    assert said(5, privacy=Privacy(8.0)) == []


def test_a_run_reports_its_advice() -> None:
    clients = make_clients((20, 3))
    found = Federation(FedHiP(), Additive()).run(clients).report.warnings
    assert any("what is left is the other's" in warning for warning in found)
    assert any("'c1': hardly more rows" in warning for warning in found)
