"""Several clients' data side by side, where one place has all of them anyway.

Between machines nothing of this is done: the fingerprint of an image is a test of membership.
"""

from collections.abc import Sequence

import numpy as np

from secure_afl.data.account import Finding, Rank, Read, ranked
from secure_afl.data.classes import similar
from secure_afl.data.dataset import Dataset


def compare(reads: Sequence[Read], meant: frozenset[str]) -> tuple[Finding, ...]:
    """List what looks wrong between clients: shared rows, and classes that do not fit together.

    Args:
        reads: of the clients, on one list of classes.
        meant: class names that a mapping file gives.
    """
    datasets = [found.dataset for found in reads]
    return ranked([*_shared(reads), *_classes(datasets, meant), *_shifted(datasets)])


def _shared(reads: Sequence[Read]) -> list[Finding]:
    """Find rows that several clients have."""
    datasets = [found.dataset for found in reads]
    names = [data.name for data in datasets]
    unique = [np.unique(found.prints) for found in reads]
    prints, counts = np.unique(np.concatenate(unique), return_counts=True)
    if (number := int((counts > 1).sum())) == 0:
        return []
    example = prints[counts > 1][0]
    having = [name for name, there in zip(names, unique, strict=True) if np.isin(example, there)]
    words = f"{number} rows are at several clients, as at {having[0]} and {having[1]}"
    # Two patients may well agree in a few columns.
    tables = all(data.origin is not None and data.origin.table for data in datasets)
    rank: Rank = "note" if tables else "doubtful"
    return [Finding(rank, words, number, "keep each at one client")]


def _classes(datasets: Sequence[Dataset], meant: frozenset[str]) -> list[Finding]:
    findings = []
    classes = datasets[0].classes
    there = set(np.concatenate([np.unique(data.labels) for data in datasets]).tolist())
    if nobody := [name for index, name in enumerate(classes) if index not in there]:
        words = f"nobody has a row of the class {nobody[0]!r}"
        if len(nobody) > 1:
            words += f", nor of {len(nobody) - 1} more"
        fix = "take it out of the names, or find its rows"
        findings.append(Finding("doubtful", words, len(nobody), fix))
    declared = {data.name: data.origin.classes for data in datasets if data.origin is not None}
    for name, other in similar(declared, meant)[:3]:
        words = f"the classes {name!r} and {other!r} are at different clients and look like one"
        fix = f'map one to the other (--mapping): [classes] "{other}" = "{name}"'
        findings.append(Finding("doubtful", words, 2, fix))
    return findings


def _shifted(datasets: Sequence[Dataset]) -> list[Finding]:
    """Find class numbers that count from 1 at one client and from 0 at another."""
    numbers = {
        data.name: sorted(int(source) for source in data.origin.sources)
        for data in datasets
        if data.origin is not None and not data.origin.named
    }
    from_zero = {tuple(there): name for name, there in numbers.items() if there[0] == 0}
    for name, there in numbers.items():
        other = from_zero.get(tuple(number - 1 for number in there))
        if there[0] == 1 and other is not None:
            words = (
                f"{name} has the labels 1..{there[-1]}, {other} 0..{there[-1] - 1}; do both count "
                "alike?"
            )
            fix = f"if {name} counts from 1, subtract 1 there"
            return [Finding("wrong", words, len(there), fix)]
    return []
