"""``lightwell models``: the networks of torchvision and timm."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..models.zoo.catalog import NamedNetwork, PublishedWeights
    from ..models.zoo.describe import NetworkInfo

MAX_WEIGHTS = 12
"""Maximum number of published weights in the description of a network."""


def models(
    name: Annotated[str | None, typer.Argument(help="Network to describe, such as vgg16.")] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            "--filter", metavar="GLOB", help="List networks by name or family, such as 'convnext*'."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the networks of torchvision and timm, or describe one: input, blocks, head, weights, lines for a job file.

    Example: lightwell models vgg16
    """
    from dataclasses import asdict

    from ..models.zoo.build import ModelSpec
    from ..models.zoo.catalog import CLASSIC, find_networks
    from ..models.zoo.describe import count_parameters, describe

    if name is not None:
        info = describe(ModelSpec(name=name))
        if as_json:
            print_json(asdict(info))
        else:
            print("\n".join(_description(info)))
        return
    found = count_parameters(find_networks(pattern or "*"))
    if as_json:
        print_json([asdict(network) for network in found])
    elif pattern is not None:
        _print_networks(found)
    else:
        _print_networks([network for network in found if network.name in CLASSIC])
        _print_families(found)


def _print_networks(networks: list[NamedNetwork]) -> None:
    rows = [
        [
            each.name,
            each.hub,
            each.family,
            f"{each.num_parameters / 1e6:.1f} M" if each.num_parameters else "",
            f"{each.size[0]} x {each.size[1]}",
            str(each.num_weights),
        ]
        for each in networks
    ]
    print_table(["network", "hub", "family", "parameters", "input", "weights"], rows)


def _print_families(networks: list[NamedNetwork]) -> None:
    print("\nfamilies, with the number of networks:")
    for hub in dict.fromkeys(each.hub for each in networks):
        families = Counter(each.family for each in networks if each.hub == hub)
        counts = ", ".join(f"{family} {num}" for family, num in sorted(families.items()))
        print(f"{hub} ({families.total():,}): {counts}")
    print(
        "\nlightwell models --filter 'convnext*' lists networks by name or family; lightwell models NAME describes one"
    )


def _description(info: NetworkInfo) -> list[str]:
    """Format the description of a network as lines of text."""
    from ..models.zoo.preprocessing import expected_policy, flow, yaml_lines

    head = " and ".join(info.heads)
    classes = f"{info.num_classes:,} classes" if info.num_classes else "new, with the classes of the data"
    rows = {
        "network": f"{info.name} of {info.hub}",
        "parameters": f"{info.num_parameters:,}",
        "input": _format_input(info),
        "head": f"{head}: {info.num_features:,} features -> {classes}",
        "target layer": _format_target(info),
        "weights": _format_all_weights(info),
    }
    if info.has_auxiliary_heads:
        rows["auxiliary heads"] = "none; auxiliary_heads: true in the model adds them, for training"
    width = max(len(key) for key in rows) + 2
    lines = [f"{key:<{width}}{value}" for key, value in rows.items()]
    column = max(len(part.name) for part in (*info.blocks, *info.outside)) + 2
    lines += ["", "blocks, in order; fine_tune_from names the first that is trained:"]
    lines += [f"  {part.name:<{column}}{part.num_parameters:>12,}" for part in info.blocks]
    if info.outside:
        lines += ["outside the blocks, trained only with the first block or all:"]
        lines += [f"  {part.name:<{column}}{part.num_parameters:>12,}" for part in info.outside]
    weights = "default" if info.weights else "none"
    lines += [
        "",
        "in a training job:",
        f"model: {{name: {flow(info.name)}, weights: {weights}}}",
        f"fine_tune_from: {flow(info.suggested_block)}  # or an earlier block, or all; without this line only {head}",
    ]
    if info.input is not None:
        lines += ["in its plan:", *yaml_lines(expected_policy(info.input))]
    return lines


def _format_input(info: NetworkInfo) -> str:
    config = info.input
    if config is None:
        return f"{info.in_channels} channels; preprocessing is not stated"
    constants = (", ".join(f"{value:.4g}" for value in values) for values in (config.mean, config.std))
    mean, std = constants
    return (
        f"{info.in_channels} x {config.size[0]} x {config.size[1]}, {config.interpolation}, "
        f"crop {config.crop:.4g} ({config.crop_mode}), mean {mean}, std {std}"
    )


def _format_target(info: NetworkInfo) -> str:
    if info.target_layer is None or info.grid is None:
        return "found when the network runs"
    prefix = f" after {info.num_prefix_tokens} class or register tokens" if info.num_prefix_tokens else ""
    return f"{info.target_layer}, {info.grid[0]} x {info.grid[1]} cells{prefix}"


def _format_all_weights(info: NetworkInfo) -> str:
    if not info.weights:
        return "none published; give a path, or none for random weights"
    shown = ", ".join(map(_format_weights, info.weights[:MAX_WEIGHTS]))
    more = f" and {len(info.weights) - MAX_WEIGHTS} more" if len(info.weights) > MAX_WEIGHTS else ""
    bare = info.name.partition(".")[0]
    others = f"by name, as {bare}.{info.weights[-1].name}" if info.hub == "timm" else "by path"
    return f"{shown}{more}" + (f"; others {others}" if len(info.weights) > 1 else "")


def _format_weights(weights: PublishedWeights) -> str:
    notes = ["default"] if weights.is_default else []
    notes += [f"top-1 {weights.top1:.1f} %"] if weights.top1 is not None else []
    name = weights.name or "untagged"
    return f"{name} ({', '.join(notes)})" if notes else name
