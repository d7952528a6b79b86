"""Explain a plan: its steps in order, where each runs, why, and its cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..compiler.program import Program
from ..compiler.routing import Route
from ..plan.plan import BboxParams, KeypointParams, Plan
from ..policy.spec import TransformSpec
from ..transform.output_shapes import CROPS, RESIZES
from .costs import Costs

NOT_RANDOM = "nothing"
PER_SAMPLE = "seed, epoch, sample"


@dataclass(frozen=True, slots=True)
class Step:
    """A row of the table."""

    name: str
    options: str
    runs_in: str
    draws_from: str
    """Inputs of its random seed, or ``nothing`` for deterministic steps."""
    cost_share: float | None
    """Fraction of the single-core time per image; None if not measured."""
    note: str
    """Fusion with decoding, reasons against a faster backend, position of the cache."""


def explain(program: Program, costs: Costs | None) -> list[Step]:
    """List the steps of a plan, in order.

    Args:
        program: the compiled plan.
        costs: measured costs of the steps, if available.
    """
    plan = program.plan
    routes = program.routes(augment=True).routes
    return [
        *_sampling_step(plan),
        Step("Read", "", "threads", NOT_RANDOM, _share(costs, "read"), "bytes as stored"),
        Step("Draw", "", "threads", PER_SAMPLE, _share(costs, "draw"), _draw_note(routes)),
        Step("Decode", *_decoding(plan), NOT_RANDOM, _share(costs, "decode"), _decode_note(program, routes)),
        *_policy_steps(program, routes, costs),
        *_batch_steps(program, costs),
    ]


def _sampling_step(plan: Plan) -> list[Step]:
    if plan.sampling is None:
        return []
    weights = plan.sampling.weights
    options = "balanced" if weights is None else ", ".join(f"{name}={w:g}" for name, w in weights.items())
    note = "training views only; each class is sampled without replacement until all its images were used"
    return [Step("Sampling", options, "schedule", "seed, epoch", None, note)]


def _draw_note(routes: tuple[Route, ...]) -> str:
    behind = next((route.name for route in routes if route.runs_in == "albumentations"), None)
    if behind is None:
        return "all transform parameters, sampled before decoding"
    return f"transform parameters, sampled before decoding; those of {behind} and later transforms are sampled as they run"


def _decoding(plan: Plan) -> tuple[str, str]:
    where = "DALI mixed (GPU)" if plan.device == "gpu" else "DALI or OpenCV"
    return f"to RGB uint8, EXIF applied; decode={plan.decode}", where


def _decode_note(program: Program, routes: tuple[Route, ...]) -> str:
    also = "Pillow for formats that neither supports"
    if program.plan.cache is not None and program.num_cached == 0:
        also += f"; {_cache_note(program)}"
    fused = [route.name for route in routes if route.fused_with_decode]
    if not fused:
        return f"full images: the policy does not start with a crop or resize that is always applied; {also}"
    cropping = [name for name in fused if name not in RESIZES]
    kept = f"only the region kept by {' and '.join(cropping)}" if cropping else "full images"
    plan = program.plan
    may_reduce = plan.decode == "auto" and plan.device == "cpu" and fused[-1] not in CROPS
    reduced = ", JPEGs at 1/2, 1/4 or 1/8 scale if downscaled by as much" if may_reduce else ""
    return f"{kept}{reduced}; {also}"


def _policy_steps(program: Program, routes: tuple[Route, ...], costs: Costs | None) -> list[Step]:
    steps = []
    num_preprocess = len(program.preprocess)
    for number, ((place, spec), route) in enumerate(zip(program.specs(augment=True), routes, strict=True)):
        everywhere = place.startswith("preprocess")
        notes = [
            "every view" if everywhere else "training views only",
            _fused_note(route),
            route.reason,
            _cache_note(program) if everywhere and number == program.num_cached - 1 else "",
        ]
        seeded_by = NOT_RANDOM if everywhere else PER_SAMPLE
        share = _share(costs, number)
        where = _where(route, program.plan)
        steps.append(Step(*_name(spec), where, seeded_by, share, "; ".join(filter(None, notes))))
    evaluate_routes = program.routes(augment=False).routes[num_preprocess:]
    for spec, route in zip(program.evaluate, evaluate_routes, strict=True):
        note = "; ".join(filter(None, ["other views only", _fused_note(route), route.reason]))
        steps.append(Step(*_name(spec), _where(route, program.plan), NOT_RANDOM, None, note))
    return steps


def _cache_note(program: Program) -> str:
    cache = program.plan.cache
    if cache is None:
        return "possible position of a cache"
    form = "raw" if cache.jpeg_quality is None else f"JPEG, quality {cache.jpeg_quality}"
    return f"cached here: {form}, in {cache.dir}"


def _fused_note(route: Route) -> str:
    if not route.fused_with_decode:
        return ""
    return "partly done while decoding" if route.name in RESIZES else "cropped while decoding"


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
        note = "moved to the end, in one pass into the batch"
        steps.append(Step("Normalize", constants, place, NOT_RANDOM, _share(costs, "batch"), note))
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
        note = "filters for boxes and keypoints; all views"
        steps.append(Step("Annotations", ", ".join(rules), "threads", NOT_RANDOM, None, note))
    if plan.progressive_size:
        options = ", ".join(
            f"{step.size[0]}x{step.size[1]} until epoch {step.until_epoch}" for step in plan.progressive_size
        )
        note = "training views only; later epochs have the plan's size"
        steps.append(Step("ProgressiveSize", options, "threads", NOT_RANDOM, None, note))
    if plan.mix:
        options = f"alpha={plan.mix.alpha:g}, p={plan.mix.p:g}"
        options += "" if plan.mix.until_epoch is None else f", until_epoch={plan.mix.until_epoch}"
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
