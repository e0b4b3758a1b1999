from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

import numpy as np
import pytest

from protocols import Plain
from protocols.codec import decode, encode
from protocols.errors import Malformed
from secure_afl.analytic.heads.head import Fitted
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import ConfigError
from secure_afl.federation.rounds.history import first_context, state_digest
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, AnyMethod, FedAvg, FedHiP, PrivateGradient, PublicState
from secure_afl.methods.method import METHODS
from secure_afl.methods.summed import SummedPublic
from secure_afl.privacy.mechanism import Privacy
from tests.kit.samples import Centred, make_client, make_clients, make_task
from tests.toys.method import ToyMeans
from tests.toys.two_rounds import TwoRounds

Reading = Literal["joint", "proximal"]
READINGS: tuple[Reading, ...] = ("joint", "proximal")


def rows_and_targets(data: ClientData, bits: int = 8) -> tuple[Floats, Floats]:
    """The float rows that the integers stand for, and one-hot labels."""
    quantiser = Quantiser(bits)
    return quantiser.integers(data.features) / quantiser.scale, np.eye(3)[data.labels]


def least_squares(*terms: tuple[float, Floats, Floats]) -> Floats:
    """Minimise Σ weight·‖target − rows·P‖² over P, on the stacked rows."""
    rows = np.concatenate([np.sqrt(weight) * rows for weight, rows, _ in terms])
    targets = np.concatenate([np.sqrt(weight) * targets for weight, _, targets in terms])
    solution: Floats = np.linalg.lstsq(rows, targets)[0]
    return solution


def penalty(beta: float, towards: Floats | float = 0.0) -> tuple[float, Floats, Floats]:
    return beta, np.eye(6), np.zeros((6, 3)) + towards


def public_after(method: FedHiP, clients: Sequence[ClientData]) -> SummedPublic:
    """What the server gives to the clients after the sum."""
    task = make_task(clients)
    begun = method.begin(task)
    vectors = [method.contribute(begun, client, {}, b"") for client in clients]
    return method.absorb(begun, np.sum(vectors, axis=0), tuple(c.name for c in clients))


@pytest.mark.parametrize("lam", [0.01, 0.1, 30.0])
def test_afl_minimises_its_objective(lam: float) -> None:
    clients = make_clients((20, 3, 50))
    result = Federation(AFL(ridge=lam), Plain(), feature_bits=8).run(clients)
    expected = least_squares((1, *rows_and_targets(pooled(clients))), penalty(lam))
    np.testing.assert_allclose(result.model.weights, expected, rtol=1e-9, atol=1e-11)
    for model in result.personal.values():
        assert np.array_equal(model.weights, result.model.weights)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 40.0])
@pytest.mark.parametrize("beta", [0.1, 7.0])
def test_fedhip_minimises_its_objectives(alpha: float, beta: float) -> None:
    clients = make_clients((20, 3, 50))
    everybody = rows_and_targets(pooled(clients))
    for reading in READINGS:
        method = FedHiP(alpha=alpha, ridge=beta, personal=reading)
        result = Federation(method, Plain(), feature_bits=8).run(clients)
        overall = least_squares((1, *everybody), penalty(beta))
        np.testing.assert_allclose(result.model.weights, overall, rtol=1e-9, atol=1e-11)
        for client in clients:
            own = (alpha, *rows_and_targets(client))
            if reading == "joint":
                expected = least_squares((1, *everybody), own, penalty(beta))
            else:
                expected = least_squares(own, penalty(beta, towards=overall))
            personal = result.personal[client.name].weights
            np.testing.assert_allclose(personal, expected, rtol=1e-8, atol=1e-10)


def test_the_two_readings_are_two_models() -> None:
    clients = make_clients((20, 3, 50))
    joint, proximal = (
        Federation(FedHiP(personal=reading), Plain()).run(clients).personal["c0"].weights
        for reading in READINGS
    )
    assert np.abs(joint - proximal).max() > 1e-3


