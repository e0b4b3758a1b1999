"""The contract of a client's own model, and the way that makes none."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from protocols.registry import Registry
from secure_afl.analytic.heads.head import Fitted, Head
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.split import halves_by_patient
from secure_afl.analytic.statistics import Statistics
from secure_afl.methods.method import Own, Task
from secure_afl.methods.model import LinearModel

MAX_ALPHA = 1e12


@dataclass(frozen=True, eq=False)
class Personal(ABC):
    """A way to make a client's own model from what everybody has and from the client's rows.

    Attributes:
        name, summary: as on the command line, and for help texts.
        head: the head that it is of; None fits all.
        needs_statistics: clients are given the summed statistics.
        wants_ridge: clients are given a ridge classifier where the head is another.
        has_alpha: α weighs the client's own rows.
        chooses: it looks at half of the kept-out rows.
        candidate: `auto` may choose it.
        task, model: of the run; the model is the global one.
        ridge: the global ridge classifier, where the head is ridge or `wants_ridge`.
        summed: the summed statistics, where `needs_statistics`.
        alpha: α.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    head: ClassVar[type[Head] | None] = None
    needs_statistics: ClassVar[bool] = False
    wants_ridge: ClassVar[bool] = False
    has_alpha: ClassVar[bool] = False
    chooses: ClassVar[bool] = False
    candidate: ClassVar[bool] = False

    task: Task
    model: LinearModel
    ridge: Fitted
    summed: Statistics | None
    alpha: float

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    @abstractmethod
    def make(self, data: ClientData, kept: ClientData | None) -> Own:
        """Make the model.

        Args:
            data: the client's rows in the sum.
            kept: rows of the client that no model was made from, or none.

        Raises:
            ConfigError: a system that cannot be solved.
        """

    def own(self, model: LinearModel) -> Own:
        """Return a model as made in this way."""
        return Own(model, self.name)


PERSONAL: Registry[Personal] = Registry(
    "personal model", Personal, ("secure_afl.methods.personal",), "secure_afl.personal"
)


@PERSONAL.register
class Global(Personal):
    """The global model, for every client."""

    name = "none"
    summary = "the global model"
    candidate = True

    def make(self, data: ClientData, kept: ClientData | None) -> Own:
        """Return the global model."""
        return self.own(self.model)


def halves(kept: ClientData) -> tuple[ClientData, ClientData]:
    """Cut kept-out rows into a half to choose a model on, and a half to report it on.

    Places are shuffled once for all, so that a client that comes back cuts alike. Rows of one
    patient stay together.
    """
    if (people := kept.people) is not None:
        second, first = halves_by_patient(people)
        if len(first):
            return kept.take(first), kept.take(second)
    order = np.random.default_rng(len(kept)).permutation(len(kept))
    first, second = np.sort(order[: len(kept) // 2]), np.sort(order[len(kept) // 2 :])
    return kept.take(first), kept.take(second)
