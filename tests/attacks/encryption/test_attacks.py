"""The attacks on encrypted sums in the suite: verified sums withstand them all."""

from pathlib import Path

import pytest

from attacks.attack import ATTACKS
from attacks.suite.cells import Cell
from attacks.suite.config import make_config
from attacks.suite.run import run

ALONE = ("relabelled-upload", "chosen-ciphertext", "key-recovery")
WITH_CLIENT = ("malicious-addend", "rushing-client")
SUITE = {
    "methods": "afl",
    "protocols": "ckks",
    "adversaries": "server,server-and-client,client",
    "attacks": ",".join((*ALONE, *WITH_CLIENT)),
    "rows": "16",
    "sweep": "none",
}
DATA = {"backbone": "identity", "partition": "iid:4"}


def cells(folder: Path, verify: bool) -> dict[tuple[str, str], Cell]:
    config = make_config({**DATA, "verify": verify}, SUITE)
    found = run(config, ATTACKS, folder).cells
    assert not [cell.error for cell in found if cell.error]
    return {(cell.attack, cell.adversary): cell for cell in found}


@pytest.mark.slow
@pytest.mark.parametrize("verify", [True, False])
def test_who_has_a_clients_vector_in_the_end(tmp_path: Path, verify: bool) -> None:
    found = cells(tmp_path, verify)
    succeed = set() if verify else {"relabelled-upload", "rushing-client"}
    for names, adversary in ((ALONE, "server"), (WITH_CLIENT, "server-and-client")):
        for name in names:
            cell = found[name, adversary]
            assert cell.claimed
            assert cell.measures[0].metric == "exact vector of a client"
            assert (cell.measures[0].value, cell.measures[0].trials) == (name in succeed, 1)
    for names, adversary in ((WITH_CLIENT, "server"), (ALONE, "server-and-client")):
        assert not any(found[name, adversary].claimed for name in names)
    assert not any(found[name, "client"].claimed for name in (*ALONE, *WITH_CLIENT))


@pytest.mark.slow
def test_noise_does_not_make_an_opened_upload_look_closed(tmp_path: Path) -> None:
    """The victim's vector has its own share of the noise alone, which no promise is about."""
    only = {**SUITE, "attacks": "relabelled-upload", "epsilons": "1", "adversaries": "server"}
    config = make_config({**DATA, "verify": False}, only)
    exact, noisy = run(config, ATTACKS, tmp_path).cells
    assert (exact.epsilon, noisy.epsilon) == (None, 1.0)
    for cell in (exact, noisy):
        assert (cell.measures[0].value, cell.mu, cell.error) == (1.0, None, None)
