"""Attacks on federations between sites: by post, old runs, a convener that lies, crashes."""

import shutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from protocols import Additive, Bfv, Ckks, Pairwise, Protocol
from protocols.carrier import Post
from protocols.codec import decode, encode
from protocols.errors import BadSavedState, InvalidSession, NotStored
from protocols.folder_post import FolderPost
from protocols.party import Sum
from protocols.release import Release
from protocols.void import Evidence
from secure_afl.federation.keys import identity_path, load_identity, make_identity, public_path
from secure_afl.federation.letters import (
    Closed,
    Content,
    Declined,
    Finished,
    Hello,
    Invitation,
    Opened,
    TakeBack,
    open_envelope,
    write,
)
from secure_afl.federation.rosters import merge
from secure_afl.federation.rounds.history import History, Link
from secure_afl.privacy.ledger import Ledger
from secure_afl.sites.mailroom import FolderMailroom
from tests.kit.liars import leave_out
from tests.kit.sites import PATIENT, Sites
from tests.secure_afl.sites.test_sites import CLIENTS, charges, joined, oracle

OLD = b"an older run...."


class Filtered:
    """A post that keeps back what it is told to, and refuses to send what it is told to."""

    def __init__(self, post: Post, back: Callable[[bytes], bool], full: Callable[[bytes], bool]):
        self._post, self._back, self._full = post, back, full

    def send(self, recipient: str, mail: bytes) -> None:
        if self._full(mail):
            raise NotStored("the post is full")
        self._post.send(recipient, mail)

    def collect(self, names: Collection[str]) -> Iterable[tuple[str, bytes]]:
        return ((name, mail) for name, mail in self._post.collect(names) if not self._back(mail))


class Mailroom(FolderMailroom):
    """A mailroom whose letters, or whose sessions' mail, come and go as a test wants."""

    def __init__(self, sites: Sites) -> None:
        super().__init__(sites.folder / "post")
        self.letter_is_kept_back: Callable[[bytes], bool] = lambda mail: False
        self.letter_cannot_be_sent: Callable[[bytes], bool] = lambda mail: False
        self.mail_is_kept_back = False

    def letters(self) -> Post:  # type: ignore[override]
        post: FolderPost = super().letters()
        return Filtered(
            post,
            lambda mail: self.letter_is_kept_back(mail),
            lambda mail: self.letter_cannot_be_sent(mail),
        )

    def session(self, nonce: bytes) -> Post:  # type: ignore[override]
        post: FolderPost = super().session(nonce)
        return Filtered(post, lambda mail: self.mail_is_kept_back, lambda mail: False)


def content(sites: Sites, mail: bytes) -> Content:
    """What a letter says."""
    letter = open_envelope(mail, "somebody")
    return letter.read(letter.recipient, sites.parties["collector"].roster)


def started(tmp_path: Path, **settings: object) -> Sites:
    sites = Sites(tmp_path, Additive(), CLIENTS, **settings)  # type: ignore[arg-type]
    for name in sites.roles:
        sites.start(name)
    return sites


def say(sites: Sites, recipient: str, what: Content, run: bytes, sender: str = "collector") -> None:
    """Let a party of the roster say something, whatever its process does."""
    letter = write(run, sites.parties[sender].identity, recipient, what)
    FolderMailroom(sites.folder / "post").letters().send(recipient, letter)


def share_ledger(sites: Sites, folder: Path, names: Collection[str]) -> None:
    """Let sites keep one ledger, and its head beside identities in one folder."""
    folder.mkdir(mode=0o700)
    Ledger.open(folder / "ledger.json", anchor=folder, new=True).take_over(None, ())
    for name in names:
        shutil.copy2(sites.folder / name / f"{name}.identity", folder)
        file = sites.folder / name / "site.toml"
        text = file.read_text()
        for key, old in (("identity", f"{name}.identity"), ("ledger", "ledger.json")):
            text = text.replace(f'{key} = "{old}"', f'{key} = "{folder / old}"')
        file.write_text(text)


