"""Split a network where its frozen part ends: the trunk's features are computed once, the rest learns from them.

The network is traced with ``torch.fx``, its blocks as leaves. The split is at the last value before the first layer that
learns or draws random numbers in training, such as a trainable block or the dropout before a trainable head, that is the only
input of everything after it. So training the rest on features equals training the whole network.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ...pipeline.errors import ModelError
from ..zoo.forward import eval_mode
from ..zoo.freezing import blocks, train_mode
from .weights_digest import weights_digest

_CURE = "leave feature_passes out: the whole network then runs in every epoch"


class Rest(nn.Module):
    """The part of a network behind its trunk; shares all parameters with the network.

    Args:
        model: the network. Its training flag selects between the graphs, which differ where ``forward`` depends on it.
        training: graph of the rest in training mode.
        evaluation: graph of the rest in eval mode.
    """

    def __init__(self, model: nn.Module, training: fx.GraphModule, evaluation: fx.GraphModule) -> None:
        super().__init__()
        self.model = model
        self._graphs = (
            evaluation,
            training,
        )  # in a tuple, as their layers are registered by the model already

    def forward(self, features: torch.Tensor) -> Any:
        """Compute the network's output from the features of its trunk."""
        return self._graphs[self.model.training](features)


@dataclass(frozen=True)
class SplitModel:
    """A network as a frozen trunk and the rest."""

    model: nn.Module
    trunk: fx.GraphModule
    rest: Rest

    @torch.no_grad()
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the features of images. The network has to be in eval mode."""
        features = self.trunk(images)
        assert isinstance(features, torch.Tensor)
        return features

    @torch.no_grad()
    def check(self, images: torch.Tensor) -> None:
        """Check that trunk and rest together compute the network's output. It has to be in eval mode.

        Raises:
            ModelError: they do not.
        """
        whole, again = self.model(images), self.rest(self.features(images))
        if whole.shape != again.shape or not torch.allclose(whole, again, rtol=1e-3, atol=1e-4):
            raise ModelError(
                f"feature_passes: expected a network whose frozen part can be separated, got a {type(self.model).__name__} "
                f"whose parts give other outputs than the whole; {_CURE}"
            )

    def digest(self) -> str:
        """Hash the trunk: its operations, layers and weights."""
        return weights_digest(f"{self.trunk.code}\0{self.trunk}", self.trunk)


def split_model(model: nn.Module) -> SplitModel:
    """Split a network before the first layer that learns; restores its training flags.

    Args:
        model: on its device, with ``requires_grad`` set.

    Raises:
        ModelError: nothing before the first learning layer is frozen, or the network cannot be traced or separated.
    """
    with eval_mode(model):  # restores the flags that train_mode sets
        train_mode(model)
        training = _trace(model)
        boundary = _boundary(training, model)
        with eval_mode(model):
            evaluation = _trace(model)
    same = [node for node in evaluation.nodes if node.name == boundary.name]
    if not same or _crossing(evaluation, same[0]) != {same[0]}:
        raise ModelError(
            f"feature_passes: expected a network with the same frozen part in training and evaluation, got "
            f"{type(model).__name__}; {_CURE}"
        )
    rest = Rest(model, _after(model, training, boundary), _after(model, evaluation, same[0]))
    return SplitModel(model, _before(model, evaluation, same[0]), rest)


class _BlockTracer(fx.Tracer):
    """Traces a network down to its blocks and the layers outside them."""

    def __init__(self, model: nn.Module) -> None:
        from timm.layers import pos_embed

        # They choose by the size of the image, which a trace does not know.
        super().__init__(
            autowrap_functions=(pos_embed.resample_abs_pos_embed, pos_embed.resample_abs_pos_embed_nhwc)
        )
        paths = [name.split(".") for name in blocks(model)]
        self._parents = {".".join(path[:length]) for path in paths for length in range(len(path))}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        """Return whether a layer is one node of the graph."""
        return module_qualified_name not in self._parents


def _trace(model: nn.Module) -> fx.Graph:
    parameters = inspect.signature(model.forward).parameters.values()
    fixed = {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
    try:
        return _BlockTracer(model).trace(model, concrete_args=fixed)
    except Exception as error:  # the forward method of any network runs here
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise ModelError(
            f"feature_passes: expected a network that torch.fx can trace, got {type(model).__name__} ({reason}); {_CURE}"
        ) from error


def _boundary(graph: fx.Graph, model: nn.Module) -> fx.Node:
    """Return the last value before the first layer that learns which is all that the layers after it need."""
    found: fx.Node | None = None
    for node in graph.nodes:
        if _is_live(node, model):
            break
        if node.op != "get_attr" and _crossing(graph, node) == {node}:
            found = node
    if found is None or found.op == "placeholder":
        raise ModelError(
            f"feature_passes: expected frozen layers at the beginning of the network, got {type(model).__name__} in which none is; "
            "set fine_tune_from to a later block, or leave feature_passes out"
        )
    return found


def _crossing(graph: fx.Graph, boundary: fx.Node) -> set[fx.Node]:
    """Return the values computed up to a node that later nodes use; parameters and buffers are left out."""
    before: set[fx.Node] = set()
    for node in graph.nodes:
        before.add(node)
        if node is boundary:
            break
    return {
        node for node in before if node.op != "get_attr" and any(user not in before for user in node.users)
    }


def _is_live(node: fx.Node, model: nn.Module) -> bool:
    """Return whether a node learns, or is random or updates statistics in training."""
    if node.op == "output":
        return True
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        return bool(getattr(getattr(model.get_submodule(owner), name), "requires_grad", False))
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        return module.training and (
            any(parameter.requires_grad for parameter in module.parameters())
            or any(part.training and _is_random(part) for part in module.modules())
        )
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return "drop" in name and node.kwargs.get("training") is not False


def _is_random(module: nn.Module) -> bool:
    """Return whether a layer draws random numbers or updates statistics in training mode."""
    if isinstance(module, _DropoutNd):
        return module.p > 0
    return isinstance(module, _BatchNorm) or "drop" in type(module).__name__.lower()


def _before(model: nn.Module, graph: fx.Graph, boundary: fx.Node) -> fx.GraphModule:
    """Build the module that computes a value."""
    made, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        copies[node] = made.node_copy(node, copies.__getitem__)
        if node is boundary:
            break
    made.output(copies[boundary])
    return fx.GraphModule(model, made, "Trunk")


def _after(model: nn.Module, graph: fx.Graph, boundary: fx.Node) -> fx.GraphModule:
    """Build the module that computes a network's output from a value."""
    made, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    copies[boundary] = made.placeholder("features")
    is_after = False
    for node in graph.nodes:
        if node is boundary:
            is_after = True
        elif is_after or node.op == "get_attr":
            copies[node] = made.node_copy(node, copies.__getitem__)
    return fx.GraphModule(model, made, "Rest")
