"""The attacks of the suite, by name."""

from typing import Any

from attacks.attack import Attack
from attacks.features.inversion import FeatureDecoder, FeatureInversion
from attacks.gradients.generative import GradientGenerative
from attacks.gradients.inversion import (
    GradientCosine,
    GradientDlg,
    GradientLabels,
    GradientLinear,
)
from attacks.statistics.attribution import Attribution, Uniformity
from attacks.statistics.counts import ClassCounts
from attacks.statistics.informed import InformedRidge
from attacks.statistics.membership import LeverageMembership, ModelMembership, SubspaceMembership
from attacks.statistics.rows import LatticeRows, NonNegativeRows, SingleRows
from attacks.statistics.singling_out import ClientStatistics, Differencing, FedHiPSubtraction

_CLASSES: tuple[type[Attack[Any]], ...] = (
    ClassCounts,
    SingleRows,
    NonNegativeRows,
    LatticeRows,
    ClientStatistics,
    FedHiPSubtraction,
    Differencing,
    SubspaceMembership,
    LeverageMembership,
    ModelMembership,
    InformedRidge,
    Attribution,
    Uniformity,
    FeatureInversion,
    FeatureDecoder,
    GradientLabels,
    GradientLinear,
    GradientDlg,
    GradientCosine,
    GradientGenerative,
)

ATTACKS: dict[str, type[Attack[Any]]] = {attack.name: attack for attack in _CLASSES}
