"""The rows that a run's report is made of."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.scales import rescaled
from secure_afl.methods.method import AnyMethod, Task


class RunRows(NamedTuple):
    """Rows of the clients in the model's last sum, and of those that score it.

    All are on the scale that was learned: ranges may have been found on the way.

    Attributes:
        included: what the model was learned from, by client.
        counted: what clients kept out of it for its figures, by client.
        held_out: what personal models are scored on: holdouts of the caller's, else what clients
            of `included` kept out.
        test: what the global model is scored on.
    """

    included: Sequence[ClientData]
    counted: Sequence[ClientData]
    held_out: Sequence[ClientData]
    test: ClientData | None

    @classmethod
    def of(
        cls,
        method: AnyMethod,
        task: Task,
        learned: Task,
        summed: Sequence[ClientData],
        test: ClientData | None,
        holdout: Sequence[ClientData],
    ) -> Self:
        """Split the rows of a run.

        Args:
            method: says which rows are of the model.
            task, learned: the run's, as planned and with all ranges.
            summed: the clients in the last sum, with all their rows as they came.
            test, holdout: as given to the run.
        """

        def ready(data: ClientData) -> ClientData:
            return rescaled(task.columns, learned.columns, data)

        prepared = [ready(data) for data in summed]
        trained = (method.trained(task, data) for data in prepared)
        included = [data for data in trained if data is not None]
        every = (method.kept(task, data) for data in prepared)
        counted = [rows for rows in every if rows is not None]
        held_out = [ready(data) for data in holdout]
        if not held_out:
            there = {data.name for data in included}
            held_out = [rows for rows in counted if rows.name in there]
        return cls(included, counted, held_out, None if test is None else ready(test))
