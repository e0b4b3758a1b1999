"""What units cost: example, patient, client.

    SECURE_AFL_DATA=… python -m benchmarks.patients

*signs*: sixteen sites of hand signs as they are, MobileNet at 128 pixels, a person's ten signs by
the name of the file; test rows are of people at no site. *digits*: scikit-learn's at ten clients,
dealt to made-up patients of one to ten rows. Real runs over `additive` of AFL and private-gradient
by their defaults under noise, add-remove, δ = 1e-5; seeds are of projection, noise differs by
itself. "as most rows" is unit example whose μ is a tenth, which protects ten rows, too, without
weights. Bounds are declared once, on rows or on patients. Nothing was chosen here while looking at
test rows; private-gradient's constants were, for unit example, on both of these sets.
"""

from collections.abc import Mapping
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.record import data_folder, write
from secure_afl.analytic.patients import PatientGroups
from secure_afl.analytic.rows import ClientData
from secure_afl.privacy import accounting
from secure_afl.runs.choose import make_terms
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import Prepared, prepare
from secure_afl.runs.run import federate

SEEDS, EPSILONS, DRAWS = 10, (1.0, 8.0), 2_000
METHODS = ("afl", "private-gradient")
MOST_ROWS = 10
AS_MOST = "as most rows"


def main() -> None:
    """Measure all units and write `results/patients.json`."""
    figures = {
        "signs": case(*signs(), rows=128, patients=16),
        "digits": case(*digits(), rows=256, patients=32),
    }
    what = (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip()
    write("patients", {"what": what, "seeds": SEEDS, "cases": figures})


def signs() -> tuple[RunConfig, Prepared]:
    """Hand signs by person."""
    folder = data_folder()
    config = RunConfig(
        clients=str(folder / "sign_digits" / "train" / "site_*"),
        test=str(folder / "sign_digits" / "test"),
        id="{id}_*",
        backbone="timm:mobilenetv1_100,pad_type=same",
        checkpoint=str(folder / "backbones" / "mobilenetv1_100.safetensors"),
        image_size=128,
    )
    return config, prepare(config, make_terms(config))


def digits() -> tuple[RunConfig, Prepared]:
    """Digits of made-up patients with one to ten rows."""
    config = RunConfig(backbone="projection:512", partition="iid:10")
    prepared = prepare(config, make_terms(config))
    rng = np.random.default_rng(0)

    def dealt(data: ClientData) -> ClientData:
        several = rng.integers(1, MOST_ROWS + 1, len(data))
        names = np.repeat(np.arange(len(data)), several)[: len(data)]
        return replace(data, patients=[str(name) for name in names])

    return config, replace(prepared, clients=[dealt(data) for data in prepared.clients])


def case(config: RunConfig, prepared: Prepared, rows: int, patients: int) -> dict[str, Any]:
    """Run every unit at every ε, under the bounds that every client declares."""
    groups = [PatientGroups.of(data.patients or ()) for data in prepared.clients]
    most = max(int(found.rows.max()) for found in groups)
    assert most == MOST_ROWS, "what the comparison without weights protects"
    return {
        "clients": len(groups),
        "rows": sum(len(data) for data in prepared.clients),
        "patients": sum(map(len, groups)),
        "most_rows": most,
        "declared": {"rows": rows, "patients": patients},
        "exact": measured(config, prepared),
        "methods": {
            method: {
                unit: {
                    f"{epsilon:g}": measured(config.replaced(method=method, **settings), prepared)
                    for epsilon, settings in by.items()
                }
                for unit, by in variants(config.delta, rows, patients).items()
            }
            for method in METHODS
        },
    }


def variants(delta: float, rows: int, patients: int) -> Mapping[str, Mapping[float, Any]]:
    """Settings of every unit, by ε."""
    tenth = {
        e: accounting.epsilon_of(delta, accounting.mu_of(e, delta) / MOST_ROWS) for e in EPSILONS
    }
    return {
        "example": {e: {"epsilon": e, "max_rows": rows} for e in EPSILONS},
        "patient": {e: {"epsilon": e, "unit": "patient", "max_rows": patients} for e in EPSILONS},
        AS_MOST: {e: {"epsilon": tenth[e], "max_rows": rows} for e in EPSILONS},
        "client": {e: {"epsilon": e, "unit": "client", "max_rows": rows} for e in EPSILONS},
    }


def measured(config: RunConfig, prepared: Prepared) -> dict[str, Any]:
    """Run a setting with all seeds: accuracy, and how much it turns on noise and on test people."""
    assert prepared.test is not None
    hits, dims = [], set()
    for seed in range(1 if config.epsilon is None else SEEDS):
        config = config.replaced(seed=seed)
        result = federate(config, make_terms(config), prepared)
        assert result.report.exact, "the sum is that of the weighted integers and the noise"
        dims.add(result.report.feature_dim)
        hits.append(result.model.predict(prepared.test.features) == prepared.test.labels)
    runs = [float(found.mean()) for found in hits]
    print(config.method, config.unit, config.epsilon, mean(runs), flush=True)
    return {
        "accuracy": mean(runs),
        "deviation_of_runs": stdev(runs) if len(runs) > 1 else None,
        "error_of_test_people": _error(np.mean(hits, axis=0), prepared.test),
        "dimensions": sorted(dims),
        "runs": runs,
    }


def _error(hits: Any, test: ClientData) -> float:
    """Standard error of an accuracy over draws of the test set's people, or of its rows."""
    people = PatientGroups.of(test.patients or [""] * len(test))
    right, rng = people.sums(hits), np.random.default_rng(0)
    drawn = rng.integers(0, len(people), (DRAWS, len(people)))
    return float((right[drawn].sum(axis=1) / people.rows[drawn].sum(axis=1)).std())


if __name__ == "__main__":
    main()
