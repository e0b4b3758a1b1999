"""Ranges that sites find together: exact beside declared ones, and receivers that lie."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import Additive, Bfv, Ckks, Pairwise, Plain, Protocol
from protocols.codec import decode, encode
from protocols.errors import InvalidSession
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics
from secure_afl.data.columns import GREATEST, LEAST, Column, Columns
from secure_afl.data.tables.design import make_design
from secure_afl.data.tables.dictionary import Category, Dictionary, Number
from secure_afl.errors import ConfigError, DataError
from secure_afl.features.table import frame_rows
from secure_afl.federation.rounds.history import History, state_digest
from secure_afl.federation.simulation import Federation
from secure_afl.federation.task import Declared, Terms, plan_task
from secure_afl.methods import AFL, AnyMethod, FedAvg, Method, Softmax
from secure_afl.methods.evaluated import Evaluated, evaluated
from secure_afl.methods.further import SAID, Further
from secure_afl.methods.memory import a_round_later, pend, settle
from secure_afl.methods.scaled import Scaled, scaled
from secure_afl.privacy.mechanism import Privacy
from secure_afl.runs.frames import table_federation
from tests.kit.halves import Halves

# One site has another unit than the others.
pytestmark = pytest.mark.filterwarnings("ignore:.* out of range and cut to it:UserWarning")

CLASSES = ("no", "yes")
SIZES = (40, 60, 50, 30)
# Three sites in one unit and one in a thousandth of it.
SPREADS = (3.0, 5.0, 2.0, 4000.0)


def dictionary(**ranges: tuple[float, float]) -> Dictionary:
    columns: dict[str, Any] = {
        "age": Number(range=(0, 100)),
        "crp": Number(range=ranges.get("crp")),
        "dose": Number(range=ranges.get("dose"), missing=9.0),
        "sex": Category(("female", "male")),
        "ill": Category(CLASSES),
    }
    return Dictionary(columns, "ill")


def frames() -> dict[str, dict[str, list[str]]]:
    rng = np.random.default_rng(3)
    found = {}
    for place, (rows, spread) in enumerate(zip(SIZES, SPREADS, strict=True)):
        crp = spread * rng.standard_normal(rows)
        found[f"site_{place}"] = {
            "age": [str(age) for age in rng.integers(0, 101, rows)],
            "crp": [repr(value) for value in crp.tolist()],
            "dose": ["" if rng.random() < 0.1 else repr(rng.random()) for _ in range(rows)],
            "sex": [("female", "male")[place] for place in rng.integers(0, 2, rows)],
            "ill": [CLASSES[int(value > 0)] for value in crp + rng.standard_normal(rows)],
        }
    return found


OPEN = make_design(dictionary(), open=True)
ROWS = [frame_rows(name, frame, OPEN) for name, frame in frames().items()]


def ready(result: Any) -> tuple[Any, list[ClientData]]:
    """The design of the ranges that were found, as if declared, and its rows."""
    ranges = {one.name: (one.low, one.high) for one in result.report.ranges}
    design = make_design(dictionary(**ranges))
    return design, [frame_rows(name, frame, design) for name, frame in frames().items()]


def exponent(cells: Sequence[str]) -> int:
    """The least power of two that holds 99 % of the values, by counting."""
    values = np.abs([float(cell) for cell in cells])
    return next(e for e in range(LEAST, GREATEST) if (values <= 2.0**e).mean() >= 0.99)


# What comes out


@pytest.mark.parametrize("protocol", [Plain(), Additive(), Pairwise(), Ckks(), Bfv()], ids=repr)
@pytest.mark.parametrize("drop", [(), ("site_1",)], ids=("all", "drop"))
def test_sums_are_those_of_a_dictionary_that_declares_the_ranges(
    protocol: Protocol, drop: Sequence[str]
) -> None:
    if drop and isinstance(protocol, Pairwise):
        protocol = Pairwise(dropout_fraction=0.25)
    found = table_federation(OPEN, scaled(AFL()), protocol, feature_bits=12).run(
        ROWS, classes=CLASSES, drop=drop
    )
    assert found.report.exact
    assert found.report.rounds == 2
    names = [one.name for one in found.report.ranges]
    assert names == ["crp", "dose"]
    # The site of another unit sets nothing alone: the next one does.
    reached = sorted(exponent(f["crp"]) for name, f in frames().items() if name not in drop)
    assert found.report.ranges[0].high == 2.0 ** reached[-2]
    assert reached[-1] > reached[-2]
    design, rows = ready(found)
    declared = table_federation(design, AFL(), Plain(), feature_bits=12).run(
        rows, classes=CLASSES, drop=drop
    )
    assert np.array_equal(found.rounds[-1].released.total, declared.rounds[-1].released.total)
    assert np.array_equal(found.model.weights, declared.model.weights)
    assert found.public.task.columns == design.columns
    assert found.report.accuracy == declared.report.accuracy
    assert (found.report.ranges[0].cut or 0) > 0
    assert any("'site_3'" in text and "cut to it" in text for text in found.report.warnings)


@pytest.mark.parametrize(
    "learner",
    [Softmax(), FedAvg(rounds=2), evaluated(AFL(), 0.3), evaluated(FedAvg(rounds=2), 0.3)],
)
def test_methods_of_many_sums_and_evaluations_go_on_from_the_ranges(learner: AnyMethod) -> None:
    result = table_federation(OPEN, scaled(learner), Additive()).run(ROWS, classes=CLASSES)
    assert result.report.exact
    assert result.report.rounds == learner.sums + 1
    assert result.method == learner.learner
    design, rows = ready(result)
    assert result.public.task.columns == design.columns
    if isinstance(learner, Evaluated):
        task, pooled = result.public.task, result.report.pooled
        kept = [data for row in rows if (data := learner.kept(task, row)) is not None]
        assert pooled is not None
        right = sum(
            int((result.model.predict(data.features) == data.labels).sum()) for data in kept
        )
        assert pooled.examples == sum(map(len, kept))
        assert sum(row[c] for c, row in enumerate(pooled.confusion) if row is not None) == right
        assert result.report.examples == sum(SIZES) - pooled.examples


def test_clients_own_models_are_of_rows_in_the_ranges() -> None:
    learner = AFL(head="lda", personal="prior")
    found = table_federation(OPEN, scaled(learner), Plain(), feature_bits=12).run(
        ROWS, classes=CLASSES
    )
    design, rows = ready(found)
    declared = table_federation(design, learner, Plain(), feature_bits=12).run(
        rows, classes=CLASSES
    )
    assert set(found.personal) == {row.name for row in ROWS}
    for row in rows:
        ours, theirs = (run.personal[row.name].scores(row.features) for run in (found, declared))
        assert np.array_equal(ours, theirs)


def test_the_receiver_gets_one_place_a_site_and_column() -> None:
    result = table_federation(OPEN, scaled(AFL()), Additive()).run(ROWS, classes=CLASSES)
    counts = result.rounds[0].released.total.reshape(2, GREATEST - LEAST + 2)
    assert (counts.sum(axis=1) == len(ROWS)).all()
    for site in frames().values():
        counts[0, exponent(site["crp"]) - LEAST] -= 1
    assert not counts[0].any()
    header = result.rounds[1].session.header
    assert header.same_set == result.rounds[0].session.bits(result.rounds[0].released.included)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 0.0, 7.0), "fewer than 2 sites have a value other than 0 in column 'x'"),
        ((3.0, 0.0, 7.0), ""),
    ],
)
def test_one_site_alone_gives_no_range(values: tuple[float, ...], message: str) -> None:
    columns = Columns((Column.over("x", -(2.0**64), 2.0**64, open=True),))
    clients = [
        ClientData(f"c{k}", columns.features(np.array([[v], [v / 2]])), np.array([0, 1]))
        for k, v in enumerate(values)
    ]
    made = Federation(scaled(AFL(ridge=0.1)), Additive(), columns=columns, row_mode="columns")
    if message:
        with pytest.raises(ConfigError, match=message):
            made.run(clients)
    else:
        assert made.run(clients).report.ranges[0].high == 4.0


@pytest.mark.parametrize("outliers", [1, 4, 5])
def test_a_site_refuses_a_range_that_shows_a_few_of_its_rows_alone(outliers: int) -> None:
    # Nobody but the receiver of the sum knows whether two sites reach so wide a range.
    columns = Columns((Column.over("x", -(2.0**64), 2.0**64, open=True),))
    values = np.linspace(-1, 1, 600)[:, None]
    values[:outliers] = 1000.0
    data = ClientData("site", columns.features(values), np.arange(600) % 2)
    method = scaled(AFL())
    first = method.begin(task(columns))
    honest = method.contribute(first, data, {}, b"")
    assert honest[1 - LEAST - 1] == 1, "one in a hundred does not set the exponent"
    told = np.zeros_like(honest)
    told[20 - LEAST] = 2
    lie = method.absorb(first, told, ("a", "b"))
    bits = lie.learned.task.quantiser.bits
    assert 2.0**20 / 2**bits / 2 < 1000, "all but the outliers are rounded to 0"
    if outliers < 5:
        with pytest.raises(DataError, match=rf"'x' would round all values but {outliers} to 0"):
            method.contribute(lie, data, {}, b"")
    else:
        method.contribute(lie, data, {}, b"")


# What is refused


def task(columns: Columns = OPEN.columns, clients: int = 4) -> Any:
    declared = Declared(
        dim=len(columns.columns),
        classes=CLASSES,
        max_rows=tuple((f"c{k}", 64) for k in range(clients)),
        backbone=bytes(32),
        min_cohort=3,
        row_mode="columns",
        columns=columns,
    )
    return plan_task(Terms(scaled(AFL()), Additive()), declared)


def test_clients_refuse_states_that_cannot_be() -> None:
    method = scaled(AFL())
    first = method.begin(task())
    method.check(first, 1)
    total = np.zeros(2 * (GREATEST - LEAST + 2), dtype=np.int64)
    total[[10, 12, 110, 111]] = 2
    after = method.absorb(first, total, ("a", "b"))
    assert after.exponents == (12 + LEAST, 111 - 98 + LEAST)
    method.check(after, 2)
    method.check_step(first, after)
    assert encode(decode(encode(after), method.public)) == encode(after)

    def but(**changes: Any) -> Any:
        return msgspec.structs.replace(after, **changes)

    for state, round in [
        (first, 2),
        (after, 1),
        (but(exponents=(GREATEST + 1, 0)), 2),
        (but(exponents=(LEAST - 1, 0)), 2),
        (but(exponents=(0,)), 2),
        (but(exponents=(0, 0)), 2),  # the learned task has others
        (but(learned=first.learned), 2),
    ]:
        with pytest.raises(DataError):
            method.check(state, round)
    other = method.absorb(first, np.roll(total, 1), ("a", "b"))
    with pytest.raises(DataError, match="other ranges than in the rounds before"):
        method.check_step(after, other)
    with pytest.raises(DataError, match="does not begin with the ranges"):
        method.check_step(first, but(learned=other.learned))


def world_of() -> tuple[Halves, dict[str, Any]]:
    """A run whose ranges have been found, by all."""
    planned = task()
    clients = [replace(row, name=f"c{k}") for k, row in enumerate(ROWS)]
    world = Halves(Terms(scaled(AFL()), Additive()), planned, clients, max_rows=64, min_cohort=3)
    members = {data.name: world.client(data.name, pinned=world.roster) for data in clients}
    session, enrolments = world.form()
    released, release, salt = world.carry(session, enrolments, members)
    world.server.absorb(session, released, release, salt)
    return world, members


def test_clients_do_not_go_on_from_ranges_that_change_or_cannot_be() -> None:
    def refused(world: Halves, members: dict[str, Any], words: str) -> None:
        session, enrolments = world.form()
        with pytest.raises(InvalidSession, match=words):
            members["c0"].join(session, enrolments["c0"], world.opening)

    world, members = world_of()
    # Not even where a site would accept two.
    assert world.client("c0", pinned=world.roster, min_cohort=2).min_cohort == 3
    found: Any = world.server.public
    later = world.terms.method.absorb  # what an honest server makes of a sum
    absurd = msgspec.structs.replace(found, exponents=(GREATEST + 7, 0))
    world.server.public = absurd
    world.server.history = history_to(world, absurd)
    refused(world, members, "none of this round's")
    # Ranges that nobody reached are taken: no client knows what others have. Too wide a one makes
    # zeros, and too narrow a one signs; the sum is of the same clients either way.
    for place in (0, GREATEST - LEAST):
        world, members = world_of()
        total = np.zeros((2, GREATEST - LEAST + 2), dtype=np.int64)
        total[:, place] = 2
        begun = world.terms.method.begin(world.task)
        lie = later(begun, total.ravel(), ())
        world.server.public = lie
        world.server.history = history_to(world, lie)
        session, _ = world.form()
        vector = members["c0"].contribute(lie, bytes(32))
        assert session.layout.holds(vector)
        gram = Statistics.unpack(vector, session.layout).gram
        most = lie.task.quantiser.scale**2 // lie.task.feature_dim
        values = gram.diagonal()[1]  # of crp
        assert values == 0 if place else values > 0.9 * most * len(members["c0"].data)


def history_to(world: Halves, public: Any) -> History:
    """The history with another state at its end, as a server that lies about it has."""
    history = world.server.history
    link = msgspec.structs.replace(history.links[-1], state=state_digest(public))
    return msgspec.structs.replace(history, links=(*history.links[:-1], link))


def test_what_has_no_such_sum_is_refused() -> None:
    closed = make_design(dictionary(crp=(-4, 4), dose=(0, 1)))
    with pytest.raises(ConfigError, match="no column of the model lacks a range"):
        table_federation(closed, scaled(AFL()), Additive()).run(ROWS, classes=CLASSES)
    with pytest.raises(ConfigError, match="column 'crp' has no range, and the method finds none"):
        table_federation(OPEN, AFL(), Additive()).run(ROWS, classes=CLASSES)
    with pytest.raises(ConfigError, match="2 clients, minimum cohort 3"):
        table_federation(OPEN, scaled(AFL()), Additive()).run(ROWS[:2], classes=CLASSES)
    with pytest.raises(ConfigError, match="4 clients, minimum cohort 2"):
        table_federation(OPEN, scaled(AFL()), Additive(), min_cohort=2).run(ROWS, classes=CLASSES)
    with pytest.raises(ConfigError, match="with --epsilon"):
        table_federation(OPEN, scaled(AFL()), Additive(), privacy=Privacy(1.0)).run(
            ROWS, classes=CLASSES, max_rows=64
        )


def test_a_scaled_method_says_what_the_method_says() -> None:
    for learner in (AFL(), FedAvg(), evaluated(Softmax(), 0.2)):
        method = scaled(learner)
        for name in set(SAID) - {"ignores"}:
            assert getattr(method, name) == getattr(learner, name)
        assert "same_set" not in method.ignores
        assert method.learner == learner.learner
    said = {name for name in vars(Method) if not name.startswith("_")} - set(SAID)
    own = {"public", "auditable", "row_additive", "begin", "run_sums"}
    assert said - set(vars(Further)) - set(vars(Scaled)) - own == set()


# What a client keeps


@given(st.integers(1, 5), st.booleans())
def test_what_is_pending_is_of_the_runs_round(round: int, included: bool) -> None:
    memory: Any = {"kept": np.zeros(1), "gone": np.zeros(1), "pending/9/x": np.ones(1)}
    with a_round_later(memory) as seen:
        assert set(seen) == {"kept", "gone"}
        pend(seen, round, "error", np.full(1, round))
        del seen["gone"]
        seen["kept"] = np.ones(1)
    assert set(memory) == {"kept", "pending/9/x", f"pending/{round + 1}/error"}
    assert memory["kept"] == 1
    settle(memory, round, included=True)
    assert "error" not in memory
    settle(memory, round + 1, included=included)
    assert ("error" in memory) == included
