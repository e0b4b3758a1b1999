"""Identity files, the roster, and what pinning it stops."""

import os
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from secure_afl.federation.keys import (
    ROSTER,
    Keys,
    generate,
    keygen,
    load_identity,
    load_keys,
    load_roster,
    make_identity,
    pinned_identity,
    pinned_roster,
)
from secure_afl.federation.rosters import merge, read, replace, revoke
from secure_afl.federation.rounds.history import Opening
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
    with pytest.raises(ConfigError, match=r"'east' is not on the .*keygen east --role client"):
        Federation(AFL(), Additive(), keys=keys).run(clients("north", "east"))
    with pytest.raises(ConfigError, match="has 'clinic' in the role 'aggregator', wanted 'client'"):
        Federation(AFL(), Additive(), keys=keys).run(clients("north", "clinic"))
    with pytest.raises(ConfigError, match="role 'server'"):
        Federation(AFL(), Plain(), keys=keys).run(clients("north", "south"))
    with pytest.raises(ConfigError, match="role 'aggregator'"):
        Federation(AFL(), Additive(3), keys=keys).run(clients("north", "south"))
    (tmp_path / "clinic.identity").unlink()
    with pytest.raises(ConfigError, match=r"clinic\.identity is missing.*--role aggregator"):
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


# At a site


posix = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_site_makes_its_own_key_and_a_line_for_the_others(tmp_path: Path) -> None:
    made = keygen(["north"], "client", tmp_path / "keys")
    assert files(tmp_path / "keys") == ["north.identity", "north.public.json"]
    assert made.roster is None
    identity = load_identity(tmp_path / "keys" / "north.identity")
    (line,) = made.lines
    assert (line.name, line.role, line.verify_key) == ("north", "client", identity.verify_key)
    assert read(tmp_path / "keys" / "north.public.json").roster.lines == made.lines
    private = identity.save()[-32:]
    public = (tmp_path / "keys" / "north.public.json").read_text(encoding="utf-8")
    assert private.hex() not in public


def test_sites_that_share_only_lines_and_a_roster_sum_exactly(tmp_path: Path) -> None:
    """Each folder stands for a machine; what is copied between them is public."""
    parties = dict.fromkeys(("north", "south", "west"), "client")
    parties |= {"university": "collector", "clinic": "aggregator"}
    for name, role in parties.items():
        keygen([name], role, tmp_path / name)
    public = [tmp_path / name / f"{name}.public.json" for name in parties]
    roster = merge(tmp_path / ROSTER, public).edition.roster
    identities = {}
    for name, role in parties.items():
        (tmp_path / name / ROSTER).write_bytes((tmp_path / ROSTER).read_bytes())
        pinned = pinned_roster(tmp_path / name / ROSTER)
        assert pinned.digest == roster.digest
        path = tmp_path / name / f"{name}.identity"
        identities[name] = pinned_identity(path, pinned, name=name, role=role)
        assert load_keys(tmp_path / name).identities.keys() == {name}
    keys = Keys(roster, identities)
    assert Federation(AFL(), Additive(), keys=keys).run(clients(*list(parties)[:3])).report.exact


def test_several_names_make_a_simulation_whose_folder_takes_more(tmp_path: Path) -> None:
    made = keygen(["west", "north"], "client", tmp_path)
    assert [line.name for line in made.lines] == ["west", "north"]
    more = keygen(["university"], "collector", tmp_path)
    assert [line.name for line in more.lines] == ["university"]
    assert more.roster == load_roster(tmp_path)
    assert load_keys(tmp_path).identities.keys() == {"north", "university", "west"}