def test_alpha_zero_gives_the_global_model() -> None:
    clients = make_clients((20, 3, 50))
    for reading in READINGS:
        result = Federation(FedHiP(alpha=0.0, personal=reading), Plain()).run(clients)
        for model in result.personal.values():
            if reading == "joint":
                assert np.array_equal(model.weights, result.model.weights)
            np.testing.assert_allclose(model.weights, result.model.weights, rtol=1e-12)


def test_a_large_alpha_gives_the_unregularised_local_model() -> None:
    clients = make_clients((40, 30, 50))
    for reading in READINGS:
        far, further = (
            Federation(FedHiP(alpha=alpha, personal=reading), Plain(), feature_bits=8).run(clients)
            for alpha in (1e4, 1e8)
        )
        for client in clients:
            local = least_squares((1, *rows_and_targets(client)))
            gap = np.abs(further.personal[client.name].weights - local).max()
            assert gap < 1e-6
            assert gap < np.abs(far.personal[client.name].weights - local).max()


def test_a_client_with_few_rows_keeps_the_global_model_elsewhere() -> None:
    # Its rows do not say anything of directions orthogonal to them.
    clients = make_clients((2, 30, 50))
    result = Federation(FedHiP(alpha=1e8), Plain(), feature_bits=8).run(clients)
    rows, targets = rows_and_targets(clients[0])
    weights = result.personal["c0"].weights
    np.testing.assert_allclose(rows @ weights, targets, atol=1e-5)
    shortest = np.linalg.pinv(rows) @ targets
    assert np.abs(weights - shortest).max() > 1e-2


@pytest.mark.parametrize("reading", READINGS)
def test_a_personal_model_does_not_depend_on_how_others_are_partitioned(reading: Reading) -> None:
    own = make_client("own", 25)
    others = make_client("others", 90)
    orders = [np.arange(90), np.random.default_rng(1).permutation(90)]
    cuts = [[30, 60], [1, 5, 6, 40, 77, 80]]
    models = []
    for order, at in zip(orders, cuts, strict=True):
        parts = [
            ClientData(f"other{i}", others.features[part], others.labels[part])
            for i, part in enumerate(np.split(order, at))
        ]
        method = FedHiP(alpha=2.5, personal=reading)
        result = Federation(method, Plain(), feature_bits=10).run([*parts, own])
        assert result.report.exact
        models.append(result.personal["own"].weights)
        if at == cuts[0]:
            # And it does depend on whose rows they are.
            fewer = Federation(method, Plain(), feature_bits=10).run([*parts[1:], own])
            assert not np.array_equal(fewer.personal["own"].weights, models[0])
    assert np.array_equal(models[0], models[1])


def test_proximal_gives_no_summed_statistic_to_the_clients() -> None:
    clients = make_clients((20, 30))
    whole = pooled(clients)
    summed = Statistics.of(whole.features, whole.labels, 3, Quantiser(8))
    secrets = [
        *(row.tobytes() for row in summed.gram),
        *(column.tobytes() for column in summed.cross),
        summed.cross.T.tobytes(),
        summed.counts.tobytes(),
    ]
    proximal = encode(public_after(FedHiP(personal="proximal"), clients))
    assert not any(secret in proximal for secret in secrets)
    # The search does find them where they are, in the other reading.
    joint = encode(public_after(FedHiP(personal="joint"), clients))
    assert sum(secret in joint for secret in secrets) >= len(secrets) - 1


@pytest.mark.parametrize("reading", READINGS)
def test_of_two_clients_each_has_the_other_under_joint_and_not_under_proximal(
    reading: Reading,
) -> None:
    clients = make_clients((20, 30))
    public = public_after(FedHiP(personal=reading), clients)
    own, other = (Statistics.of(c.features, c.labels, 3, Quantiser(8)) for c in clients)
    if reading == "proximal":
        assert public.statistics is None
        return
    assert public.statistics is not None
    assert np.array_equal(public.statistics.gram - own.gram, other.gram)
    assert np.array_equal(public.statistics.cross - own.cross, other.cross)
    assert np.array_equal(public.statistics.counts - own.counts, other.counts)


