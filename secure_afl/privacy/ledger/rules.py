"""What a ledger refuses: the arithmetic of budgets, and the rule of exact sums."""

import math
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from secure_afl.privacy.accounting import compose, delta_of, distance_delta, epsilon_of, mu_of
from secure_afl.privacy.ledger.book import Book, Budget, Entry, RunSpent

# Of the search for an ε: by how much more than the least it may be, and how long it may take.
_MARGIN = 1 + 1e-6
_STEPS = 200


def problem_of(new: Entry, earlier: Sequence[Entry], budget: Budget | None) -> str:
    """Say why a release may not be made; empty if it may.

    Args:
        new: the release.
        earlier: those about the same data that count.
        budget: None where there is none.
    """
    same_run = [entry for entry in earlier if entry.run == new.run]
    declared = min((entry.rounds for entry in same_run), default=new.rounds)
    if new.rounds > declared:
        return f"the run declares {new.rounds} rounds, and had declared {declared}"
    if rounds_used([*same_run, new]) > new.rounds:
        return f"the run declares {new.rounds} rounds, and has had {rounds_used(same_run)}"
    if budget is None:
        if new.mu is None and any(e.mu is None and e.run != new.run for e in earlier):
            return (
                "another run had an exact release, and two exact sums show who is in one of them "
                "alone, here or at another site"
            )
        return ""
    if new.mu is None:
        return "an exact release spends an infinite epsilon, and there is a budget"
    if (new.unit, new.neighbours) != (budget.unit, budget.neighbours):
        return f"privacy of {new.unit}, {new.neighbours} does not add up with the budget's kind"
    if not affordable([*earlier, new], budget):
        return "the release would exceed the budget"
    return ""


def remedy_of(new: Entry, budget: Budget | None) -> str:
    """Say what to ask for in place of a release that is refused."""
    if new.mu is None:
        one = "Ask everything of one exact sum" if budget is None else "Ask for no exact sum"
        return f"{one}, take noise (--epsilon)"
    if budget is not None and (new.unit, new.neighbours) != (budget.unit, budget.neighbours):
        return f"Ask for privacy of the budget's kind, {budget.unit} and {budget.neighbours}"
    return "Ask for a release with more noise or fewer rounds"


def rounds_used(entries: Iterable[Entry]) -> int:
    """Count the rounds of a run.

    A session of several lineages is one round; a lineage whose party was started twice in it has
    had two.
    """
    return sum(max(map(len, session)) for session in _sessions(entries))


def affordable(entries: Sequence[Entry], budget: Budget) -> bool:
    """Say whether all releases together keep to the budget."""
    mu, distance = _composed(entries, budget)
    delta = budget.delta - distance_delta(budget.epsilon, distance)
    # By δ at the budget's ε: noise that was made for this very budget passes by its own margin.
    if delta > 0 and delta_of(budget.epsilon, mu) <= delta:
        return True
    return _least_epsilon(mu, distance, budget.delta) <= budget.epsilon


def epsilon_spent(entries: Sequence[Entry], budget: Budget | None) -> float | None:
    """Return ε of all releases together at the budget's δ; None without a budget."""
    if budget is None:
        return None
    return _least_epsilon(*_composed(entries, budget), budget.delta)


def mu_spent(entries: Sequence[Entry]) -> float | None:
    """Return μ of all releases together, 0 for none; None if one of them is exact.

    Lineages that share a row and are in one session both put it into one sum, under one noise:
    their μ add up there.
    """
    if any(entry.mu is None for entry in entries):
        return None
    return compose(
        math.fsum(compose(entry.mu or 0.0 for entry in own) for own in session)
        for session in _sessions(entries)
    )


def runs_of(book: Book, lineage: str, budget: Budget | None) -> tuple[RunSpent, ...]:
    """Sum up what each run released about a lineage, oldest run first."""
    group = book.group(lineage)
    places: dict[str, list[int]] = {}
    for place, entry in enumerate(book.entries):
        if entry.lineage == lineage:
            places.setdefault(entry.run, []).append(place)
    found = []
    for run, own in places.items():
        entries = [book.entries[place] for place in own]
        counting = [entry for entry in entries if entry.counts]
        counted = {entry.session for entry in counting}
        up_to = replace(book, entries=book.entries[: own[-1] + 1])
        found.append(
            RunSpent(
                run,
                rounds_used(counting),
                entries[-1].rounds,
                tuple(dict.fromkeys(entry.session for entry in entries)),
                tuple(dict.fromkeys(e.session for e in entries if e.session not in counted)),
                mu_spent(counting),
                epsilon_spent(up_to.counting(group), budget),
                entries[-1].when,
                entries[-1].mechanism,
            )
        )
    return tuple(found)


def left(entries: Sequence[Entry], budget: Budget | None) -> str:
    """Say in words what a budget leaves."""
    if budget is None:
        return "there is no budget"
    if not affordable(entries, budget):
        return "nothing"
    mu, distance = _composed(entries, budget)
    # The largest ε at which the distance takes half of δ at most.
    epsilon = budget.epsilon
    if distance > 0:
        epsilon = min(epsilon, math.log(max(budget.delta / (2 * distance) - 1, 1.0)))
    delta = budget.delta - distance_delta(epsilon, distance)
    least = math.sqrt(max(mu_of(epsilon, delta) ** 2 - mu**2, 0.0)) if delta > 0 else 0.0
    return f"releases of {in_words(least, budget, '≤')} together"


def in_words(mu: float, budget: Budget | None, sign: str = "=") -> str:
    """Say how much a release of this μ tells: as ε at the budget's δ, and as μ."""
    if budget is None:
        return f"mu {sign} {mu:.4g}"
    epsilon = epsilon_of(budget.delta, mu)
    return f"epsilon {sign} {epsilon:.4g} at delta {budget.delta:g} (mu {sign} {mu:.4g})"


def _composed(entries: Sequence[Entry], budget: Budget) -> tuple[float, float]:
    """Return μ of all entries together, and their distances.

    μ is infinite where the entries do not compose.
    """
    kinds = {(entry.unit, entry.neighbours) for entry in entries}
    mu = mu_spent(entries) if kinds <= {(budget.unit, budget.neighbours)} else None
    distance = math.fsum(entry.distance for entry in entries)
    return math.inf if mu is None else mu, distance


def _sessions(entries: Iterable[Entry]) -> list[list[list[Entry]]]:
    """Sort entries by session, and within a session by lineage."""
    sessions: dict[str, dict[str, list[Entry]]] = {}
    for entry in entries:
        sessions.setdefault(entry.session, {}).setdefault(entry.lineage, []).append(entry)
    return [list(session.values()) for session in sessions.values()]


def _least_epsilon(mu: float, distance: float, delta: float) -> float:
    """Return an ε that holds at this δ, near the least; infinite if the distance leaves none.

    The distance costs more of δ the larger ε is. Each ε on the way is what the one before left of
    δ gives: they rise to the least, and the first that holds with a margin is taken.
    """
    epsilon = epsilon_of(delta, mu)
    if distance == 0:
        return epsilon
    for _ in range(_STEPS):
        if not math.isfinite(epsilon):
            break
        enough = epsilon * _MARGIN
        if delta_of(enough, mu) + distance_delta(enough, distance) <= delta:
            return enough
        epsilon = epsilon_of(max(delta - distance_delta(epsilon, distance), 0.0), mu)
    return math.inf