def assert_exact(sites: Sites) -> None:
    bits = sites.conventions["collector"].convening.convener.server.public.task.quantiser.bits
    assert np.array_equal(sites.weights(), oracle(CLIENTS, bits))
    for name in CLIENTS:
        counted = [charge for charge in charges(sites, name) if charge[0]]
        assert counted == [(True, True)]
        model = sites.parties[name].model()
        assert model is not None
        assert np.array_equal(model.weights, sites.weights())


@pytest.mark.parametrize("failed", [True, False])
@pytest.mark.parametrize("turns", [0, 3])
def test_the_end_of_an_older_run_ends_no_other(turns: int, failed: bool, tmp_path: Path) -> None:
    """Its letters lie in the folder still, for a party that was away while it went on."""
    sites = started(tmp_path)
    for _ in range(turns):
        sites.turn()
    for name in CLIENTS:
        say(sites, name, Invitation(bytes(32), 1, 0), OLD)
        say(sites, name, Finished(failed, None, None, None), OLD)
    sites.turn()
    say(sites, "c0", Finished(True, None, None, None), OLD)
    sites.run()
    assert_exact(sites)
    # Whoever enrolled for the older one has no seat there any more.
    seat = tmp_path / "c1" / "state" / "seats" / bytes(32).hex()
    assert not seat.exists() or [path.name for path in seat.iterdir()] == ["ended"]


def test_a_party_that_was_invited_hears_that_the_run_has_failed_also_after_a_restart(
    tmp_path: Path,
) -> None:
    sites = started(tmp_path)
    sites.turn()
    sites.turn()
    for name in CLIENTS:
        sites.stop(name)
    sites.until(lambda: sites.conventions["collector"].convening.finished)
    for name in CLIENTS:
        sites.start(name)
    sites.until(lambda: all(driver.finished for driver in sites.alive.values()))
    assert all(sites.parties[name].attending.failed for name in CLIENTS)


def test_a_client_that_never_hears_how_a_session_ended_learns_it_from_the_next(
    tmp_path: Path,
) -> None:
    """Whoever can write the folder deletes the letter that gave the session back."""
    sites = Sites(tmp_path, Additive(), CLIENTS)
    for name in CLIENTS:
        sites.mailrooms[name] = room = Mailroom(sites)
        room.letter_is_kept_back = lambda mail: isinstance(content(sites, mail), Closed)
    for name in sites.roles:
        sites.start(name)
    sites.until(lambda: "aggregator_1" in joined(sites))
    sites.stop("aggregator_1")
    sites.until(lambda: any("asking for the session back" in t for t in sites.told["collector"]))
    sites.run()
    assert_exact(sites)
    for name in CLIENTS:
        assert charges(sites, name) == [(False, False), (True, True)]


@pytest.mark.parametrize("client", ["c0", "c1", "c2"])
def test_a_client_that_restarts_hears_how_a_session_ended_in_whatever_order(
    client: str, tmp_path: Path
) -> None:
    sites = started(tmp_path)
    sites.until(lambda: "aggregator_1" in joined(sites))
    sites.stop("aggregator_1")
    sites.until(lambda: any("asking for the session back" in t for t in sites.told["collector"]))
    sites.stop(client)
    sites.start("aggregator_1")
    sites.until(lambda: sites.conventions["collector"].convening.convener.attempt == 1)
    sites.run()
    assert_exact(sites)
    assert charges(sites, client) == [(False, False), (True, True)]


def test_evidence_counts_for_a_client_that_has_not_joined_again(tmp_path: Path) -> None:
    sites = started(tmp_path)
    sites.until(lambda: "aggregator_1" in joined(sites))
    sites.stop("aggregator_1")
    sites.until(lambda: any("asking for the session back" in t for t in sites.told["collector"]))
    sites.stop("c0")
    sites.start("aggregator_1")
    convener = sites.conventions["collector"].convening.convener
    nonce = convener.nonce
    sites.until(lambda: convener.attempt == 1)
    (data,) = convener.server.opening.voids
    party = sites.start("c0")
    party.participant.close(nonce, None, decode(data, Evidence))
    assert charges(sites, "c0") == [(False, False)]