# Whichever of the toys are registered by then; a dictionary, for its order.
KINDS: dict[type[AnyMethod], None] = dict.fromkeys(
    (*METHODS.values(), ToyMeans, Centred, TwoRounds)
)


def tiny_states(method: AnyMethod, privacy: Privacy | None) -> list[PublicState]:
    """The states before the first and after every round of a tiny run."""
    federation = Federation(method, Plain(), feature_bits=8, privacy=privacy)
    clients = make_clients((9, 7), dim=16 if method.images else 6)
    classes: tuple[str, ...] = ("0", "1", "2")
    if method.numeric:
        classes = ("y",)
        clients = [
            ClientData(c.name, c.features[:, :3], 0 * c.labels, targets=c.labels / 2 - 0.5)
            for c in clients
        ]
    result = federation.run(clients, classes=classes, max_rows=16)
    return [*(round_.public for round_ in result.rounds), result.public]


def tiny(kind: type[AnyMethod], *, private: bool = False) -> AnyMethod:
    """A method as a run makes it, with two rounds where it may have more, and small."""
    rounds = 5 if kind is PrivateGradient else 2
    small = {"rounds": rounds, "steps": 1, "kernel": 1, "filter_count": 1, "regions": 1}
    settings = {name: value for name, value in small.items() if name in kind.__struct_fields__}
    return kind.configured(settings, private=private, seed=0)


