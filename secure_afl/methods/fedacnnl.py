"""FedACnnL: a convolutional network without gradients, a blind sum a layer and one for the head."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from msgspec.structs import replace

from protocols.layout import Integers, Layout
from secure_afl.analytic.filters.kind import FILTERS, FilterKind, LayerMoments
from secure_afl.analytic.heads.head import AUTO, Chosen, Fitted, Head
from secure_afl.analytic.layers.bank import FilterBank
from secure_afl.analytic.layers.patches import (
    PATIENT_WEIGHT,
    LayerShape,
    LayerStatistics,
    layer_layout,
)
from secure_afl.analytic.private_ridge import noise_floor
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData, check_rows
from secure_afl.analytic.statistics import Statistics
from secure_afl.checks import settle_float, settle_int
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.afl import AFL
from secure_afl.methods.layer_settings import (
    MAX_FILTERS,
    MAX_KERNEL,
    MAX_LAYER_BITS,
    MAX_LAYERS,
    MAX_REGIONS,
    FilterCount,
    FilterRidge,
    Filters,
    Kernel,
    LayerBits,
    Layers,
    Regions,
)
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import METHODS, Method, Own, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.methods.networks.layered import LayeredModel, LayeredNetwork, add_up
from secure_afl.methods.personal.personal import Global
from secure_afl.methods.summed import (
    Alpha,
    HeadName,
    Intercept,
    PersonalName,
    PriorSetting,
    RidgeSetting,
    Shrinkage,
    Standardise,
    SummedPublic,
)
from secure_afl.privacy.mechanism import NoisySum, Privacy
from secure_afl.privacy.sensitivity import Sensitivity, layer_sensitivity

# Settings of the head; patches of images are no table's columns.
_NOT_OF_HEAD = ("rows_as_given", "least_count", "squares")
_OF_HEAD = tuple(name for name in AFL.__struct_fields__ if name not in _NOT_OF_HEAD)
CANONICAL, RANDOM = "canonical", "random"
_FILTERS, _FEW_FILTERS = 32, 16
# Share of a run's μ² that each layer's sum gets, where there is noise.
LAYER_SHARE = 0.1
# A number of patches this many deviations of its noise above zero tells where their mean is.
_COUNT_DEVIATIONS = 3.0


class LayeredPublic(PublicState, frozen=True, eq=False):
    """The task, the filters that are known so far, and after the last sum the head.

    Attributes:
        banks: filters of each layer that is done.
        head: the public state of the head's method, once there is one.
    """

    banks: tuple[FilterBank, ...] = ()
    head: SummedPublic | None = None


@METHODS.register
class FedACnnL(Method[LayeredPublic], frozen=True, tag="fedacnnl"):
    """Layers from the sums of their patches, then AFL on what comes out of them.

    A layer's sum is the Gram matrix of the patches and their sums by class and region. The server
    makes filters of it and sends them as whole numbers, of which everything that follows is
    computed alike on all machines. The articles on FedACnnL describe a ridge regression of each
    layer onto a random code of the labels; regions, canonical filters and the pooled head are this
    project's, and so are all constants.

    Attributes:
        filters: a name of `FILTERS`; None is canonical.
        kernel, filter_count, layers, regions, layer_bits, filter_ridge: as their flags say.
        head, prior, shrinkage, ridge, intercept, standardise, personal, alpha: of the last sum, as
            AFL's; personal models are heads behind the layers of all.
        image_shape: (height, width, channels); None for square images.
        seed: of random filters and codes; public.
    """

    name = "fedacnnl"
    summary = "a convolutional network on images, a sum a layer, no gradients"
    public = LayeredPublic
    row_additive = True
    hides_patients = True
    releases_statistics = True
    filters: Filters = None
    kernel: Kernel = None
    filter_count: FilterCount = None
    layers: Layers = 1
    regions: Regions = 4
    layer_bits: LayerBits = 5
    filter_ridge: FilterRidge = 0.01
    head: HeadName = AUTO
    prior: PriorSetting = None
    shrinkage: Shrinkage = None
    ridge: RidgeSetting = None
    intercept: Intercept = None
    standardise: Standardise = None
    personal: PersonalName = Global.name
    alpha: Alpha = None
    image_shape: tuple[int, int, int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for field, most in (
            ("layers", MAX_LAYERS),
            ("regions", MAX_REGIONS),
            ("layer_bits", MAX_LAYER_BITS),
        ):
            settle_int(self, field, 1, most)
        settle_float(self, "filter_ridge", 1e-9, 1e9)
        settle_int(self, "seed", 0, 2**63 - 1)
        if self.kernel is not None:
            settle_int(self, "kernel", 1, MAX_KERNEL)
            if self.kernel % 2 == 0:
                raise ConfigError(f"kernel is {self.kernel}, allowed: odd numbers")
        if self.filter_count is not None:
            settle_int(self, "filter_count", 1, MAX_FILTERS)
        if (self.filters or CANONICAL) not in FILTERS:
            raise ConfigError(f"filters is {self.filters!r}, allowed: {', '.join(sorted(FILTERS))}")
        if self.head_method.broadcasts_statistics:
            raise ConfigError(
                f"personal is {self.personal!r}, which gives clients the summed statistics; "
                f"allowed with {self.name}: none, prior, proximal, auto"
            )

    @classmethod
    def configured(cls, settings: Mapping[str, Any], *, private: bool, seed: int) -> Self:
        """Make the method of a run, whose seed is that of random filters and codes.

        With noise, filters are random ones unless others were asked for: the head's sum then has
        the whole budget, which is worth more than better filters.
        """
        filters = settings.get("filters") or (RANDOM if private else None)
        of_head = {name: value for name, value in settings.items() if name in _OF_HEAD}
        head = AFL.configured(of_head, private=private, seed=seed)
        return cls(**{**settings, "prior": head.prior, "filters": filters}, seed=seed)

    @property
    def kind(self) -> type[FilterKind]:
        """The kind of filters."""
        return FILTERS[self.filters or CANONICAL]

    @property
    def sums(self) -> int:
        """One blind sum for each layer whose filters are made of one, and one for the head."""
        return 1 + self._summed

    @property
    def images(self) -> bool:
        """Rows are the pixels of images."""
        return True

    @property
    def clipping(self) -> str:
        """Clause on what bounds an image's part in a sum."""
        return (
            "every image has mean 0 and deviation 1 before it is rounded, which bounds the energy "
            "of its patches; what the head sees has norm 1"
        )

    def advice(self, clients: int, *, few_rows: bool) -> tuple[str, ...]:
        """Warn of what the layers' sums give away of few images."""
        if not (few_rows and self._summed):
            return ()
        return (
            "A layer's sum holds the summed image of every class: an image alone in its class "
            "comes out whole. More images of each class would help, --filters random, which needs "
            "no such sum, or --epsilon.",
        )

    def network(self, task: Task) -> LayeredNetwork:
        """Return the network's public numbers for a task's images.

        Raises:
            ConfigError: rows are no images that fit.
        """
        network = LayeredNetwork.fitting(
            task.feature_dim,
            self.image_shape,
            self.kernel,
            self.layers,
            self.regions,
            1 << self.layer_bits,
        )
        wanted = self.filter_count or (_FEW_FILTERS if network.small else _FILTERS)
        for index in range(self.layers):
            most = self.kind.most(network.layer(index), len(task.classes))
            count = wanted if most is None else min(wanted, most)
            network = replace(network, counts=(*network.counts, count))
        return network

    def head_task(self, task: Task) -> Task:
        """Return the task of the head's method: rows are what comes out of the layers.

        Its noise is that of a sum which spends as much as the head's does.
        """
        mechanism, spend = task.mechanism, self._spend(head=True)
        if mechanism is not None:
            mechanism = replace(
                mechanism,
                noise_multiplier=mechanism.noise_multiplier / spend,
                mu=mechanism.mu * spend,
            )
        return replace(task, feature_dim=self.network(task).width, mechanism=mechanism)

    @property
    def head_method(self) -> AFL:
        """The method of the last sum, which this one ends with."""
        settings = {name: getattr(self, name) for name in _OF_HEAD}
        return AFL(**settings, rows_as_given=False)

    @property
    def personalises(self) -> bool:
        """Whether clients end with heads of their own."""
        return self.head_method.personalises

    @property
    def chooses_on_kept(self) -> bool:
        """Whether half of a client's kept-out rows go into the choice of its head."""
        return self.head_method.chooses_on_kept

    def heads(self, task: Task) -> tuple[Head, ...]:
        """List the heads that may follow the layers."""
        return self.head_method.heads(self.head_task(task))

    def fitted(self, public: LayeredPublic) -> Fitted | None:
        """Return the fitted head, with what was chosen for it."""
        return None if public.head is None else public.head.fitted

    def curve(self, task: Task, statistics: Statistics) -> tuple[Chosen, ...]:
        """Return the curve that the head's setting was chosen on."""
        return self.head_method.curve(self.head_task(task), statistics)

    def seen(self, public: LayeredPublic, data: ClientData) -> ClientData:
        """Return what comes out of the layers, (n, width), with the labels."""
        rows = self.network(public.task).rows(public.banks, data.features)
        return dataclasses.replace(data, features=rows)

    def behind(self, public: LayeredPublic, head: LinearModel) -> LayeredModel:
        """Return the model of a head behind the layers."""
        return LayeredModel(self.network(public.task), public.banks, head)

    def widest(self, task: Task) -> int:
        """Return the width of the head's rows; patches are many to an image."""
        return self.network(task).width

    def begin(self, task: Task) -> LayeredPublic:
        """Return the task, with all filters where they are of the seed alone.

        Raises:
            ConfigError: rows are no images that fit.
        """
        network = self.network(task)
        self.head_method.begin(self.head_task(task))
        if self.kind.needs_sum:
            return LayeredPublic(task)
        banks = tuple(self._bank(network, index, None) for index in range(self.layers))
        return LayeredPublic(task, banks)

    def check(self, public: LayeredPublic, round: int) -> None:
        """Check that filters are the network's, and as many as the round before left.

        Raises:
            DataError: they are not.
        """
        network = self.network(public.task)
        done = round - 1 if self.kind.needs_sum else self.layers
        if len(public.banks) != done or public.head is not None:
            raise DataError(f"a state of {len(public.banks)} layers, wanted {done} and no head")
        for index, bank in enumerate(public.banks):
            bank.check(network.layer(index), network.counts[index])

    def foreseen(self, task: Task) -> tuple[LayeredPublic, ...]:
        """List a state for every sum; what the filters are makes no difference to the noise."""
        network, states = self.network(task), []
        banks: tuple[FilterBank, ...] = ()
        for index in range(self.layers):
            if self.kind.needs_sum:
                states.append(LayeredPublic(task, banks))
            shape, count = network.layer(index).patch, network.counts[index]
            zeros = np.zeros((shape, count), dtype=np.int64)
            banks = (*banks, FilterBank(zeros, zeros[0]))
        return (*states, LayeredPublic(task, banks))

    def layout(self, public: LayeredPublic) -> Layout | None:
        """Return the layout of the next layer's sum, or the head's; None once there is a head.

        Raises:
            WouldOverflow: no ring holds that many images at these bits.
        """
        if public.head is not None:
            return None
        if len(public.banks) == self.layers:
            return self.head_method.sum_layout(self.head_task(public.task))
        return self._layer_layout(public)

    def sensitivity(self, public: LayeredPublic, privacy: Privacy) -> Sensitivity:
        """Bound how far a unit moves the next sum, that of a layer or of the head.

        An image is one example: whatever comes out of layers that are done, it adds one map of
        bounded energy to a layer's sum, or one row of norm ≤ 1 to the head's. A patient's images
        weigh as one together.

        Raises:
            ConfigError: λ = 0, or a weight out of range for the promise.
        """
        if len(public.banks) == self.layers:
            task = self.head_task(public.task)
            found = self.head_method.sensitivity(self.head_method.begin(task), privacy)
            return replace(found, spend=self._spend(head=True))
        shape = self._shape(public)
        return layer_sensitivity(
            shape.patch_energy,
            int(shape.region_sizes.max()),
            privacy.unit,
            privacy.neighbours,
            public.task.client_rows,
            privacy.known_cross_weight,
            self._spend(head=False),
            _weight(public.task),
        )

    def contribute(
        self, public: LayeredPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Pack the sums of the client's patches, or of its head rows, as int64.

        Images pass through the layers that are done, block by block; memory goes unused.

        Raises:
            DataError: no rows or too many, a label out of range, values that are not finite, or
                rows that do not say whose they are where patients are the unit.
        """
        task = public.task
        check_rows(data.features, data.labels, len(task.classes))
        network = self.network(task)
        if len(public.banks) == self.layers:
            return self._head_vector(public, data)
        blocks = (
            (maps, data.labels[start : start + len(maps)])
            for maps, start in network.layer_maps(public.banks, data.features)
        )
        shape = network.layer(len(public.banks))
        rows_each = task.rows_each(data)
        return LayerStatistics.of(blocks, len(task.classes), shape, rows_each).pack()

    def absorb(
        self, public: LayeredPublic, total: Integers, included: tuple[str, ...]
    ) -> LayeredPublic:
        """Make the next layer's filters of its sum, or the head of the last sum.

        Raises:
            ConfigError: a sum that nothing can be made of.
        """
        task = public.task
        if len(public.banks) == self.layers:
            method = self.head_method
            head = method.absorb(method.begin(self.head_task(task)), total, included)
            return replace(public, head=head)
        network, index = self.network(task), len(public.banks)
        layout = self._layer_layout(public)
        statistics = LayerStatistics.unpack(total, layout, len(task.classes))
        shape = network.layer(index)
        floors = self._floors(public, layout)
        moments = LayerMoments.of(statistics, shape, *floors, _weight(task))
        return replace(public, banks=(*public.banks, self._bank(network, index, moments)))

    def model(self, public: LayeredPublic) -> LayeredModel:
        """Return the head behind its layers; call it after the last sum."""
        assert public.head is not None, "the model exists after the last sum"
        return self.behind(public, self.head_method.model(public.head))

    def personalise(
        self,
        public: LayeredPublic,
        data: ClientData,
        memory: Memory,
        kept: ClientData | None = None,
    ) -> Own:
        """Make the client's own head, in the way that is set, behind the layers of all."""
        return self._own(public, data, memory, kept)

    def _own(
        self, public: LayeredPublic, data: ClientData, memory: Memory, kept: ClientData | None
    ) -> Own:
        """Make a head of one's own from that of a state, behind the layers of all."""
        assert public.head is not None, "personal models come after the last sum"
        method = self.head_method
        if not method.personalises:
            return Own(self.behind(public, method.model(public.head)), Global.name)
        own = method.personalise(
            public.head,
            self.seen(public, data),
            memory,
            None if kept is None else self.seen(public, kept),
        )
        assert isinstance(own.model, LinearModel), "heads are linear"
        return Own(self.behind(public, own.model), own.way)

    def _spend(self, *, head: bool) -> float:
        """Return μ of a sum in units of the average: a layer has little, the head the rest."""
        share = 1 - self._summed * LAYER_SHARE if head else LAYER_SHARE
        return math.sqrt((1 + self._summed) * share)

    @property
    def _summed(self) -> int:
        """Layers whose filters are made of a sum."""
        return self.layers if self.kind.needs_sum else 0

    def _floors(self, public: LayeredPublic, layout: Layout) -> tuple[float, float]:
        """Return below what eigenvalues and numbers of patches are noise; by public numbers."""
        mechanism = public.task.mechanism
        if mechanism is None:
            return 0.0, 0.0
        noisy = NoisySum(mechanism, layout, self.sensitivity(public, mechanism.privacy))
        shape = self._shape(public)
        deviation = noisy.stds["patch_diagonal"] / (_weight(public.task) * shape.steps**2)
        return noise_floor(deviation, shape.patch), _COUNT_DEVIATIONS * deviation

    def _head_vector(self, public: LayeredPublic, data: ClientData) -> Integers:
        """Add up the head's vectors over blocks of rows, which they are additive in."""
        network, task = self.network(public.task), self.head_task(public.task)
        # Of all rows, for a block may hold a part of a patient's.
        rows_each = task.rows_each(data)
        return add_up(
            self.head_method.vector(
                task,
                ClientData(data.name, rows, data.labels[part]),
                None if rows_each is None else rows_each[part],
            )
            for rows, part in network.row_blocks(public.banks, data.features)
        )

    def _layer_layout(self, public: LayeredPublic) -> Layout:
        task, shape = public.task, self._shape(public)
        classes, weight = len(task.classes), _weight(task)
        return layer_layout(shape, classes, task.total_rows, task.client_rows, weight)

    def _shape(self, public: LayeredPublic) -> LayerShape:
        return self.network(public.task).layer(len(public.banks))

    def _bank(
        self, network: LayeredNetwork, index: int, moments: LayerMoments | None
    ) -> FilterBank:
        """Make a layer's filters, for patches less their mean."""
        shape, count = network.layer(index), network.counts[index]
        rng = np.random.default_rng([self.seed, index])
        weights = self.kind.filters(shape, moments, count, self.filter_ridge, rng)
        bias: Floats = np.zeros(count) if moments is None else -(moments.mean @ weights)
        return FilterBank.of(weights, bias)


def _weight(task: Task) -> int:
    """Return what one image weighs in a layer's sum, or all of a patient's together."""
    return PATIENT_WEIGHT if task.by_patient else 1
