"""A whole run on record, and what one party or coalition had of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from attacks.views.view import View
from protocols.protocol import Protocol
from secure_afl.errors import ConfigError
from secure_afl.federation.report import HeadReport
from secure_afl.federation.result import Result
from secure_afl.methods import AnyMethod, PublicState
from secure_afl.methods.model import Model


@dataclass(frozen=True, repr=False)
class RunView:
    """All that a coalition had of a run; an outsider is a coalition of nobody.

    Attributes:
        method, protocol: which everybody knows.
        coalition: names of its parties.
        rounds: its view of every session, in order; `released` where one of them received the sum.
        publics: the public states before each round and after the last; empty for outsiders.
        model: the global model.
        ridge: its λ, where its head is a ridge; everybody knows it.
        head: what its report says of the head of the method, likewise; None without one.
    """

    method: AnyMethod
    protocol: Protocol
    coalition: tuple[str, ...]
    rounds: tuple[View, ...]
    publics: tuple[PublicState, ...]
    model: Model
    ridge: float | None
    head: HeadReport | None = None

    def __repr__(self) -> str:
        return f"<RunView of {', '.join(self.coalition) or 'an outsider'}>"


@dataclass(frozen=True, repr=False)
class Record:
    """A run with all its transcripts, which no party has.

    Views are cut from it.
    """

    method: AnyMethod
    protocol: Protocol
    result: Result

    def view(self, coalition: Iterable[str]) -> RunView:
        """Cut out what the named parties had together.

        Raises:
            ConfigError: the run kept no transcripts, or had no such party.
        """
        names = tuple(coalition)
        rounds = []
        for round_ in self.result.rounds:
            if round_.transcript is None:
                raise ConfigError("the run kept no transcripts; pass record=True")
            if unknown := set(names) - set(round_.transcript):
                raise ConfigError(f"the run had no party '{min(unknown)}'")
            receives = any(name in round_.receivers for name in names)
            rounds.append(
                View.cut(
                    round_.session,
                    round_.transcript,
                    names,
                    round_.released if receives else None,
                )
            )
        states = [round_.public for round_ in self.result.rounds] + [self.result.public]
        return RunView(
            self.method,
            self.protocol,
            names,
            tuple(rounds),
            tuple(states) if names else (),
            self.result.model,
            self.result.report.ridge,
            self.result.report.head,
        )

    def __repr__(self) -> str:
        return f"<Record of {len(self.result.rounds)} rounds>"
