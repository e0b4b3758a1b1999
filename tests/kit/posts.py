"""A post that does everything that posts do, by a seed."""

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Weather:
    """How bad a post is: shares of mail that it loses, repeats and delays, and when it forgets.

    Attributes:
        lose, repeat, delay: chances of each piece of mail.
        slow: turns that a delayed piece takes at most.
        forget: turns at which all that is under way is lost.
    """

    lose: float = 0.0
    repeat: float = 0.0
    delay: float = 0.0
    slow: int = 1
    forget: frozenset[int] = frozenset()

    @classmethod
    def drawn(cls, rng: random.Random) -> "Weather":
        """Any weather, from calm to foul."""
        bad = rng.choice((0.0, 0.1, 0.3, 0.6))
        return cls(
            lose=rng.random() * bad,
            repeat=rng.random() * bad,
            delay=rng.random() * bad,
            slow=rng.randrange(1, 12),
            forget=frozenset(rng.randrange(40) for _ in range(rng.randrange(3))),
        )


class FoulPost:
    """Loses, repeats, reorders, delays and forgets."""

    def __init__(self, weather: Weather, rng: random.Random) -> None:
        self.turn = 0
        self._weather = weather
        self._rng = rng
        self._mail: list[tuple[int, str, bytes]] = []

    def send(self, recipient: str, mail: bytes) -> None:
        weather, rng = self._weather, self._rng
        for _ in range(2 if rng.random() < weather.repeat else 1):
            if rng.random() < weather.lose:
                continue
            late = rng.randrange(1, weather.slow + 1) if rng.random() < weather.delay else 0
            self._mail.append((self.turn + late, recipient, mail))

    def collect(self, names: Collection[str]) -> Iterable[tuple[str, bytes]]:
        for name in tuple(names):
            here = [m for m in self._mail if m[1] == name and m[0] <= self.turn]
            self._mail = [m for m in self._mail if m[1] != name or m[0] > self.turn]
            self._rng.shuffle(here)
            for _, _, data in here:
                yield name, data

    def pass_time(self) -> None:
        self.turn += 1
        if self.turn in self._weather.forget:
            self._mail.clear()
