"""Class counts, from their own block and from products alone."""

import numpy as np
import pytest

from attacks.attack import Known
from attacks.statistics.counts import ClassCounts, counts_from_products
from protocols.layout import Integers, Layout
from protocols.protocol import Protocol
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics
from secure_afl.methods import AFL, Memory
from secure_afl.methods.summed import SummedPublic
from tests.kit.runs import ADDITIVE, PLAIN, by_metric, record, relu_clients, relu_rows, truth_of

CLIENTS = relu_clients([9, 14, 22], dim=64)
RNG = np.random.default_rng(0)


class WithoutCounts(AFL, frozen=True, tag="without-counts-in-tests"):
    """AFL that sums Gram matrix and cross term only."""

    def layout(self, public: SummedPublic) -> Layout | None:
        layout = super().layout(public)
        if layout is None:
            return None
        return Layout(tuple(b for b in layout.blocks if b.name != "counts"))

    def contribute(
        self, public: SummedPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        return super().contribute(public, data, memory, entropy)[: -len(public.task.classes)]

    def absorb(
        self, public: SummedPublic, total: Integers, included: tuple[str, ...]
    ) -> SummedPublic:
        zeros = np.zeros(len(public.task.classes), dtype=np.int64)
        return super().absorb(public, np.concatenate([total, zeros]), included)


@pytest.mark.parametrize("method", [AFL(), WithoutCounts()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize(
    ("protocol", "coalition", "exact_clients"),
    [
        (PLAIN, ["server"], 1.0),
        (ADDITIVE, ["collector", "aggregator_1", "aggregator_2"], 1.0),
        (ADDITIVE, ["collector", "c0", "c1"], 1.0),
        (ADDITIVE, ["collector"], None),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_counts(
    method: AFL, protocol: Protocol, coalition: list[str], exact_clients: float | None
) -> None:
    view = record(CLIENTS, protocol, method).view(coalition)
    claim = ClassCounts().claim(view, Known(), RNG)
    measures = by_metric(ClassCounts().judge(claim, truth_of(CLIENTS)))
    assert measures["exact counts of a sum"].value == 1.0
    of_clients = measures["exact counts of a client"]
    if exact_clients is None:
        assert of_clients.value < 0.5
    else:
        assert of_clients.value == exact_clients


def test_nobody_who_has_no_sum_counts() -> None:
    for coalition in ([], ["aggregator_1"]):
        view = record(CLIENTS, ADDITIVE).view(coalition)
        assert ClassCounts().claim(view, Known(), RNG) is None
    assert all(m.trials == 0 for m in ClassCounts().judge(None, truth_of(CLIENTS)))


def test_products_of_many_rows_come_near() -> None:
    features, labels = relu_rows(500, 64, 3)
    counts = counts_from_products(Statistics.of(features, labels, 3, Quantiser(8)))
    np.testing.assert_allclose(counts, np.bincount(labels), rtol=0.1)
