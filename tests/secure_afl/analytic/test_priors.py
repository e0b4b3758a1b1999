from pathlib import Path

import numpy as np
import pytest

from secure_afl.analytic.priors import prior_shares, read_prior, settle_prior
from secure_afl.errors import ConfigError

OBSERVED = np.array([0.5, 0.3, 0.2])
CLASSES = ("cat", "dog", "newt")


def test_priors_are_words_or_shares_by_class() -> None:
    assert np.array_equal(prior_shares("observed", CLASSES, OBSERVED), OBSERVED)
    assert np.array_equal(prior_shares("uniform", CLASSES, OBSERVED), np.full(3, 1 / 3))
    shares = settle_prior({"newt": 2, "cat": 1, "dog": 1})
    assert shares == (("cat", 1.0), ("dog", 1.0), ("newt", 2.0))
    np.testing.assert_allclose(prior_shares(shares, CLASSES, OBSERVED), [0.25, 0.25, 0.5])


@pytest.mark.parametrize(
    "prior", ["even", {}, {"cat": -1}, {"cat": float("nan")}, {"cat": 0.0}, {"cat": float("inf")}]
)
def test_what_is_no_prior_is_refused(prior: object) -> None:
    with pytest.raises(ConfigError, match="prior"):
        settle_prior(prior)  # type: ignore[arg-type]


@pytest.mark.parametrize("shares", [{"cat": 1, "dog": 1}, {"cat": 1, "dog": 1, "newt": 1, "ox": 1}])
def test_a_prior_has_a_share_for_each_class(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"share for (class )?'?.*(newt|ox)"):
        prior_shares(settle_prior(shares), CLASSES, OBSERVED)


def test_a_prior_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prior.json"
    file.write_text('{"cat": 0.2, "dog": 0.3, "newt": 0.5}', encoding="utf-8")
    assert read_prior(str(file)) == (("cat", 0.2), ("dog", 0.3), ("newt", 0.5))
    assert read_prior("uniform") == "uniform"
    for text in ("[1, 2]", "{", '{"cat": "much"}', '{"cat": true}'):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match="neither observed nor uniform nor a readable JSON"):
            read_prior(str(file))
    with pytest.raises(ConfigError, match="nothing"):
        read_prior(str(tmp_path / "nothing.json"))
