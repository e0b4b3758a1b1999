"""The Gram matrix of random mixtures of rows beside that of rows: accuracy, and what shows.

    SECURE_AFL_DATA=… python -m benchmarks.mixtures

FedRE uploads entangled representations: random convex mixtures of a client's, labels mixed by the
same weights. Its analytic counterpart sums the Gram matrix and cross term of such mixtures. The
upload is as large as AFL's. Beside it stands AFL of a share of the rows, which also costs accuracy
and also shows less of a row.

A third of a data set's rows are members, at ten clients; a third are not, and models are scored on
these; a third are public, and the ridge parameter is chosen on them. The attacks are the suite's,
by the collector of `additive`.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from attacks.attack import Known, Truth
from attacks.statistics.lattice import factor_gram
from attacks.statistics.membership import LeverageMembership, MembershipAttack, SubspaceMembership
from attacks.statistics.rows import Recovered, compare
from attacks.views.run import Record
from benchmarks import splits
from benchmarks.record import POINTS, write
from benchmarks.splits import CLIENTS, Rows
from protocols import Additive
from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.heads.ridge import Ridge
from secure_afl.analytic.moments import Moments
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics, one_hot, statistics_layout
from secure_afl.federation.simulation import Federation
from secure_afl.intervals import student_reach
from secure_afl.methods import AFL
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import Task
from secure_afl.methods.model import LinearModel
from secure_afl.methods.summed import SummedPublic

SEEDS = 5
# Mixtures in units of the client's rows, rows of a mixture (0 is all), and shares of plain rows.
PER_ROW, SIZES, SHARES = (0.25, 1.0, 4.0), (2, 4, 8, 32, 0), (1.0, 0.9, 0.75, 0.5, 0.25)
RIDGES = 10.0 ** np.arange(-5, 2.01, 0.5)
# Rows of each client where rows are to be recovered.
SMALL = 4
WHOLE = "all"


class Mixed(NamedTuple):
    """Integer mixtures (m, d), their labels in units (m, C), and the weights (m, n)."""

    rows: Floats
    labels: Floats
    weights: Floats


class Mixtures(AFL, frozen=True, tag="mixtures"):
    """AFL on random convex mixtures of a client's rows, with labels mixed alike.

    A client's mixtures follow from its entropy, so that its vector is computed once. It is no sum
    over rows: the oracle adds the clients' vectors, and pools no rows.

    Attributes:
        size: rows of a mixture; 0 is all that the client has.
        per_row: mixtures for each row.
    """

    name = "mixtures"
    row_additive = False
    size: int = 2
    per_row: float = 1.0

    def layout(self, public: SummedPublic) -> Layout | None:
        """Lay out (G, Q, n) of mixtures; Q and n have labels in units."""
        return None if public.fitted is not None else self.laid_out(public.task)

    def laid_out(self, task: Task) -> Layout:
        """Lay out the statistics; a client has at most so many mixtures as its rows allow."""
        own = self.number(task.client_rows)
        # A client rounds its number up.
        most = self.number(task.total_rows) + task.clients
        plain = statistics_layout(
            task.feature_dim, len(task.classes), task.quantiser, most, own
        ).blocks
        unit = unit_of(task.quantiser)

        def in_units(block: Block) -> Block:
            least, greatest = (unit * end for end in block.addend)
            low, high = unit * block.low, unit * block.high
            return Block(block.name, block.length, low, high, block.scale / unit, least, greatest)

        labelled = {"cross", "counts"}
        return Layout(tuple(in_units(b) if b.name in labelled else b for b in plain))

    def number(self, rows: int) -> int:
        """Return how many mixtures a client makes of so many rows."""
        return int(np.ceil(self.per_row * rows))

    def contribute(
        self, public: SummedPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Pack the statistics of the client's mixtures, which its entropy draws."""
        task = public.task
        rng = np.random.default_rng(int.from_bytes(entropy, "big"))
        found = mixed(
            data, len(task.classes), task.quantiser, self.size, self.number(len(data)), rng
        )
        return statistics_of(found).pack()

    def moments(self, task: Task, total: Integers) -> Moments:
        """Bring a total into units of the float features, labels that add up to 1."""
        statistics = Statistics.unpack(total, self.laid_out(task))
        gram, cross = statistics.floats(task.quantiser)
        unit = unit_of(task.quantiser)
        return Moments(gram, cross / unit, statistics.counts / unit)

    def absorb(
        self, public: SummedPublic, total: Integers, included: tuple[str, ...]
    ) -> SummedPublic:
        """Fit ridge with an intercept to the mixtures."""
        task = public.task
        head = Ridge(ridge=0.01, intercept=True)
        fit = head.fit(self.moments(task, total), task.classes)
        return SummedPublic(task, fit.fitted)


