"""Which sets of parties may be in exact sums, given those that were before.

Two totals, or two models, that differ by one party give that party away, and so do linear
combinations of several: {A, B, C}, {A, D, E} and {B, C, D, E} differ pairwise by three parties or
more, and the first plus the second less the third is twice A. Parties that were together in every
total, or absent from it, cannot be told apart by any combination: a combination is a sum over such
groups with a factor each. If every group has the minimum cohort, so has whatever can be computed.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence

from secure_afl.errors import LedgerRefusal


def groups_of(totals: Sequence[Collection[str]]) -> list[frozenset[str]]:
    """Group the parties of all totals by the totals that they are in; largest group last."""
    histories: dict[tuple[bool, ...], set[str]] = defaultdict(set)
    for party in set().union(*totals):
        histories[tuple(party in total for total in totals)].add(party)
    return sorted(
        (frozenset(group) for group in histories.values()), key=lambda g: (len(g), sorted(g))
    )


def check_presence(
    released: Sequence[Collection[str]], proposed: Collection[str], cohort: int
) -> None:
    """Refuse a total that, with those released before, would single out fewer than the cohort.

    Args:
        released: the parties in every total ever released, and in every model.
        proposed: those in the total that is to be.
        cohort: the least number of parties of equal history, ≥ 2.

    Raises:
        LedgerRefusal: naming the group, and how many parties would have to change with it.
    """
    if any(frozenset(total) == frozenset(proposed) for total in released):
        raise LedgerRefusal("the same parties are in a total that is out; nothing would change")
    group = groups_of([*released, proposed])[0]
    if len(group) < cohort:
        named = ", ".join(f"'{name}'" for name in sorted(group))
        raise LedgerRefusal(
            f"{named}: with the totals that are out, this one would tell the statistics of "
            f"{len(group)} parties alone; allowed: groups of equal history of at least {cohort}. "
            "Let more parties join or leave together, or release with noise (--epsilon)"
        )
