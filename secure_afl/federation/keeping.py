"""What a run keeps as it goes, so that another process can finish it from the sums that are out.

A simulation tells its keeper of every session before anything is charged or said, and of every sum
before anything is made of it. What is kept is secret: whoever has it has the sums, and may have the
parties' keys. A keeper writes nothing by itself; `secure_afl.runs.recovery` has one with files.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from protocols.codec import Digest, Secret, encode
from protocols.identity import Identity
from protocols.network import Network
from protocols.party import Sum
from protocols.release import Release
from protocols.session import Session
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import DataError
from secure_afl.federation.oracle import RecordingClient
from secure_afl.federation.result import Round
from secure_afl.federation.rounds.half import Half
from secure_afl.federation.server import FederationServer
from secure_afl.federation.task import Declared
from secure_afl.methods.method import Task

Identities = tuple[dict[str, Identity], dict[str, Identity]]


class Start(Secret, frozen=True):
    """The things that a run begins with.

    Attributes:
        declared: what its parties declare.
        task: the planned one; it has the run's id.
        clients, coordinators: the parties' names and identities, where the run made them; empty
            where they have keys of their own.
    """

    declared: Declared
    task: Task
    clients: tuple[tuple[str, bytes], ...] = ()
    coordinators: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def of(cls, declared: Declared, task: Task, made: Identities | None) -> Self:
        """Return what a run begins with; `made` are identities that nobody else has."""
        clients, coordinators = made if made is not None else ({}, {})
        return cls(declared, task, _saved(clients), _saved(coordinators))

    @property
    def identities(self) -> Identities | None:
        """The identities that the run made; None where its parties have their own."""
        if not self.clients:
            return None
        return _loaded(self.clients), _loaded(self.coordinators)

    def check(
        self, clients: Sequence[ClientData], classes: tuple[str, ...], backbone: bytes
    ) -> None:
        """Compare clients with those that the run began with, maybe in another process.

        Raises:
            DataError: other clients, classes, backbone, or another number of features.
        """
        began = self.declared.dim, self.declared.classes, [n for n, _ in self.declared.max_rows]
        here = clients[0].features.shape[1], classes, [data.name for data in clients]
        if here != began:
            raise DataError(
                f"the run began with {len(began[2])} clients, {began[0]} features a row and "
                f"{len(began[1])} classes; here are {len(here[2])}, {here[0]} and {len(here[1])}, "
                "or others by name. Restore the data as they were"
            )
        if backbone != self.declared.backbone:
            raise DataError(
                "features come from another backbone, or another reduction of its features, than "
                "those that the run began with. Restore the --checkpoint, the --public data or the "
                "versions of the packages"
            )


class KeptSum(Secret, frozen=True):
    """One sum that is out.

    Attributes:
        header: of its session, canonically encoded.
        released: the sum.
        release, salt: what its receiver signed, and what opens that; see `FederationServer.absorb`.
        noise: entropy of the noise that is added afterwards, 32 bytes: a sum gets one noise, ever.
        receivers, exact, sent_bytes, seconds: as in `Round`.
    """

    header: bytes
    released: Sum
    release: Release
    salt: Digest
    noise: Digest
    receivers: tuple[str, ...]
    exact: bool
    sent_bytes: tuple[tuple[str, int], ...]
    seconds: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, round_: Round, network: Network, noise: bytes) -> Self:
        """Return what is kept of a round."""
        return cls(
            encode(round_.session.header),
            round_.released,
            network.release,
            network.release_salt,
            noise,
            round_.receivers,
            round_.exact,
            tuple(round_.sent_bytes.items()),
            tuple(round_.seconds.items()),
        )


class Standing(Secret, frozen=True):
    """Where the parties stand after a sum.

    Attributes:
        roster: of all sessions of the run, canonically encoded.
        memories: each client's memory, by name.
        seconds: what each client has spent on its vectors, by name.
    """

    roster: bytes
    memories: tuple[tuple[str, tuple[tuple[str, np.ndarray[Any, Any]], ...]], ...]
    seconds: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, session: Session, members: Mapping[str, RecordingClient]) -> Self:
        """Return where the clients of a session stand."""
        return cls(
            session.thin,
            tuple((name, tuple(member.memory.items())) for name, member in members.items()),
            tuple((name, member.statistics_seconds) for name, member in members.items()),
        )


@dataclass(frozen=True, eq=False)
class Kept:
    """A run that another process began: the sums that are out, one at least, in order."""

    start: Start
    sums: Sequence[KeptSum]
    standing: Standing

    def __repr__(self) -> str:
        return f"<Kept: {len(self.sums)} sums>"

    def restore(
        self,
        server: FederationServer,
        members: Mapping[str, RecordingClient],
        coordinators: Iterable[Half],
    ) -> list[Round]:
        """Put newly made halves where those of the earlier process were; return its rounds.

        Raises:
            SecureAflError: as `FederationServer.absorb`.
        """
        rounds = []
        for kept in self.sums:
            before = server.public
            session = Session.read(kept.header, None, thin=self.standing.roster)
            for half in (*members.values(), *coordinators):
                half.stand(session, before)
            rounds.append(
                Round(
                    session,
                    before,
                    kept.released,
                    kept.receivers,
                    kept.exact,
                    dict(kept.sent_bytes),
                    dict(kept.seconds),
                    None,
                    {},
                )
            )
            server.absorb(session, kept.released, kept.release, kept.salt, kept.noise)
        for name, memory in self.standing.memories:
            members[name].memory = dict(memory)
        for name, seconds in self.standing.seconds:
            members[name].statistics_seconds = seconds
        return rounds


class Keeper(ABC):
    """Whoever keeps what a run cannot make again.

    Attributes:
        kept: of an earlier process of this run, in which a sum came out; None for a new run.
    """

    kept: Kept | None = None

    @abstractmethod
    def opening(self, start: Start, session: Session) -> None:
        """Note a session, before anything of it is charged or said.

        Raises:
            SecureAflError: it cannot be noted; then the session does not begin.
        """

    @abstractmethod
    def out(self, kept: KeptSum, standing: Standing) -> None:
        """Keep a sum, before anything is made of it.

        Raises:
            SecureAflError: it cannot be kept; the sum is dropped, and nobody has it.
        """


def _saved(identities: Mapping[str, Identity]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, identity.save()) for name, identity in identities.items())


def _loaded(saved: tuple[tuple[str, bytes], ...]) -> dict[str, Identity]:
    return {name: Identity.load(identity) for name, identity in saved}