def unit_of(quantiser: Quantiser) -> int:
    """Return what a mixture's weights, and so its labels, add up to.

    The cross term's range is then no wider than the Gram matrix's, and the upload no longer.
    """
    return max(1, quantiser.scale // 2)


def mixed(
    data: ClientData,
    classes: int,
    quantiser: Quantiser,
    size: int,
    number: int,
    rng: np.random.Generator,
) -> Mixed:
    """Draw mixtures of a client's rows, brought to norm 1: weights uniform on the simplex."""
    units = quantiser.scaled(data.features)
    count, unit = len(units), unit_of(quantiser)
    size = min(size or count, count)
    weights = np.zeros((number, count))
    places = rng.random((number, count)).argsort(axis=1)[:, :size]
    ends = np.rint(unit * np.cumsum(rng.dirichlet(np.ones(size), number), axis=1))
    np.put_along_axis(weights, places, np.diff(ends, axis=1, prepend=0), axis=1)
    # A mixture is as long as it is: to bring it to norm 1 would change what its labels say.
    short = Quantiser(quantiser.bits, "clip")
    rows = short.integers(weights @ units / unit)
    return Mixed(rows, weights @ one_hot(data.labels, classes), weights / unit)


def statistics_of(found: Mixed) -> Statistics:
    """Sum up mixtures exactly: products are integers below 2^53."""
    rows, labels, _ = found
    return Statistics(
        (rows.T @ rows).astype(np.int64),
        (rows.T @ labels).astype(np.int64),
        labels.sum(axis=0).astype(np.int64),
    )


def main() -> None:
    """Measure both sets and write `results/mixtures.json`."""
    signs, _ = splits.signs()
    sets = {"digits": splits.digits(), "signs": signs}
    POINTS.mkdir(exist_ok=True)
    figures: dict[str, Any] = {}
    for name, rows in sets.items():
        figures[name] = {
            "members": len(rows.labels) // 3,
            "features": rows.features.shape[1],
            "ways": measured(name, rows),
            "small": recovered(rows),
        }
    write("mixtures", {"seeds": SEEDS, "clients": CLIENTS, "sets": figures})


def ways() -> Iterator[tuple[str, Mixtures | None, float]]:
    """List what is compared: a name, the method or None for rows, and the share of rows."""
    for share in SHARES:
        yield f"rows, {share:g}", None, share
    for size in SIZES:
        for per_row in PER_ROW:
            yield f"{size or WHOLE}, {per_row:g}", Mixtures(size=size, per_row=per_row), 1.0


def measured(title: str, rows: Rows) -> dict[str, Any]:
    """Score the model and membership for every way; one that is measured is not measured again."""
    file = POINTS / f"mixtures {title}.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name, method, share in ways():
        if name in found:
            continue
        scores = [scored(rows, method, share, seed) for seed in range(SEEDS)]
        found[name] = {key: float(np.mean([own[key] for own in scores])) for key in scores[0]}
        found[name]["reach"] = student_reach([own["accuracy"] for own in scores])
        file.write_text(json.dumps(found), encoding="utf-8")
    return {name: found[name] for name, _, _ in ways()}


def scored(rows: Rows, method: Mixtures | None, share: float, seed: int) -> dict[str, float]:
    """Run a federation over a third of the rows, and attack its sum."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows.labels))
    members, others, public = np.array_split(order, 3)
    others = others[: len(members)]
    used = members[: round(share * len(members))]
    runs = method or AFL(ridge=0.01)
    result = Federation(runs, Additive()).run(
        dealt(rows, used), classes=[str(c) for c in range(rows.classes)], record=True
    )
    assert result.report.exact, "the sum is that of the clients' integers"
    task, (round_,) = result.public.task, result.rounds
    total = round_.released.total
    if method is None:
        moments = Moments.of(Statistics.unpack(total, round_.session.layout), task.quantiser)
    else:
        moments = method.moments(task, total)
    candidates = np.concatenate([members, others])
    shown = rows.features[public].astype(np.float64)
    known = Known(rows.features[candidates].astype(np.float64), rows.labels[candidates], shown)
    truth = Truth({}, members=np.arange(len(candidates)) < len(members))
    view = Record(runs, Additive(), result).view(round_.receivers)
    found = {"accuracy": accuracy(moments, task, rows, public, others)}
    attacks: Sequence[MembershipAttack] = (SubspaceMembership(), LeverageMembership())
    for attack in attacks:
        measures = attack.judge(attack.claim(view, known, rng), truth)
        found[attack.name] = {m.metric: m.value for m in measures}["AUC"]
    found["upload"] = float(result.report.bytes.upload_per_client)
    return found


def accuracy(moments: Moments, task: Task, rows: Rows, public: Integers, test: Integers) -> float:
    """Return the accuracy of ridge with an intercept, its λ chosen on public rows, in per cent."""
    models = [
        LinearModel.fitted(
            Ridge(ridge=float(ridge), intercept=True).fit(moments, task.classes).fitted,
            task.classes,
            task.quantiser,
        )
        for ridge in RIDGES
    ]

    def right(model: LinearModel, places: Integers) -> float:
        return float((model.predict(rows.features[places]) == rows.labels[places]).mean())

    best = max(models, key=lambda model: right(model, public))
    return 100 * right(best, test)


def recovered(rows: Rows) -> dict[str, dict[str, float]]:
    """Factor a small sum over the integers: what is found of mixtures, and so of rows."""
    found = {}
    # Four rows are all that a client has.
    for size, per_row in ((1, 1.0), (2, 1.0), (2, 2.0), (0, 1.0), (0, 2.0)):
        scores = [small(rows, size, per_row, seed) for seed in range(SEEDS)]
        name = "rows" if size == 1 else f"{size or WHOLE}, {per_row:g}"
        found[name] = {key: float(np.mean([own[key] for own in scores])) for key in scores[0]}
    return found


def small(rows: Rows, size: int, per_row: float, seed: int) -> dict[str, float]:
    """Recover mixtures of a few rows at each of ten clients, and compare them with rows."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows.labels))
    first = rows.labels[order] == 0
    # One class has one row.
    places = np.append(order[first][:1], order[~first][: SMALL * CLIENTS - 1])
    quantiser = Quantiser(12)
    clients = dealt(rows, places)
    if size == 1:
        # Every row once, by itself.
        parts = [
            Mixed(
                quantiser.integers(client.features),
                unit_of(quantiser) * one_hot(client.labels, rows.classes),
                np.eye(len(client)),
            )
            for client in clients
        ]
    else:
        parts = [
            mixed(c, rows.classes, quantiser, size, round(per_row * len(c)), rng) for c in clients
        ]
    true = np.concatenate([part.rows for part in parts])
    statistics = statistics_of(
        Mixed(true, np.concatenate([part.labels for part in parts]), np.empty(0))
    )
    integers = np.concatenate([quantiser.integers(client.features) for client in clients])
    labels = np.concatenate([client.labels for client in clients])
    alone = single(statistics, integers, labels)
    factor = factor_gram(statistics.gram, rng)
    if factor is None:
        return {"mixtures": 0.0, "rows": 0.0, "cosine": 0.0, "single": alone}
    inner = (factor.rows @ factor.rows.T).astype(np.float64)
    soft = np.linalg.solve(inner, factor.rows @ statistics.cross)
    signs = np.where(soft.sum(axis=1) < 0, -1, 1)
    claimed = factor.rows * signs[:, None]
    # The row that weighs most is most of a mixture: what it shows is claimed to be that row.
    claim = Recovered(claimed.astype(np.float64), (soft * signs[:, None]).argmax(axis=1))
    exact, cosines = compare(claim, integers, labels)
    right = (claimed[:, None, :] == true[None, :, :]).all(axis=2).any(axis=0)
    return {
        "mixtures": float(right.mean()),
        "rows": float(exact.mean()),
        "cosine": float(cosines.mean()),
        "single": alone,
    }


def single(statistics: Statistics, rows: Floats, labels: Integers) -> float:
    """Return the cosine of class 0's sum, less the mean of all, with its only row, likewise."""
    shown = statistics.cross[:, 0] / statistics.counts[0]
    shown = shown - statistics.cross.sum(axis=1) / statistics.counts.sum()
    row = rows[labels == 0][0] - rows.mean(axis=0)
    return float(shown @ row / np.linalg.norm(shown) / np.linalg.norm(row))


def dealt(rows: Rows, places: np.ndarray) -> list[ClientData]:
    """Ten clients, the rows dealt in turn."""
    return [
        ClientData(f"c{i}", rows.features[places[i::CLIENTS]], rows.labels[places[i::CLIENTS]])
        for i in range(CLIENTS)
    ]


if __name__ == "__main__":
    main()
