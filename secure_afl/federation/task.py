"""The task of a federation, planned from declarations: bounds, bits, cohort and noise."""

from collections.abc import Sequence

from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.privacy.mechanism import Privacy

# Fewer bits than this cost accuracy, which a wider ring does not.
LEAST_DEFAULT_BITS = 8


def majority(clients: int) -> int:
    """The default minimum cohort: more than half, and two at least."""
    return max(2, clients // 2 + 1)


def declared_rows(
    clients: Sequence[ClientData], max_rows: int | None, privacy: Privacy | None
) -> list[int]:
    """The public bound that each client declares on its rows.

    Raises:
        ConfigError: a bound below 1, or none where the number of rows is private.
    """
    if max_rows is not None:
        if max_rows < 1:
            raise ConfigError(f"max_rows is {max_rows}, allowed: ≥ 1; pass a larger --max-rows")
        return [int(max_rows)] * len(clients)
    if privacy is not None and not privacy.rows_are_public:
        raise ConfigError(
            "no public bound on a client's rows, whose number privacy hides (unit "
            f"{privacy.unit}, {privacy.neighbours}); pass --max-rows"
        )
    return [1 << (len(data) - 1).bit_length() for data in clients]


def default_cohort(clients: int, privacy: Privacy | None) -> int:
    """A majority; of noise shares nine tenths, for every one that may be missing costs accuracy."""
    if privacy is None or privacy.placement == "central":
        return majority(clients)
    return max(2, clients - clients // 10)