@pytest.mark.parametrize("names", [("south",), ("south", "east")])
def test_a_roster_that_came_from_others_is_never_changed(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    site, other = tmp_path / "site", tmp_path / "other"
    keygen(["north"], "client", site)
    keygen(["west"], "client", other)
    merge(site / ROSTER, [site / "north.public.json", other / "west.public.json"])
    before = (site / ROSTER).read_bytes()
    assert keygen(names, "client", site).roster is None
    assert (site / ROSTER).read_bytes() == before
    assert all((site / f"{name}.public.json").exists() for name in names)


def test_what_a_site_has_is_never_overwritten(tmp_path: Path) -> None:
    make_identity("north", "client", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"north\.public\.json exists; move it away"):
        make_identity("north", "client", tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "north.identity").unlink()
    with pytest.raises(ConfigError, match=r"north\.public\.json exists; move it away"):
        make_identity("north", "client", tmp_path)
    assert files(tmp_path) == ["north.public.json"]


def test_a_line_that_was_lost_is_made_again_from_the_identity(tmp_path: Path) -> None:
    line = make_identity("north", "client", tmp_path)
    public = tmp_path / "north.public.json"
    before = public.read_bytes()
    public.unlink()
    assert make_identity("north", "client", tmp_path) == line
    assert public.read_bytes() == before
    public.unlink()
    (tmp_path / "north.identity").write_bytes(Identity.generate("south").save())
    with pytest.raises(DataError, match="is the identity of 'south', wanted that of 'north'"):
        make_identity("north", "client", tmp_path)


@pytest.mark.parametrize("make", [make_identity, lambda *given: generate([given[0]], *given[1:])])
def test_roles_that_no_protocol_has_are_refused(
    tmp_path: Path, make: Callable[[str, str, Path], object]
) -> None:
    with pytest.raises(ConfigError, match="role 'emperor', allowed: client, "):
        make("north", "emperor", tmp_path)
    assert not files(tmp_path)


def test_a_name_twice_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a name twice"):
        keygen(["north", "north"], "client", tmp_path)
    make_identity("south", "client", tmp_path)
    with pytest.raises(ConfigError, match=r"south\.identity exists"):
        keygen(["north", "south"], "client", tmp_path)
    assert "north.identity" not in files(tmp_path)


def test_a_name_on_the_roster_gets_no_second_key_beside_it(keys: Keys, tmp_path: Path) -> None:
    for name in ("north.identity", "north.public.json"):
        (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match="'north' has a key already"):
        generate(["east", "north"], "client", tmp_path)
    assert not {"east.identity", "north.identity"} & set(files(tmp_path))
    assert load_roster(tmp_path) == keys.roster


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_keys_that_are_made_at_once_are_all_on_the_roster(tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: generate([name], "client", tmp_path), names))
    assert load_keys(tmp_path).identities.keys() == set(names)
    assert load_roster(tmp_path).number == 40


# What is wrong with an identity, each cause by its name


@pytest.fixture
def north(keys: Keys, tmp_path: Path) -> Path:
    return tmp_path / "north.identity"


def test_a_missing_identity_is_said_to_be_missing(keys: Keys, north: Path) -> None:
    north.unlink()
    with pytest.raises(DataError, match=r"north\.identity is missing; .*secure-afl keygen"):
        pinned_identity(north, keys.roster)


