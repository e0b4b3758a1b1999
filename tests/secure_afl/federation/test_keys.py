"""Identity files, the roster, and what pinning it stops."""

import stat
from pathlib import Path

import numpy as np
import pytest

from protocols import Additive, Enrolment, Plain, Session
from protocols.errors import InvalidSession
from protocols.identity import Identity
from protocols.protocol import enrol, new_nonce
from secure_afl import AFL, ClientData, ConfigError, DataError, Federation
from secure_afl.analytic.quantise import Quantiser
from secure_afl.federation.client import FederationClient
from secure_afl.federation.keys import ROSTER, Keys, generate, load_keys, load_roster
from secure_afl.federation.rounds import Opening
from secure_afl.federation.server import FederationCoordinator, FederationServer
from secure_afl.federation.task import Terms
from secure_afl.methods import Task


def clients(*names: str) -> list[ClientData]:
    rng = np.random.default_rng(0)
    return [ClientData(name, rng.standard_normal((8, 4)), rng.integers(0, 2, 8)) for name in names]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    generate(["north", "south", "west"], "client", tmp_path)
    generate(["university"], "collector", tmp_path)
    generate(["clinic"], "aggregator", tmp_path)
    return load_keys(tmp_path)


def test_a_federation_of_pinned_parties_is_exact(keys: Keys) -> None:
    result = Federation(AFL(), Additive(), keys=keys).run(clients("north", "south", "west"))
    assert result.report.exact
    session = result.rounds[0].session
    assert session.roster is keys.roster
    assert session.of_role("collector") == ("university",)
    assert result.rounds[0].receivers == ("university",)


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


TASK = Task(4, ("0", "1"), Quantiser(8), 24, 8, 3, bytes(32))


def formed(
    keys: Keys, cohort: dict[str, Identity], coordinators: dict[str, Identity] | None = None
) -> tuple[Session, dict[str, Enrolment], Opening]:
    """The first session over these clients, by whoever chooses them and the coordinators."""
    protocol, nonce = Additive(), new_nonce()
    server = FederationServer(Terms(AFL(), protocol), TASK)
    bounds = dict.fromkeys(cohort, 8)
    chosen = keys.coordinators(protocol) if coordinators is None else coordinators
    enrolments = enrol(protocol, cohort, nonce, chosen, bounds)
    members = [enrolment.member for enrolment in enrolments.values()]
    session = server.form(members, nonce, min_cohort=3, corrupt=0)
    assert session is not None
    return session, enrolments, server.opening


def test_a_client_joins_no_session_with_strangers(keys: Keys) -> None:
    """The forged cohort: invented clients around one victim, formed by a lying coordinator."""
    (victim,) = clients("north")
    terms = Terms(AFL(), Additive())
    sybils = {name: Identity.generate(name) for name in ("sybil_0", "sybil_1")}
    session, enrolments, opening = formed(keys, {"north": keys.identities["north"]} | sybils)
    trusting = FederationClient(terms, victim, 8)
    assert trusting.join(session, enrolments["north"], opening).start()
    careful = FederationClient(terms, victim, 8, keys.roster)
    with pytest.raises(InvalidSession, match="'sybil_0' is not known"):
        careful.join(session, enrolments["north"], opening)
    collector = FederationCoordinator("university", terms, keys.roster)
    with pytest.raises(InvalidSession, match="'sybil_0' is not known"):
        collector.join(session, enrolments["university"], opening)


def test_a_known_name_with_another_key_is_a_stranger(keys: Keys) -> None:
    cohort = {name: keys.identities[name] for name in ("north", "west")}
    session, _, _ = formed(keys, cohort | {"south": Identity.generate("south")})
    with pytest.raises(InvalidSession, match="'south' is not known"):
        session.check_pinned(keys.roster)


def test_who_receives_is_not_for_whoever_forms_the_session_to_choose(keys: Keys) -> None:
    """The roster's order once decided which of two organisations received the sum."""
    cohort = {name: keys.identities[name] for name in ("north", "south", "west")}
    swapped = {
        "collector": keys.identities["clinic"],
        "aggregator_1": keys.identities["university"],
    }
    session, enrolments, opening = formed(keys, cohort, swapped)
    (victim,) = clients("north")
    careful = FederationClient(Terms(AFL(), Additive()), victim, 8, keys.roster)
    with pytest.raises(InvalidSession, match="'clinic' is not known in the role 'collector'"):
        careful.join(session, enrolments["north"], opening)


def test_of_more_pinned_aggregators_nobody_chooses_some(tmp_path: Path, keys: Keys) -> None:
    generate(["registry"], "aggregator", tmp_path)
    more = load_keys(tmp_path)
    cohort = {name: keys.identities[name] for name in ("north", "south", "west")}
    session, enrolments, opening = formed(keys, cohort)
    (victim,) = clients("north")
    careful = FederationClient(Terms(AFL(), Additive()), victim, 8, more.roster)
    with pytest.raises(InvalidSession, match="not all that are pinned for it: clinic, registry"):
        careful.join(session, enrolments["north"], opening)
    with pytest.raises(ConfigError, match="2 parties in role 'aggregator', the protocol takes 1"):
        Federation(AFL(), Additive(), keys=more).run(clients("north", "south", "west"))


def test_every_change_of_the_roster_counts_its_number_up(tmp_path: Path) -> None:
    assert generate(["north", "south"], "client", tmp_path).number == 1
    assert generate(["west"], "client", tmp_path).number == 2
    assert load_roster(tmp_path).number == 2
    assert [line.name for line in load_roster(tmp_path).lines] == ["north", "south", "west"]


def test_a_roster_of_version_1_is_refused_as_such(tmp_path: Path) -> None:
    (tmp_path / ROSTER).write_bytes(b'{"format_version": 1, "members": []}')
    with pytest.raises(DataError, match=r"format 1, wanted 2; make keys anew"):
        load_roster(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"format_version": 3, "number": 1, "members": []}',
        b'{"format_version": 2, "members": []}',
        b'{"format_version": 2, "number": -1, "members": []}',
        b'{"format_version": 2, "number": 1, "members": [], "more": 1}',
        b'{"format_version": 2, "number": 1, "members": [{"name": "a", "role": "client", '
        b'"verify_key": "zz"}]}',
        b'{"format_version": 2, "number": 1, "members": [{"name": "a", "role": "client", '
        b'"verify_key": "00"}]}',
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
    """`west` works with the collector, and takes the place of the honest aggregator."""
    west = {"collector": keys.identities["university"], "aggregator_1": keys.identities["west"]}
    cohort = {name: keys.identities[name] for name in ("north", "south")}
    cohort["east"] = Identity.generate("east")
    session, _, _ = formed(keys, cohort, west)
    with pytest.raises(InvalidSession, match="'west' is not known in the role 'aggregator'"):
        session.check_pinned(keys.roster)


def test_a_client_joins_no_second_session_of_a_round(keys: Keys) -> None:
    (data,) = clients("north")
    north = FederationClient(Terms(AFL(), Additive()), data, 8, keys.roster)
    cohort = {name: keys.identities[name] for name in ("north", "south", "west")}
    session, enrolments, opening = formed(keys, cohort)
    north.join(session, enrolments["north"], opening)
    north.join(session, enrolments["north"], opening)  # as after a restart
    again, enrolments, _ = formed(keys, cohort)
    with pytest.raises(InvalidSession, match="another session of this round"):
        north.join(again, enrolments["north"], opening)
