"""What ``lightwell explain`` prints: a plan step by step, where each step runs, why, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..compiler.program import Program
from ..compiler.routing import Route
from ..plan.plan import BboxParams, KeypointParams, Plan
from ..policy.spec import TransformSpec
from ..transform.output_shapes import CROPS, RESIZES
from .costs import Costs

NOTHING = "nothing"
KEYED = "seed, epoch, sample"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the table."""

    name: str
    options: str
    runs_in: str
    draws_from: str
    """``nothing``, or what its random decisions are keyed by."""
    cost_share: float | None
    """Of the time of one core for one image, 0..1; None where it was not measured."""
    note: str
    """What is fused, why it runs nowhere faster, where a cache sits."""


def explain(program: Program, costs: Costs | None) -> list[Step]:
    """List what happens to an image of a training view, in order.

    Args:
        program: the compiled plan.
        costs: of its steps, where they could be measured.
    """
    plan = program.plan
    routes = program.routes(augment=True).routes
    return [
        *_sampling_step(plan),
        Step("Read", "", "threads", NOTHING, _share(costs, "read"), "bytes as stored"),
        Step("Draw", "", "threads", KEYED, _share(costs, "draw"), _draw_note(routes)),
        Step("Decode", *_decoding(plan), NOTHING, _share(costs, "decode"), _decode_note(program, routes)),
        *_policy_steps(program, routes, costs),
        *_batch_steps(program, costs),
    ]


def _sampling_step(plan: Plan) -> list[Step]:
    if plan.sampling is None:
        return []
    weights = plan.sampling.weights
    options = "balanced" if weights is None else ", ".join(f"{name}={w:g}" for name, w in weights.items())
    note = "training views only; each class goes through all its images before one comes again"
    return [Step("Sampling", options, "schedule", "seed, epoch", None, note)]


def _draw_note(routes: tuple[Route, ...]) -> str:
    behind = next((route.name for route in routes if route.runs_in == "albumentations"), None)
    if behind is None:
        return "all that the policy decides, before there are pixels"
    return f"what the policy decides before there are pixels; {behind} and what follows decide as they run"


def _decoding(plan: Plan) -> tuple[str, str]:
    where = "DALI mixed (GPU)" if plan.device == "gpu" else "DALI or OpenCV"
    return f"to RGB uint8, EXIF applied; decode={plan.decode}", where


def _decode_note(program: Program, routes: tuple[Route, ...]) -> str:
    also = "Pillow for what neither can"
    if program.plan.cache is not None and program.num_cached == 0:
        also += f"; {_cache_note(program)}"
    fused = [route.name for route in routes if route.fused_with_decode]
    if not fused:
        return f"whole pictures: no crop or resize stands first and is always applied; {also}"
    cropping = [name for name in fused if name not in RESIZES]
    kept = f"only what {' and '.join(cropping)} keeps" if cropping else "whole pictures"
    plan = program.plan
    may_reduce = plan.decode == "auto" and plan.device == "cpu" and fused[-1] not in CROPS
    reduced = ", JPEGs at 1/2, 1/4 or 1/8 where they shrink as much" if may_reduce else ""
    return f"{kept}{reduced}; {also}"


def _policy_steps(program: Program, routes: tuple[Route, ...], costs: Costs | None) -> list[Step]:
    steps = []
    num_every = len(program.preprocess)
    for number, ((place, spec), route) in enumerate(zip(program.specs(augment=True), routes, strict=True)):
        everywhere = place.startswith("preprocess")
        notes = [
            "every view" if everywhere else "training views only",
            _fused_note(route),
            route.reason,
            _cache_note(program) if everywhere and number == program.num_cached - 1 else "",
        ]
        draws = NOTHING if everywhere else KEYED
        share = _share(costs, number)
        where = _where(route, program.plan)
        steps.append(Step(*_name(spec), where, draws, share, "; ".join(filter(None, notes))))
    others = program.routes(augment=False).routes[num_every:]
    for spec, route in zip(program.evaluate, others, strict=True):
        note = "; ".join(filter(None, ["other views only", _fused_note(route), route.reason]))
        steps.append(Step(*_name(spec), _where(route, program.plan), NOTHING, None, note))
    return steps


def _cache_note(program: Program) -> str:
    cache = program.plan.cache
    if cache is None:
        return "a cache would sit here"
    form = "raw" if cache.jpeg_quality is None else f"JPEG, quality {cache.jpeg_quality}"
    return f"cached here: {form}, in {cache.dir}"


def _fused_note(route: Route) -> str:
    if not route.fused_with_decode:
        return ""
    return "part of it done by decoding" if route.name in RESIZES else "its crop is done by decoding"


def _where(route: Route, plan: Plan) -> str:
    names = {"dali": f"DALI {plan.device}", "opencv": "OpenCV", "albumentations": "Albumentations"}
    return f"decoding, {names[route.runs_in]}" if route.fused_with_decode else names[route.runs_in]


def _batch_steps(program: Program, costs: Costs | None) -> list[Step]:
    plan = program.plan
    routes = program.routes(augment=True)
    on_gpu = plan.device == "gpu" and routes.num_lowered == len(routes.routes)
    place = "GPU" if on_gpu else "threads"
    steps = []
    if program.normalization:
        constants = f"mean={_short(program.normalization.mean)}, std={_short(program.normalization.std)}"
        note = "moved to the end: one pass into the batch"
        steps.append(Step("Normalize", constants, place, NOTHING, _share(costs, "batch"), note))
    layout = "float32 NCHW, channels_last" if program.normalization else "uint8 NHWC"
    size = f"size={plan.batch.size}"
    share = None if program.normalization else _share(costs, "batch")
    steps.append(
        Step("Batch", size, place, "seed, epoch", share, f"{layout}; order shuffled in training views")
    )
    if plan.bbox_params != BboxParams() or plan.keypoint_params != KeypointParams():
        rules = [
            f"{name}={_short(value)}"
            for params in (plan.bbox_params, plan.keypoint_params)
            for name, value in params.model_dump(exclude_defaults=True).items()
        ]
        note = "which boxes and keypoints stay; all views"
        steps.append(Step("Annotations", ", ".join(rules), "threads", NOTHING, None, note))
    if plan.mix:
        options = f"alpha={plan.mix.alpha:g}, p={plan.mix.p:g}"
        steps.append(Step(plan.mix.kind, options, "batch", "seed, epoch, step", None, "training views only"))
    return steps


def _share(costs: Costs | None, step: str | int) -> float | None:
    return None if costs is None else costs.share(step)


def _name(spec: TransformSpec) -> tuple[str, str]:
    options = ", ".join(f"{key}={_short(value)}" for key, value in spec.options.items())
    inner = "; ".join(f"{name}({options})" for name, options in map(_name, spec.children))
    return spec.name, " | ".join(part for part in (options, inner) if part)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return str(value)