def test_an_end_that_nobody_signed_marks_no_release_and_makes_no_model(tmp_path: Path) -> None:
    """A convener names sessions of others, so that what was given back counts again."""
    sites = started(tmp_path)
    sites.until(lambda: "c0" in joined(sites))
    (hearing,) = sites.parties["c0"].participant.hearings.values()
    session = hearing.party.session  # type: ignore[attr-defined]
    server = sites.conventions["collector"].convening.convener.server
    forged = Release(session.id, bytes(32), session.header.participants, bytes(64))
    history = History(server.history.first, (Link(forged, server.history.first),))
    run = server.public.task.run
    say(sites, "c0", Finished(False, encode(server.public), history, None), run)
    sites.until(lambda: sites.alive["c0"].finished)
    assert sites.parties["c0"].attending.failed
    assert any("the model was refused" in told for told in sites.told["c0"])
    assert charges(sites, "c0") == [(True, False)]


def test_a_sum_that_comes_out_while_the_session_is_asked_back_is_not_lost(tmp_path: Path) -> None:
    """An aggregator says that it takes no part, and does."""
    sites = Sites(tmp_path, Additive(), CLIENTS, wait=PATIENT)
    sites.mailrooms["collector"] = room = Mailroom(sites)
    room.mail_is_kept_back = True
    for name in sites.roles:
        sites.start(name)
    sites.until(lambda: set(sites.roles) <= joined(sites))
    for _ in range(3):
        sites.turn()
    convener = sites.conventions["collector"].convening.convener
    assert convener.session is not None
    declined = Declined(convener.nonce, convener.session.id)
    run = convener.server.public.task.run
    say(sites, "collector", declined, run, sender="aggregator_1")
    sites.turn()
    assert any("asking for the session back" in told for told in sites.told["collector"])
    room.mail_is_kept_back = False
    # A carrier that begins anew is told everything again.
    sites.stop("collector")
    sites.run()
    assert_exact(sites)


