"""What docs/data-protection.md and docs/tables.md say of ε and of two exact sums is so."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.stats import norm

from protocols import Plain
from secure_afl import frame_rows, table_federation
from secure_afl.analytic.regression_sums import RegressionSums
from secure_afl.data.tables.design import read_design
from secure_afl.methods.regression import Regression
from secure_afl.methods.regression_fit import Units
from secure_afl.privacy.accounting import mu_of
from secure_afl.privacy.mechanism import Privacy
from tools.documents import ROOT

TEXT = (ROOT / "docs" / "data-protection.md").read_text(encoding="utf-8")
DELTA = 1e-5


@pytest.mark.parametrize(
    ("epsilon", "words"),
    [
        (1.0, "at most {promised:.0f} right guesses in 100, and the noise as it is drawn {drawn}."),
        (
            8.0,
            "{promised:.2f}, which is hardly a promise. The noise as it is drawn allows {drawn}.",
        ),
    ],
)
def test_right_guesses_follow_from_the_promise_and_from_the_noise(
    epsilon: float, words: str
) -> None:
    # Of two equally likely worlds: (ε, δ) bounds the sum of both error rates from below, and the
    # best test between two normal distributions that are μ apart is right with Φ(μ/2).
    promised = 100 * (math.exp(epsilon) + DELTA) / (math.exp(epsilon) + 1)
    drawn = 100 * float(norm.cdf(mu_of(epsilon, DELTA) / 2))
    (line,) = [line for line in TEXT.splitlines() if line.startswith(f"- **ε = {epsilon:.0f}:**")]
    assert words.format(promised=promised, drawn=f"{drawn:.0f}") in line
    assert drawn < promised


def test_the_default_of_delta_is_the_one_that_the_page_names() -> None:
    assert Privacy(epsilon=1.0).delta == DELTA
    assert "δ is 10⁻⁵ by default" in TEXT


def sums(folder: Path, formula: str) -> tuple[int, float, float]:
    """Return what the receiver of an exact sum reads off it: rows, and sums of bmi and target."""
    pandas = pytest.importorskip("pandas", reason="needs the extra 'tables'")
    design = read_design(folder / "dictionary.toml", target="progression", formula=formula)
    clients = []
    for file in sorted((folder / "sites").glob("*.csv")):
        frame = pandas.read_csv(file, dtype=str, keep_default_na=False)
        clients.append(frame_rows(file.stem, frame, design))
    result = table_federation(design, Regression(), Plain()).run(clients, classes=design.classes)
    last, task = result.rounds[-1], result.public.task
    found = RegressionSums.unpack(last.released.total, last.session.layout)
    units = Units.of(task.columns, task.feature_dim, task.quantiser)
    return (
        found.rows,
        float(found.sums[0] * units.steps[0] + found.rows * units.centres[0]),
        found.target_sum * units.target_step + found.rows * units.target_centre,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_exact_runs_on_unlike_columns_show_the_patient_whom_one_of_them_left_out(
    tmp_path: Path,
) -> None:
    subprocess.run(
        [sys.executable, ROOT / "examples" / "write_tables.py"], cwd=tmp_path, check=True
    )
    west = (tmp_path / "sites" / "west.csv").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in west if "NA" in line]
    fewer, more = sums(tmp_path, "bmi + pressure"), sums(tmp_path, "bmi")
    assert (fewer[0], more[0]) == (389, 390)
    assert line.split(",")[3] == f"{more[1] - fewer[1]:.1f}" == "27.5"
    assert float(line.split(",")[6]) == round(more[2] - fewer[2]) == 144
    text = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert "has this patient's bmi, 27.5, and progression, 144." in text
