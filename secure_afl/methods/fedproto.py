"""FedAvg pulled to class means of embeddings: what hyper-prototypes are measured against."""

import numpy as np

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.methods.averaging import AveragingPublic
from secure_afl.methods.method import METHODS, Task
from secure_afl.methods.networks.architecture import Inputs
from secure_afl.methods.prototypes import directions
from secure_afl.methods.pulled import Pulled


@METHODS.register
class FedProto(Pulled, frozen=True, tag="fedproto"):
    """FedAvg whose clients are pulled to class means of embeddings.

    Of FedProto's kind (Tan et al., AAAI 2022), whose clients send class means alone and keep their
    models: here the models are averaged too, as in FedHPro. A client's vector has C × e numbers
    beside the update: means of the directions of its embeddings, by class.
    """

    name = "fedproto"
    summary = "fedavg whose clients are pulled to class means of embeddings"

    def carried(self, task: Task, parameters: Floats) -> tuple[Floats, ...]:
        """Return the server's moments, and one prototype a class, which at first pulls nowhere."""
        shape = len(task.classes), 1, self.network.width(task)
        return (*super().carried(task, parameters), np.zeros(shape))

    def statistic(self, public: AveragingPublic, inputs: Inputs) -> Floats:
        """Return directions of embeddings, (n, e)."""
        return directions(self.network, public.parameters, inputs)

    def statistic_width(self, task: Task) -> int:
        """Return e."""
        return self.network.width(task)

    def prototypes_after(self, public: AveragingPublic, means: Floats, present: Integers) -> Floats:
        """Take the means; a class without rows keeps its prototype."""
        prototypes = public.carried[-1].copy()
        prototypes[present, 0] = means[present]
        return prototypes
