"""Hidden groups of clients: which one a client picks, and how small ones are joined.

A client fills the block of its group in a vector that has a block for each. Nobody else learns
which: every vector is as long, and only sums come out.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from protocols.codec import encode
from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.heads.head import Fitted
from secure_afl.analytic.priors import Prior, settle_prior
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError

MAX_GROUPS = 64
COUNTS = "group_clients"

# Class shares of each group, as sorted pairs.
Profiles = tuple[tuple[tuple[str, float], ...], ...]


def settle_profiles(profiles: Sequence[Prior | Mapping[str, float]]) -> Profiles:
    """Return profiles in their canonical form.

    Raises:
        ConfigError: fewer than two or too many, words, or numbers that are no shares.
    """
    found = [settle_prior(profile) for profile in profiles]
    if not 2 <= len(found) <= MAX_GROUPS or any(isinstance(profile, str) for profile in found):
        raise ConfigError(
            f"{len(found)} profiles; allowed: 2 to {MAX_GROUPS}, each a share for every class"
        )
    return tuple(profile for profile in found if not isinstance(profile, str))


def read_profiles(path: Path) -> Profiles:
    """Read profiles from a JSON file [{"class": share, …}, …].

    Raises:
        ConfigError: no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
            raise ValueError("no list of objects")
        return settle_profiles(content)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f'profiles {str(path)!r} are no readable JSON file [{{"class": share, …}}, …]: {error}'
        ) from None


def nearest_profile(profiles: Profiles, classes: Sequence[str], labels: Integers) -> int:
    """Return which profile the class shares of these labels are nearest to; of equals the first."""
    counts = np.bincount(labels, minlength=len(classes))
    own = counts / counts.sum()
    shares = np.array([[dict(profile)[name] for name in classes] for profile in profiles])
    shares /= shares.sum(axis=1, keepdims=True)
    return int(np.square(shares - own).sum(axis=1).argmin())


def drawn_group(seed: int, data: ClientData, groups: int) -> int:
    """Draw a client's first group from its rows, alike whenever it is asked for."""
    hashed = hashlib.sha256(encode(("first group", seed, data.name)))
    hashed.update(np.ascontiguousarray(data.labels).tobytes())
    hashed.update(np.ascontiguousarray(data.features).tobytes())
    return int.from_bytes(hashed.digest()[:8], "big") % groups


def fitting_group(fitted: Sequence[Fitted], rows: Floats, targets: Floats) -> int:
    """Return which group's classifier has the least squared error on rows; of equals the first.

    Args:
        fitted: of each group, by ridge.
        rows: (n, d) of norm ≤ 1.
        targets: one-hot labels, (n, C).
    """
    errors = [np.square(targets - rows @ group.weights).sum() for group in fitted]
    return int(np.argmin(errors))


def joined(counts: Integers, least: int) -> tuple[int, ...]:
    """Join groups until each has enough clients: the smallest with the next, again and again.

    Args:
        counts: clients of each group, (Γ,).
        least: clients of a group.

    Returns:
        For each of the Γ groups which of those that are left it belongs to, from 0.
    """
    members = [[place] for place in range(len(counts))]

    def size(group: list[int]) -> tuple[int, int]:
        return int(counts[group].sum()), group[0]

    while len(members) > 1:
        smallest, following = sorted(members, key=size)[:2]
        if size(smallest)[0] >= least:
            break
        members = [group for group in members if group not in (smallest, following)]
        members.append(sorted(smallest + following))
    members.sort()
    return tuple(
        next(place for place, group in enumerate(members) if old in group)
        for old in range(len(counts))
    )


def counts_layout(groups: int, clients: int) -> Layout:
    """Lay out how many clients each group has."""
    return Layout((Block(COUNTS, groups, 0, clients, 1.0, 0, 1),))


def repeated(layout: Layout, groups: int) -> Layout:
    """Lay out a vector for each group, one behind the other."""
    blocks: list[Block] = []
    for group in range(groups):
        for block in layout.blocks:
            blocks.append(replace(block, name=f"group_{group}_{block.name}"))
    return Layout(tuple(blocks))


def placed(vector: Integers, group: int, groups: int) -> Integers:
    """Put a vector into its group's place among zeros."""
    whole = np.zeros((groups, len(vector)), dtype=np.int64)
    whole[group] = vector
    return whole.ravel()
