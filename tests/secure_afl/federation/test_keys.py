"""Identity files, the roster, and what pinning it stops."""

import stat
from pathlib import Path

import numpy as np
import pytest

from protocols import Additive, Plain
from protocols.errors import InvalidSession
from protocols.identity import Identity
from protocols.protocol import enrol, form_session, new_nonce
from secure_afl import AFL, ClientData, ConfigError, DataError, Federation
from secure_afl.analytic.quantise import Quantiser
from secure_afl.federation.client import FederationClient
from secure_afl.federation.keys import ROSTER, Keys, generate, load_keys, load_roster
from secure_afl.federation.server import FederationServer
from secure_afl.federation.sums import context
from secure_afl.federation.task import Terms
from secure_afl.methods import Task


def clients(*names: str) -> list[ClientData]:
    rng = np.random.default_rng(0)
    return [ClientData(name, rng.standard_normal((8, 4)), rng.integers(0, 2, 8)) for name in names]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    generate(["north", "south", "west"], "client", tmp_path)
    generate(["university", "clinic"], "aggregator", tmp_path)
    return load_keys(tmp_path)


def test_a_federation_of_pinned_parties_is_exact(keys: Keys) -> None:
    result = Federation(AFL(), Additive(), keys=keys).run(clients("north", "south", "west"))
    assert result.report.exact
    roster = {m.name: (m.role, m.verify_key) for m in result.rounds[0].session.roster}
    assert roster == keys.roster.known


def test_identities_are_for_their_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    generate(["north"], "client", tmp_path / "keys")
    path = tmp_path / "keys" / "north.identity"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="north"):
        generate(["south", "north"], "client", tmp_path / "keys")
    (tmp_path / "keys" / ROSTER).unlink()
    with pytest.raises(ConfigError, match=r"north\.identity exists"):
        generate(["north"], "client", tmp_path / "keys")
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["", "a b", "../north", "a/b", "Zürich", "a" * 65])
def test_names_that_no_party_can_have_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="A-Z"):
        generate([name], "client", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_client_or_coordinator_without_an_identity_is_named(keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keygen east --role client"):
        Federation(AFL(), Additive(), keys=keys).run(clients("north", "east"))
    with pytest.raises(ConfigError, match="role 'server'"):
        Federation(AFL(), Plain(), keys=keys).run(clients("north", "south"))
    with pytest.raises(ConfigError, match="role 'aggregator'"):
        Federation(AFL(), Additive(3), keys=keys).run(clients("north", "south"))
    (tmp_path / "clinic.identity").unlink()
    with pytest.raises(ConfigError, match="keygen clinic --role aggregator"):
        Federation(AFL(), Additive(), keys=load_keys(tmp_path)).run(clients("north", "south"))


def test_a_client_joins_no_session_with_strangers(keys: Keys) -> None:
    """The forged cohort: invented clients around one victim, formed by a lying coordinator."""
    (victim,) = clients("north")
    method, protocol = AFL(), Additive()
    bounds = (("north", 8), ("sybil_0", 8), ("sybil_1", 8))
    task = Task(4, ("0", "1"), Quantiser(8), bounds, bytes(32))
    server = FederationServer(Terms(method, protocol), task)
    nonce = new_nonce()
    cohort = {"north": keys.identities["north"]}
    cohort |= {name: Identity.generate(name) for name in ("sybil_0", "sybil_1")}
    enrolments = enrol(protocol, cohort, nonce, keys.coordinators(protocol))
    session = server.form(enrolments, nonce, min_cohort=3, corrupt=0)
    assert session is not None
    trusting = FederationClient(Terms(method, protocol), victim, 8)
    assert trusting.join(session, enrolments["north"], server.public).start()
    careful = FederationClient(Terms(method, protocol), victim, 8, keys.roster.known)
    with pytest.raises(InvalidSession, match="'sybil_0' is not known"):
        careful.join(session, enrolments["north"], server.public)


def test_a_known_name_with_another_key_is_a_stranger(keys: Keys) -> None:
    protocol, nonce = Additive(), new_nonce()
    cohort = {"north": keys.identities["north"], "south": Identity.generate("south")}
    enrolments = enrol(protocol, cohort, nonce, keys.coordinators(protocol))
    task = Task(4, ("0", "1"), Quantiser(8), (("north", 8), ("south", 8)), bytes(32))
    public = AFL().begin(task)
    layout = AFL().layout(public)
    assert layout is not None
    session = form_session(
        protocol, enrolments, nonce, layout, min_cohort=2, context=context(AFL(), public)
    )
    with pytest.raises(InvalidSession, match="'south' is not known"):
        session.check_known(keys.roster.known)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"format_version": 2, "members": []}',
        b'{"format_version": 1, "members": [], "more": 1}',
        b'{"format_version": 1, "members": [{"name": "a", "role": "client", "verify_key": "zz"}]}',
        b'{"format_version": 1, "members": [{"name": "a", "role": "client", "verify_key": "00"}]}',
    ],
)
def test_a_damaged_roster_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / ROSTER).write_bytes(damage)
    with pytest.raises(DataError, match=ROSTER):
        load_roster(tmp_path)


def test_identities_that_are_not_the_rosters_are_refused(keys: Keys, tmp_path: Path) -> None:
    for swapped in (Identity.generate("north").save(), b"", keys.identities["south"].save()):
        (tmp_path / "north.identity").write_bytes(swapped)
        with pytest.raises(DataError, match=r"north\.identity"):
            load_keys(tmp_path)


def test_no_repr_shows_a_private_key(keys: Keys) -> None:
    for identity in keys.identities.values():
        private = identity.save()[-32:]
        assert private.hex() not in repr(keys)
        assert repr(private)[2:20] not in repr(keys)


def test_a_client_in_an_aggregators_place_is_refused(keys: Keys) -> None:
    """`west` works with the first aggregator, and takes the place of the honest second one."""
    protocol, nonce = Additive(), new_nonce()
    west = {"aggregator_0": keys.identities["university"], "aggregator_1": keys.identities["west"]}
    cohort = {name: keys.identities[name] for name in ("north", "south")}
    enrolments = enrol(protocol, cohort, nonce, west)
    layout = AFL().layout(
        AFL().begin(Task(4, ("0", "1"), Quantiser(8), (("north", 8),), bytes(32)))
    )
    assert layout is not None
    session = form_session(protocol, enrolments, nonce, layout, min_cohort=2)
    with pytest.raises(InvalidSession, match="'west' is not known in the role 'aggregator'"):
        session.check_known(keys.roster.known)


def test_a_client_joins_no_smaller_cohort_and_no_second_session_of_a_round(keys: Keys) -> None:
    protocol, method = Additive(), AFL()
    task = Task(4, ("0", "1"), Quantiser(8), (("north", 8), ("south", 8), ("west", 8)), bytes(32))
    server = FederationServer(Terms(method, protocol), task)
    (data,) = clients("north")
    north = FederationClient(Terms(method, protocol), data, 8, keys.roster.known, min_cohort=3)

    def join(names: list[str], min_cohort: int) -> None:
        nonce = new_nonce()
        cohort = {name: keys.identities[name] for name in names}
        enrolments = enrol(protocol, cohort, nonce, keys.coordinators(protocol))
        session = server.form(enrolments, nonce, min_cohort, 0)
        assert session is not None
        north.join(session, enrolments["north"], server.public)

    with pytest.raises(InvalidSession, match="this client wants ≥ 3"):
        join(["north", "south"], 2)
    join(["north", "south", "west"], 3)
    with pytest.raises(InvalidSession, match="another session of this round"):
        join(["north", "south", "west"], 3)
