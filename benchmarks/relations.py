"""What replace-one costs beside add-remove: noise of each sum, and accuracy on digits.

python -m benchmarks.relations

Noise is the standard deviation on a diagonal entry of G, in rows of norm 1, and on an entry of a
gradient, in rows of norm 1 times residuals of the greatest norm; for runs of one sum or K. Accuracy
is of `private-gradient` over `additive`, ten clients, ε = 1, δ = 1e-5, unit example.
"""

from statistics import mean
from typing import Any, get_args

from threadpoolctl import threadpool_limits

from benchmarks import private_sets
from benchmarks.record import write
from protocols import Additive
from secure_afl.federation.simulation import Federation
from secure_afl.intervals import student_reach
from secure_afl.methods import PrivateGradient
from secure_afl.methods.task_sums import lda_weights, task_weights
from secure_afl.privacy.accounting import noise_multiplier
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.schedule import planned_steps
from secure_afl.privacy.sensitivity import Neighbours, statistics_sensitivity

EPSILONS, SEEDS = (0.1, 1.0, 8.0), 5
RELATIONS: tuple[Neighbours, ...] = get_args(Neighbours)


def main() -> None:
    """Compute the noise, measure the accuracy, and write `results/relations.json`."""
    with threadpool_limits(1):
        accuracy = {relation: digits(relation) for relation in RELATIONS}
    write(
        "relations",
        {
            "seeds": SEEDS,
            "noise": {
                f"{epsilon:g}": {relation: noise(epsilon, relation) for relation in RELATIONS}
                for epsilon in EPSILONS
            },
            "digits": accuracy,
        },
    )


def noise(epsilon: float, relation: Neighbours) -> dict[str, Any]:
    """Return the noise of one sum by ridge and by LDA, and of a gradient among K of digits."""
    privacy = Privacy(epsilon, neighbours=relation)
    z = noise_multiplier(epsilon, privacy.delta)
    joint = {
        head: statistics_sensitivity(1, "example", relation, 1, *weights).joint
        for head, weights in (("ridge", task_weights(privacy)), ("lda", lda_weights(privacy)))
    }
    sums = 1 + planned_steps(privacy, 2560, 256)
    gradient = 2.0 if relation == "replace-one" else 1.0
    return {
        "multiplier": z,
        **{head: z * found for head, found in joint.items()},
        "sums": sums,
        "gradient": noise_multiplier(epsilon, privacy.delta, sums) * gradient,
    }


def digits(relation: Neighbours) -> dict[str, float]:
    """Return the mean accuracy of private-gradient at ε = 1 over seeds, and its 95 % reach."""
    each = []
    for seed in range(SEEDS):
        case = private_sets.digits(seed)
        privacy = Privacy(1.0, neighbours=relation)
        result = Federation(PrivateGradient(seed=seed), Additive(), privacy=privacy).run(
            case.clients, classes=case.classes, max_rows=case.max_rows
        )
        assert result.report.exact, "the sums are those of one place"
        (test,) = case.tests.values()
        each.append(100 * result.model.accuracy(test.features, test.labels))
    return {"mean": mean(each), "reach": student_reach(each)}


if __name__ == "__main__":
    main()