@pytest.mark.slow
def test_a_convener_that_keeps_a_sum_gets_no_release_given_back_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clients have one ledger; one of them never uploaded, and says so."""
    sites = Sites(tmp_path, Pairwise(dropout_fraction=0.25), CLIENTS, wait=(60, 15))
    share_ledger(sites, tmp_path / "organisation", ("c0", "c1"))
    sites.mailrooms["c0"] = room = Mailroom(sites)
    room.mail_is_kept_back = True
    for name in sites.roles:
        sites.start(name)
    convening = sites.conventions["server"].convening
    honest = convening._outcome
    sums: list[Sum] = []

    def kept(nonce: bytes) -> None:
        outcome, session = honest(nonce), convening.convener.session
        if outcome is not None and session is not None and not sums:
            sums.append(outcome.released)
            for name in ("c0", "c1"):
                ended = Closed(nonce, session.id, None, None)
                say(sites, name, ended, convening._run, sender="server")

    monkeypatch.setattr(convening, "_outcome", kept)
    parties = [sites.parties[name].participant for name in ("c0", "c1")]
    sites.until(lambda: bool(sums) and not any(party.hearings for party in parties))
    assert sums[0].included == ("c1", "c2", "c3")
    ledger = Ledger.look(tmp_path / "organisation" / "ledger.json")
    counting = {
        Path(name).parent.name: [entry.counts for entry in ledger.entries(name)]
        for name in ledger.lineages
    }
    assert counting == {"c0": [False], "c1": [True]}


def test_letters_that_a_full_post_refuses_are_sent_later(tmp_path: Path) -> None:
    """The end of a run is written once: clients without it would wait for ever."""
    sites = Sites(tmp_path, Additive(), CLIENTS)
    sites.mailrooms["collector"] = room = Mailroom(sites)
    for name in sites.roles:
        sites.start(name)
    room.letter_cannot_be_sent = lambda mail: (
        isinstance(content(sites, mail), Finished | Closed)
        and open_envelope(mail, "").recipient in CLIENTS
    )
    sites.until(lambda: sites.conventions["collector"].convening.finished)
    for _ in range(5):
        sites.turn()
    assert not sites.alive["collector"].finished
    assert not any(sites.alive[name].finished for name in CLIENTS)
    room.letter_cannot_be_sent = lambda mail: False
    sites.run()
    assert_exact(sites)


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("name", ["c0", "aggregator_1", "collector"])
def test_a_disk_that_is_full_once_costs_nothing(
    name: str, which: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever could not keep where it stands goes on in the same process."""
    sites = started(tmp_path, wait=PATIENT)
    state, calls = sites.parties[name].state, 0
    keep = state.keep_run

    def full(run: bytes, saved: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == which:
            raise NotStored("no space left on device", party=name)
        keep(run, saved)

    monkeypatch.setattr(state, "keep_run", full)
    for _ in range(60):
        sites.turn()
        if calls == which:
            # Whoever declined is told of the session again.
            for path in (sites.folder / "post" / "letters" / name).iterdir():
                path.touch()
        if all(driver.finished for driver in sites.alive.values()):
            break
    if name == "c0" or which == 2:
        sites.run()
        assert_exact(sites)
    else:
        # A coordinator that declined has its session asked back, or comes after all.
        sites.until(lambda: sites.conventions["collector"].convening.convener.attempt in (0, 1))
        sites.run()
        assert_exact(sites)


def test_a_crash_between_the_end_of_a_run_and_forgetting_it_leaves_no_run(tmp_path: Path) -> None:
    sites = started(tmp_path)
    sites.run()
    for name in sites.roles:
        run = sites.parties[name].attending.run
        (tmp_path / name / "state" / "runs" / run.hex()).touch()
        sites.stop(name)
    first = sites.conventions["collector"].convening
    assert first.finished
    for name in sites.roles:
        party = sites.start(name)
        assert party.attending.run == b""
        assert party.state.run() is None
        assert party.state.convener() is None
    assert not sites.conventions["collector"].convening.finished
    # It goes on to another run, whose sum the ledgers refuse.
    sites.until(lambda: all(driver.finished for driver in sites.alive.values()))


def test_marks_of_a_runs_seats_go_with_the_run(tmp_path: Path) -> None:
    sites = started(tmp_path)
    sites.run()
    sites.parties["c0"].forget()
    assert list((tmp_path / "c0" / "state" / "seats").iterdir()) == []
    # Its letters are heard no more, and so no invitation begins again.
    sites.stop("c0")
    sites.start("c0")
    sites.turn()
    assert list((tmp_path / "c0" / "state" / "seats").iterdir()) == []


def test_why_a_party_declines_does_not_leave_the_site(tmp_path: Path) -> None:
    """A ledger that is used up, and classes that a site has, once had other names."""
    sites = started(tmp_path)
    sites.run()
    for name in sites.roles:
        sites.parties[name].forget()
        sites.stop(name)
    path = tmp_path / "collector" / "run.toml"
    said = []
    for classes in ("['0', '1', '2']", "['0', '1']"):
        path.write_text(path.read_text().replace("['0', '1', '2']", classes))
        for name in sites.roles:
            sites.start(name)
        sites.until(lambda: sites.conventions["collector"].convening.finished)
        letters = FolderMailroom(tmp_path / "post").letters()
        run = sites.conventions["collector"]._run
        heard = [mail for _, mail in letters.collect(["collector"])]
        declined = [content(sites, mail) for mail in heard if open_envelope(mail, "").run == run]
        kinds = [what for what in declined if isinstance(what, Declined)]
        assert len(kinds) >= len(CLIENTS)
        said.append({len(encode(what)) for what in kinds})
        sites.until(lambda: all(driver.finished for driver in sites.alive.values()))
        for name in sites.roles:
            sites.parties[name].forget()
            sites.stop(name)
    assert said[0] == said[1]
    assert len(said[0]) == 1
    assert any("c0" in told and "class" in told for told in sites.told["c0"])


def test_letters_of_another_run_task_or_session_are_no_session_here(tmp_path: Path) -> None:
    sites = started(tmp_path)
    sites.until(lambda: sites.conventions["collector"].convening.convener.session is not None)
    convening = sites.conventions["collector"].convening
    opened = convening._opened("c0")
    run = convening.convener.server.public.task.run
    attending = sites.parties["c0"].attending
    identity = sites.parties["collector"].identity

    def hear(what: Content, letter_run: bytes = run) -> list[Content]:
        posted = attending.hear(write(letter_run, identity, "c0", what))
        posted += attending.settle()
        return [content(sites, one.letter) for one in posted]

    # The letter's run is not the task's: it must not become this party's.
    (answer,) = hear(opened, OLD)
    assert isinstance(answer, Declined)
    assert attending.run == b""
    assert hear(TakeBack(bytes(32))) == []
    voids = msgspec.structs.replace(opened, voids=(b"\0",))
    (answer,) = hear(voids)
    assert isinstance(answer, Declined)
    garbled = msgspec.structs.replace(opened, header=opened.header[:-1])
    assert hear(garbled) == []
    assert not attending.hearings
    assert not (tmp_path / "c0" / "ledger.json").exists()
    # From whoever does not form the sessions, nothing is heard.
    other = sites.parties["aggregator_1"].identity
    assert attending.hear(write(run, other, "c0", opened)) == []
    sites.run()
    assert_exact(sites)


def test_a_session_of_another_roster_is_refused(tmp_path: Path) -> None:
    sites = started(tmp_path)
    sites.until(lambda: sites.conventions["collector"].convening.convener.session is not None)
    opened = sites.conventions["collector"].convening._opened("c0")
    assert isinstance(opened, Opened)
    session = sites.conventions["collector"].convening.convener.session
    assert session is not None
    header = msgspec.structs.replace(session.header, roster=bytes(32))
    forged = msgspec.structs.replace(opened, header=encode(header))
    run = sites.conventions["collector"].convening.convener.server.public.task.run
    say(sites, "c0", forged, run)
    sites.turn()
    assert any("a session was refused" in told for told in sites.told["c0"])
    sites.run()
    assert_exact(sites)


def test_settings_that_changed_in_an_open_session_are_refused_and_those_before_go_on(
    tmp_path: Path,
) -> None:
    sites = started(tmp_path)
    sites.until(lambda: sites.conventions["collector"].convening.convener.session is not None)
    sites.stop("collector")
    path = tmp_path / "collector" / "run.toml"
    text = path.read_text()
    path.write_text(text + "min-cohort = 4\n")
    with pytest.raises(BadSavedState, match=r"formed with other settings.*--leave"):
        sites.start("collector")
    path.write_text(text)
    sites.run()
    assert_exact(sites)


@pytest.mark.parametrize(
    "protocol",
    [
        Additive(),
        pytest.param(Additive(3), marks=pytest.mark.slow),
        pytest.param(Pairwise(dropout_fraction=0.25), marks=pytest.mark.slow),
        pytest.param(Ckks(), marks=pytest.mark.slow),
        pytest.param(Bfv(), marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_a_lie_about_the_first_set_is_caught_after_a_restart(
    protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a party agreed to went with its seat: a second sum then showed one client's update."""
    sites = Sites(tmp_path, protocol, CLIENTS, method="fedsgd", site="rounds = 2\n")
    sums = leave_out(sites, "c3", monkeypatch)
    for name in sites.roles:
        sites.start(name)
    sites.until(lambda: bool(sums))
    sites.stop("c3")
    # They hear the truth about the session that is over, and the lie with the next one.
    sites.until(lambda: all(any("is out; this" in t for t in sites.told[n]) for n in sites.alive))
    for name in [name for name in sites.alive if name != sites.convener]:
        sites.stop(name)
        sites.start(name)
    sites.until(lambda: sites.conventions[sites.convener].convening.finished)
    assert [released.included for released in sums] == [("c0", "c1", "c2", "c3")]
    others = [name for name in sites.roles if name not in (*CLIENTS, sites.convener)]
    for name in others or ("c0", "c1", "c2"):
        assert any("other clients in the sum than those that" in t for t in sites.told[name])


def test_a_nonce_of_another_length_is_refused_as_any_malformed_letter_is(tmp_path: Path) -> None:
    """The site's process once died of it, and again each time it was started."""
    sites = started(tmp_path)
    for name in CLIENTS:
        say(sites, name, Invitation(b"abc", 1, 0), OLD)
    say(sites, "c0", Closed(bytes(33), bytes(32), None, None), OLD)
    sites.turn()
    sites.stop("c1")
    sites.start("c1")
    sites.until(lambda: set(CLIENTS) <= joined(sites))
    for name in CLIENTS:
        assert any("a letter was refused" in told for told in sites.told[name])


def test_a_party_without_a_role_in_the_protocol_enrols_in_nothing(tmp_path: Path) -> None:
    """The invitations' nonce lies in the folder; its hello once ended the run."""
    sites = Sites(tmp_path, Additive(), CLIENTS)
    make_identity("lab", "key_holder", tmp_path / "lab")
    for name in sites.roles:
        merge(tmp_path / name / "roster.json", [public_path(tmp_path / "lab", "lab")])
        sites.start(name)
    lab = load_identity(identity_path(tmp_path / "lab", "lab"))
    sites.turn()
    convening = sites.conventions["collector"].convening
    nonce = convening.convener.nonce
    hello = Hello(nonce, lab.enrol("key_holder", nonce).member)
    letters = FolderMailroom(tmp_path / "post").letters()
    letters.send("collector", write(convening._run, lab, "collector", hello))
    sites.run()
    assert any("'lab' was not invited" in told for told in sites.told["collector"])
    assert_exact(sites)


@pytest.mark.parametrize("bound", [0, 2**29 + 1, 2**63 - 1])
def test_a_client_that_declares_a_bound_out_of_range_is_left_out(
    bound: int, tmp_path: Path
) -> None:
    sites = started(tmp_path)
    sites.parties["c0"].participant._bound = bound
    sites.until(lambda: sites.conventions["collector"].convening.finished)
    said = f"'c0' declares a bound of {bound} rows, allowed: 1..{2**29}"
    assert any(said in told for told in sites.told["collector"])
    assert "without c0, who did not enrol" in sites.told["collector"]
    report = sites.conventions["collector"].report(sites.conventions["collector"].model())
    assert report.included == ("c1", "c2", "c3")


def test_bounds_that_no_number_holds_together_end_the_run_in_words(tmp_path: Path) -> None:
    """Their sum is beyond 64 bits; the convener's process once died of it, whenever started."""
    sites = started(tmp_path, method="logistic")
    for name in ("c0", "c1", "c2"):
        sites.parties[name].participant._bound = 2**63 - 1
    sites.until(lambda: sites.conventions["collector"].convening.finished)
    assert "without c0, c1, c2, who did not enrol" in sites.told["collector"]
    assert "minimum cohort" in sites.conventions["collector"].convening.problem


def test_two_sessions_of_one_nonce_get_one_party(tmp_path: Path) -> None:
    sites = started(tmp_path)
    sites.until(lambda: "c0" in joined(sites))
    convener = sites.conventions["collector"].convening.convener
    members = [member for member in convener.members.values() if member.name != "c3"]
    other = convener.server.form(members, convener.nonce, 3, 0)
    assert other is not None
    with pytest.raises(InvalidSession):
        sites.parties["c0"].participant.join(other, convener.server.opening)
    sites.run()
    assert_exact(sites)
