"""What noise costs a client, how much of it there is, and what an audit can show.

    python -m benchmarks.privacy

Noise is measured in real sums: with everybody there, and with all drop-outs and colluders that are
promised. Audits run the whole pipeline, in the worst promised case, and with broken mechanisms.
"""

import numpy as np

from benchmarks.record import seconds, write
from protocols.schemes.additive.protocol import Additive
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import statistics_layout
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL
from secure_afl.privacy.mechanism import Mechanism, NoisySum, Privacy
from secure_afl.privacy.sensitivity import statistics_sensitivity
from secure_afl.tuning.audit import audit
from tests.secure_afl.tuning.test_audit import (
    THREE,
    HalvedNoise,
    OneWithout,
    WrongRelation,
    skip_clip,
)

CLIENTS, DROPOUTS, COLLUDERS = 10, 2, 2
AUDIT_TESTS = {1.0: 800_000, 2.0: 200_000, 4.0: 100_000}


def main() -> None:
    """Measure and write `results/privacy.json`."""
    write(
        "privacy",
        {
            "client_noise": noise_cost(),
            "variance": {
                "clients": CLIENTS,
                "dropouts": DROPOUTS,
                "colluders": COLLUDERS,
                "nobody_fails": variance([], 0),
                "worst_promised": variance(["c8", "c9"], COLLUDERS),
            },
            "audits": [
                one_audit(epsilon, neighbours)
                for neighbours in ("add-remove", "replace-one")
                for epsilon in AUDIT_TESTS
            ],
            "mutations": mutations(),
        },
    )


def noise_cost() -> dict[str, float]:
    """Seconds a million entries, for one share of the noise at d = 1024, C = 10."""
    quantiser = Quantiser(12)
    layout = statistics_layout(1024, 10, quantiser, 10_000, counts=False)
    sensitivity = statistics_sensitivity(quantiser.scale, "example", "add-remove", 1000, 0.8)
    noisy = NoisySum(Mechanism(Privacy(1.0), 1, 10, 1, 1), layout, sensitivity).calibrated()
    taken = min(seconds(lambda: noisy.share(bytes(32))) for _ in range(5))
    return {"entries": layout.length, "seconds_per_million": taken / layout.length * 1e6}


def variance(drop: list[str], colluders: int) -> dict[str, float]:
    """Variance of the noise that no attacker knows, over the calibrated one, by block."""
    rows = np.ones((4, 512))
    labels = np.zeros(4, dtype=np.int64)
    clients = [ClientData(f"c{i}", rows, labels) for i in range(CLIENTS)]
    privacy = Privacy(1.0)
    federation = Federation(
        AFL(), Additive(), privacy=privacy, min_cohort=CLIENTS - DROPOUTS, corrupt=COLLUDERS
    )
    drawn: dict[str, list[float]] = {}
    for _ in range(10):
        result = federation.run(clients, max_rows=4, classes=("a", "b"), drop=drop, record=True)
        round_ = result.rounds[0]
        included = round_.released.included
        unknown = np.sum([round_.noise[name] for name in included[colluders:]], axis=0)
        assert result.report.privacy is not None
        scales = {block.name: block.scale for block in round_.session.layout.blocks}
        for name, part in round_.session.layout.split(unknown).items():
            std = result.report.privacy.noise_std[name] / scales[name]
            drawn.setdefault(name, []).append(float(part.astype(float).var() / std**2))
    return {name: float(np.mean(ratios)) for name, ratios in drawn.items()}


def one_audit(epsilon: float, neighbours: str) -> dict[str, object]:
    """The lower bound in the worst promised case."""
    privacy = Privacy(epsilon, neighbours=neighbours)  # type: ignore[arg-type]
    found = audit(privacy, tests=AUDIT_TESTS[epsilon])
    return {
        "epsilon": epsilon,
        "neighbours": neighbours,
        "lower_bound": found.lower_bound,
        "share": found.lower_bound / epsilon,
        "confidence": found.confidence,
        "tests": found.tests,
        "false_positive_rate": found.false_positive_rate,
        "true_positive_rate": found.true_positive_rate,
        "seconds": found.seconds,
    }


def mutations() -> dict[str, dict[str, float | bool]]:
    """Lower bounds for broken mechanisms that promise ε = 2 or 4; each has to be flagged."""
    one = Privacy(2.0)
    replace_one = Privacy(2.0, neighbours="replace-one")
    found = {
        "noise halved": audit(one, member=HalvedNoise),
        "one share of two missing": audit(one, cohort=THREE, member=OneWithout),
        "clip skipped": audit(one, change=skip_clip),
        "add-remove for replace-one": audit(replace_one, method=WrongRelation()),
    }
    return {
        name: {
            "promised": result.epsilon,
            "lower_bound": result.lower_bound,
            "flagged": not result.holds,
            "tests": result.tests,
        }
        for name, result in found.items()
    }


if __name__ == "__main__":
    main()