def test_an_identity_that_cannot_be_read_is_said_to_be_so(
    keys: Keys, north: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", denied)
        with pytest.raises(DataError, match=r"cannot be read \(Permission denied\); run as"):
            pinned_identity(north, keys.roster)


@pytest.mark.parametrize("content", [b"", b"\x92\xa5north\xc4\x1f" + bytes(31), b"{}"])
def test_what_is_no_identity_is_said_to_be_none(keys: Keys, north: Path, content: bytes) -> None:
    north.write_bytes(content)
    with pytest.raises(DataError, match=r"north\.identity is not an identity file"):
        pinned_identity(north, keys.roster)


def test_another_partys_identity_is_named(keys: Keys, north: Path) -> None:
    north.write_bytes(keys.identities["south"].save())
    with pytest.raises(DataError, match="is the identity of 'south', wanted that of 'north'"):
        pinned_identity(north, keys.roster, name="north")


def test_an_identity_that_is_not_on_the_roster_is_said_to_be_off_it(
    keys: Keys, north: Path
) -> None:
    north.write_bytes(Identity.generate("east").save())
    with pytest.raises(DataError, match=r"'east' .*not on the roster, number 3; .*roster merge"):
        pinned_identity(north, keys.roster)


def test_another_key_than_the_rosters_is_said_with_both_fingerprints(
    keys: Keys, north: Path
) -> None:
    north.write_bytes(Identity.generate("north").save())
    theirs = keys.roster.by_name["north"].fingerprint
    with pytest.raises(DataError, match=f"another key .*, there {theirs}.*roster replace"):
        pinned_identity(north, keys.roster)


def test_another_role_than_the_rosters_is_said(keys: Keys, north: Path) -> None:
    assert pinned_identity(north, keys.roster, role="client").name == "north"
    with pytest.raises(DataError, match="has 'north' in the role 'client', wanted 'collector'"):
        pinned_identity(north, keys.roster, role="collector")


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644])
def test_an_identity_that_others_can_reach_is_refused(
    keys: Keys, north: Path, tmp_path: Path, mode: int
) -> None:
    north.chmod(mode)
    for load in (lambda: pinned_identity(north, keys.roster), lambda: load_keys(tmp_path)):
        with pytest.raises(DataError, match=rf"mode {mode:o}, .*: chmod 600 .*north\.identity"):
            load()
    north.chmod(0o400)
    assert load_keys(tmp_path).identities.keys() == keys.identities.keys()


@posix
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_can_write_is_refused(
    keys: Keys, north: Path, tmp_path: Path, mode: int
) -> None:
    tmp_path.chmod(mode)
    for use in (
        lambda: load_identity(north),
        lambda: pinned_roster(tmp_path / ROSTER),
        lambda: load_keys(tmp_path),
        lambda: generate(["east"], "client", tmp_path),
        lambda: make_identity("east", "client", tmp_path),
    ):
        with pytest.raises(DataError, match=f"mode {mode:o}, .*chmod go-w {tmp_path}$"):
            use()
    assert "east.identity" not in files(tmp_path)
    tmp_path.chmod(0o755)
    assert load_keys(tmp_path).identities.keys() == keys.identities.keys()


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_roster_that_others_can_write_is_refused(keys: Keys, tmp_path: Path, mode: int) -> None:
    (tmp_path / ROSTER).chmod(mode)
    with pytest.raises(DataError, match=rf"mode {mode:o}, .*chmod go-w .*{ROSTER}"):
        load_keys(tmp_path)
    (tmp_path / ROSTER).chmod(0o644)
    assert load_keys(tmp_path).roster == keys.roster


def test_a_key_that_is_replaced_joins_again_and_the_old_one_does_not(
    keys: Keys, north: Path, tmp_path: Path
) -> None:
    """A rotation, as the messages tell it."""
    away = tmp_path / "away"
    away.mkdir(mode=0o700)
    for name in ("north.identity", "north.public.json"):
        (tmp_path / name).rename(away / name)
    assert keygen(["north"], "client", tmp_path).roster is None
    with pytest.raises(DataError, match="another key"):
        load_keys(tmp_path)
    replace(tmp_path / ROSTER, tmp_path / "north.public.json")
    again = load_keys(tmp_path)
    assert again.roster.number == keys.roster.number + 1
    cohort = {name: again.identities[name] for name in ("south", "west")}
    session, _, _ = formed(again, cohort | {"north": again.identities["north"]})
    session.check_pinned(again.roster)
    old, _, _ = formed(again, cohort | {"north": keys.identities["north"]})
    with pytest.raises(InvalidSession, match="'north' is not known"):
        old.check_pinned(again.roster)
    revoke(tmp_path / ROSTER, ["north"])
    with pytest.raises(InvalidSession, match="'north' is not known"):
        session.check_pinned(load_roster(tmp_path))