@pytest.mark.parametrize(
    ("method", "privacy"),
    [
        *((tiny(kind), None) for kind in KINDS if not kind.wants_noise),
        (FedHiP(personal="proximal"), None),
        *((tiny(kind, private=True), Privacy(2.0)) for kind in (AFL, FedHiP, FedAvg, TwoRounds)),
        (tiny(PrivateGradient, private=True), Privacy(2.0)),
    ],
    ids=lambda value: getattr(value, "name", "noise" if value else "exact"),
)
def test_states_are_decoded_by_the_type_that_a_method_declares(
    method: AnyMethod, privacy: Privacy | None
) -> None:
    states = tiny_states(method, privacy)
    assert len(states) == method.sums + 1
    for state in states:
        data = encode(state)
        again = decode(data, method.public)
        assert type(again) is type(state) is method.public
        assert encode(again) == data
        # Every byte of the heads, and some of the matrices between them.
        places = [at for at in range(len(data)) if at < 300 or at % (1 + len(data) // 300) == 0]
        for end in places:
            with pytest.raises(Malformed):
                decode(data[:end], method.public)
        with pytest.raises(Malformed):
            decode(data + b"\0", method.public)
        for at in places:
            damaged = data[:at] + bytes([data[at] ^ 0x81]) + data[at + 1 :]
            # In a matrix it is another number, and nowhere the same state.
            with suppress(Malformed):
                assert encode(decode(damaged, method.public)) == damaged != data


@pytest.mark.parametrize("method", [AFL(), FedHiP(), FedHiP(personal="proximal"), Centred()])
def test_a_public_state_survives_its_encoding_bit_for_bit(method: AnyMethod) -> None:
    clients = make_clients((20, 30))
    public = method.begin(make_task(clients))
    for _ in range(3):
        again = decode(encode(public), type(public))
        assert context(method, again) == context(method, public)
        layout = method.layout(again)
        assert layout == method.layout(public)
        if layout is None:
            break
        vectors = [method.contribute(again, client, {}, b"") for client in clients]
        public = method.absorb(again, np.sum(vectors, axis=0), ("c0", "c1"))
    assert method.layout(public) is None
    assert np.array_equal(method.model(again).weights, method.model(public).weights)


def context(method: AnyMethod, public: PublicState) -> bytes:
    return first_context(method, public.task, state_digest(public))


def test_contexts_differ_where_anything_that_matters_does() -> None:
    clients = make_clients((20, 30))
    task = make_task(clients)
    weights = np.zeros((6, 3))
    contexts = [
        context(AFL(), SummedPublic(task)),
        context(AFL(ridge=0.2), SummedPublic(task)),
        context(AFL(), SummedPublic(task, Fitted(weights))),
        context(AFL(), SummedPublic(make_task(clients, bits=9))),
        context(AFL(), SummedPublic(make_task(clients, max_rows=64))),
        context(AFL(), SummedPublic(make_task(clients, classes=4))),
        context(FedHiP(), SummedPublic(task)),
        context(FedHiP(alpha=2.0), SummedPublic(task)),
        context(FedHiP(personal="proximal"), SummedPublic(task)),
    ]
    assert len(set(contexts)) == len(contexts)
    assert all(len(value) == 32 for value in contexts)


def test_equal_methods_have_one_context() -> None:
    public = SummedPublic(make_task(make_clients((20, 30))))
    assert AFL(ridge=1) == AFL(ridge=1.0)
    assert context(AFL(ridge=1), public) == context(AFL(ridge=1.0), public)


def test_numbers_of_numpy_are_numbers() -> None:
    clients = make_clients((20, 30))
    (alpha,) = np.logspace(0, 0, 1)
    expected = Federation(FedHiP(alpha=1.0), Plain()).run(clients)
    result = Federation(FedHiP(alpha=alpha), Plain()).run(clients)
    assert np.array_equal(result.personal["c0"].weights, expected.personal["c0"].weights)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_parameters_that_cannot_be_are_refused(value: float) -> None:
    clients = make_clients((20, 30))
    with pytest.raises(ConfigError, match="ridge"):
        Federation(AFL(ridge=value), Plain()).run(clients)
    with pytest.raises(ConfigError, match="alpha"):
        Federation(FedHiP(alpha=value), Plain()).run(clients)


def test_a_reading_that_is_neither_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"personal.*nearby.*joint.*proximal"):
        FedHiP(personal="nearby")
    with pytest.raises(ConfigError, match="--reading is --personal now; pass --personal proximal"):
        FedHiP(reading="proximal")


# A method of two rounds, through the same contract


@pytest.mark.parametrize("drop", [(), ("c1",)])
def test_a_method_of_two_rounds_is_carried_exactly(drop: tuple[str, ...]) -> None:
    clients = make_clients((20, 3, 50, 8))
    result = Federation(Centred(), Plain(), feature_bits=8).run(clients, drop=drop)
    assert result.report.rounds == len(result.rounds) == 2
    assert [round_.exact for round_ in result.rounds] == [True, True]
    assert result.report.exact
    first, second = result.rounds
    assert first.session.id != second.session.id
    assert first.session.nonce != second.session.nonce
    assert first.session.context != second.session.context
    assert first.session.layout != second.session.layout
    assert result.report.session == second.session.id.hex()

    rest = [client for client in clients if client.name not in drop]
    assert first.released.included == second.released.included == tuple(c.name for c in rest)
    integers = Quantiser(8).integers(np.concatenate([c.features for c in rest])).astype(np.int64)
    labels = np.concatenate([c.labels for c in rest])
    assert np.array_equal(first.released.total, [*integers.sum(axis=0), len(integers)])
    mean = np.array([int(int(total) / len(integers)) for total in integers.sum(axis=0)])
    centred = integers - mean
    assert np.array_equal(result.statistics.gram, centred.T @ centred)
    assert np.array_equal(result.statistics.cross, centred.T @ np.eye(3, dtype=np.int64)[labels])
    targets = np.eye(3)[labels]
    expected = least_squares((1, centred / 256, targets), penalty(0.5))
    np.testing.assert_allclose(result.model.weights, expected, rtol=1e-9, atol=1e-11)


def test_the_bytes_of_all_rounds_are_counted() -> None:
    clients = make_clients((20, 3, 50))
    result = Federation(Centred(), Plain(), feature_bits=8).run(clients)
    sent = [sum(round_.sent_bytes[c.name] for round_ in result.rounds) for c in clients]
    assert result.report.bytes.upload_per_client == np.mean(sent)
    packed = sum(round_.session.layout.packed_bytes for round_ in result.rounds)
    assert all(packed < bytes_ < packed + 2 * 2000 for bytes_ in sent)
