"""Which networks torchvision and timm have: by name pattern, with family and published weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ...pipeline.errors import ModelError

CLASSIC = (
    "alexnet",
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    "googlenet",
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
)
"""torchvision's networks of the years 2012 to 2015, in order of publication."""


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """Pretrained weights that a hub publishes for a network."""

    name: str
    """torchvision's name of the weights, or timm's tag."""
    is_default: bool
    top1: float | None = None
    """ImageNet top-1 accuracy in percent; None if the hub does not state it."""


@dataclass(frozen=True, slots=True)
class NamedNetwork:
    """A network of a hub."""

    name: str
    """As in a job file: timm's networks have the prefix ``timm:`` where torchvision has the same name."""
    hub: str
    family: str
    """Module of the hub that defines it."""
    size: tuple[int, int]
    """Expected height and width of images."""
    num_weights: int
    """Number of published weights."""
    num_parameters: int | None = None
    """Published by torchvision; None for timm, see ``describe.count_parameters``."""

    def matches(self, pattern: str) -> bool:
        """Return whether name, family, or hub and name match a glob pattern."""
        full = f"{self.hub}:{self.name.rpartition(':')[2]}"
        return any(fnmatchcase(each, pattern) for each in (self.name, self.family, full))


def find_networks(pattern: str = "*") -> list[NamedNetwork]:
    """List the classifiers and image encoders of both hubs that match a glob pattern, the classic ones first.

    Raises:
        ModelError: none matches.
    """
    networks = [*_torchvision_networks(), *_timm_networks()]
    rank = {name: number for number, name in enumerate(CLASSIC)}
    found = [network for network in networks if network.matches(pattern)]
    if not found:
        raise ModelError(
            f"filter: expected a name, family or hub:name of torchvision or timm, got {pattern!r}, which matches none; "
            "put * for any characters, such as '*convnext*'"
        )
    return sorted(found, key=lambda network: rank.get(network.name, len(rank)))


def published_weights(hub: str, name: str) -> tuple[PublishedWeights, ...]:
    """List the published weights of a network, the default first.

    Args:
        hub: ``torchvision`` or ``timm``.
        name: name in the hub; the tag of a timm name, if it has one, is the default.
    """
    if hub == "torchvision":
        import torchvision

        members = torchvision.models.get_model_weights(name)
        found = [PublishedWeights(each.name, each is members.DEFAULT, _top1(each.meta)) for each in members]
    else:
        import timm

        bare, _, tag = name.partition(".")
        config = timm.get_pretrained_cfg(bare)
        default = tag or (config.tag if config else None) or ""
        tags = [
            each.partition(".")[2]
            for each in timm.list_pretrained(f"{bare}*")
            if each.partition(".")[0] == bare
        ]
        found = [PublishedWeights(each, each == default) for each in tags]
    return tuple(sorted(found, key=lambda each: not each.is_default))


def _top1(meta: dict[str, dict[str, dict[str, float]]]) -> float | None:
    accuracy = meta.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1")
    return None if accuracy is None or math.isnan(accuracy) else accuracy


def _torchvision_networks() -> list[NamedNetwork]:
    from torchvision import models

    found = []
    for name in models.list_models(module=models):
        weights = models.get_model_weights(name)
        size = weights.DEFAULT.transforms().crop_size[0]
        family = models.get_model_builder(name).__module__.rpartition(".")[2]
        num_parameters = int(weights.DEFAULT.meta["num_params"])
        found.append(NamedNetwork(name, "torchvision", family, (size, size), len(weights), num_parameters))
    return found


def _timm_networks() -> list[NamedNetwork]:
    import timm
    from torchvision import models

    taken = set(models.list_models(module=models))
    counts: dict[str, int] = {}
    for tagged in timm.list_pretrained():
        bare = tagged.partition(".")[0]
        counts[bare] = counts.get(bare, 0) + 1
    found = []
    for family in timm.list_modules():
        for name in timm.list_models(module=family):
            config = timm.get_pretrained_cfg(name)
            _, height, width = config.input_size if config else (3, 224, 224)
            shown = f"timm:{name}" if name in taken else name
            found.append(NamedNetwork(shown, "timm", family, (height, width), counts.get(name, 0)))
    return found
