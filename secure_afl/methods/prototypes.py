"""Hyper-prototypes: what pulls clients' embeddings, and how the server finds it. Needs torch.

Wang et al., "FedHPro: Federated Hyper-Prototype Learning via Gradient Matching", ICML 2026. A
class's gradient with respect to its embeddings is W(p̄ − e_c), p̄ being the mean of the class's
softmax rows: C numbers a class stand for all of it, and the server computes the rest.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.methods.networks.architecture import Inputs
from secure_afl.methods.networks.embedding import Embedded, Embedding

if TYPE_CHECKING:
    pass

_SMALL = 1e-6


class Pull(NamedTuple):
    """What is added to cross-entropy: contrast with all classes' prototypes, and alignment.

    Attributes:
        prototypes: (C, m, e) float64.
        contrast, alignment: weights of the two terms, ≥ 0.
        temperature: τ > 0 of the contrast.
        margin: of this client, ≥ 0, added to the contrast's denominator.
    """

    prototypes: Floats
    contrast: float
    alignment: float
    temperature: float
    margin: float = 0.0


def pulled_gradient(
    network: Embedding, parameters: Floats, inputs: Inputs, labels: Integers, pull: Pull
) -> Floats:
    """Differentiate cross-entropy with the pull of prototypes, in float32; return (p,) float64.

    With ẑ an embedding's direction and a_c the mean of class c's prototypes' directions, the
    contrast is the cross-entropy of a_c·ẑ/τ; the alignment is a Huber loss between ẑ and the
    direction of the class's mean prototype.
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize, smooth_l1_loss

    vector = torch.tensor(parameters, dtype=torch.float32, requires_grad=True)
    found = network.embedded(vector, torch.from_numpy(inputs))
    classes = torch.tensor(labels)
    prototypes = torch.tensor(pull.prototypes, dtype=torch.float32)
    directions = normalize(found.rows, dim=1)
    anchors = normalize(prototypes, dim=2).mean(dim=1)
    likeness = directions @ anchors.T / pull.temperature
    own = likeness.gather(1, classes.view(-1, 1)).squeeze(1)
    all_classes = likeness.logsumexp(dim=1)
    if pull.margin > 0:
        margin = torch.tensor(pull.margin).log()
        all_classes = torch.logaddexp(all_classes, margin)
    targets = normalize(prototypes.mean(dim=1), dim=1)[classes]
    loss = (
        cross_entropy(found.scores, classes)
        + pull.contrast * (all_classes - own).mean()
        + pull.alignment * smooth_l1_loss(directions, targets)
    )
    (gradient,) = torch.autograd.grad(loss, vector)
    return gradient.numpy().astype(np.float64)


def embeddings(network: Embedding, parameters: Floats, inputs: Inputs) -> Floats:
    """Return the embeddings of rows, (n, e) float64."""
    import torch

    with torch.inference_mode():
        vector = torch.tensor(parameters, dtype=torch.float32)
        rows = network.embedded(vector, torch.from_numpy(inputs)).rows.numpy()
    return np.asarray(rows, dtype=np.float64)


def directions(network: Embedding, parameters: Floats, inputs: Inputs) -> Floats:
    """Return the embeddings of rows brought to norm 1, (n, e) float64; of norm 0 stay zero."""
    rows = embeddings(network, parameters, inputs)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    # A little less than 1, so that no rounding makes a direction longer.
    found: Floats = rows / np.maximum(norms, _SMALL) * (1 - 1e-12)
    return found


def margin_of(
    network: Embedding, parameters: Floats, inputs: Inputs, labels: Integers, classes: int
) -> float:
    """Return a client's margin: how alike its classes' mean embeddings are, ≥ 0.

    It is Σ m_a·m_b / (C − 1)² over pairs a ≠ b of the client's classes; a negative one counts as 0.
    """
    rows = embeddings(network, parameters, inputs)
    means = np.array([rows[labels == place].mean(axis=0) for place in np.unique(labels)])
    products = means @ means.T
    return max(0.0, float(products.sum() - np.trace(products)) / max(1, classes - 1) ** 2)


def softmax(scores: Floats) -> Floats:
    """Return softmax rows (n, C) float64."""
    shares: Floats = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def class_gradients(weight: Floats, shares: Floats) -> Floats:
    """Return W(p̄^c − e_c) for each class: (C, e) float64.

    Args:
        weight: of the last layer, (C, e).
        shares: p̄, the mean softmax row of each class's examples, (C, C).
    """
    gradients: Floats = (shares - np.eye(len(shares))) @ weight
    return gradients


def matched(
    prototypes: Floats,
    network: Embedding,
    parameters: Floats,
    gradients: Floats,
    present: Integers,
    *,
    steps: int,
    rate: float,
) -> Floats:
    """Move prototypes so that their gradients point as the classes' do: (C, m, e) float64.

    Steps of gradient descent on Σ_c [1 − cos(mean_i ∇_{s_ci}, g^c)] over the classes that are
    present, where ∇_{s_ci} is the gradient of cross-entropy with respect to a prototype.

    Args:
        prototypes: (C, m, e).
        network, parameters: whose last layer judges prototypes.
        gradients: g^c, (C, e).
        present: classes with examples, (k,); others keep their prototypes.
        steps: of descent.
        rate: of each.
    """
    import torch
    from torch.nn.functional import cosine_similarity

    classes, each, width = prototypes.shape
    # Of the network only the last layer is needed.
    last = torch.tensor(parameters[-(classes * width + classes) :])
    judge = Embedded(torch.empty(0, width), last[:-classes].view(classes, width), last[-classes:])
    moved = torch.tensor(prototypes, requires_grad=True)
    wanted = torch.tensor(gradients)[present]
    truth = torch.eye(classes, dtype=torch.float64).repeat_interleave(each, dim=0)
    for _ in range(steps):
        scores = judge._replace(rows=moved.view(-1, width)).scores
        slopes = (scores.softmax(dim=1) - truth) @ judge.weight
        means = slopes.view(classes, each, width).mean(dim=1)[present]
        loss = (1 - cosine_similarity(means, wanted, dim=1, eps=_SMALL)).sum()
        (slope,) = torch.autograd.grad(loss, moved)
        with torch.no_grad():
            moved -= rate * slope
    return moved.detach().numpy()
