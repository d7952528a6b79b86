"""Classes and options that DALI does not support and that run in Albumentations, with reasons."""

from __future__ import annotations

_VOLUMES = "takes volumes, not images"
_KIND = "changes the dtype or layout, which is done on batches at the end"
_OTHERS = "takes other images from the data"
_FROM_PIXELS = "computes parameters from pixels"
_HLS = "converts to 8-bit hue, lightness and saturation and back, truncating in between"
_OWN_NOISE = "samples noise from the pixels while it is applied; DALI's own noise cannot be seeded per sample"

ALBUMENTATIONS_ONLY: dict[str, str] = {
    "CenterCrop3D": _VOLUMES,
    "CoarseDropout3D": _VOLUMES,
    "CropNonEmptyMaskIfExists": "crops around the content of a mask",
    "CubicSymmetry": _VOLUMES,
    "FDA": _OTHERS,
    "FancyPCA": "computes the principal components of the image's colours",
    "FromFloat": _KIND,
    "GlassBlur": "swaps neighbouring pixels sequentially",
    "GridElasticDeform": "moves the corners of a grid and warps every cell by its own perspective",
    "HEStain": _FROM_PIXELS,
    "HistogramMatching": _OTHERS,
    "ISONoise": _OWN_NOISE,
    "Lambda": "is a custom function, which may access pixels",
    "MaskDropout": "drops the objects of a mask",
    "Mosaic": _OTHERS,
    "Normalize": "is applied to batches at the end, in one pass",
    "OverlayElements": _OTHERS,
    "Pad3D": _VOLUMES,
    "PadIfNeeded3D": _VOLUMES,
    "PixelDistributionAdaptation": _OTHERS,
    "RandomCrop3D": _VOLUMES,
    "RandomCropNearBBox": "takes a box from the data under a configurable name",
    "RandomFog": "overlays hundreds of discs and rounds after each",
    "RandomGravel": _HLS,
    "RandomSnow": _HLS,
    "RandomSunFlare": "overlays discs and rounds after each",
    "ShotNoise": _OWN_NOISE,
    "Superpixels": "clusters pixels by colour and position iteratively",
    "TextImage": "writes texts from the data",
    "ToFloat": _KIND,
    "ToRGB": "converts one channel to three, which decoding already does",
    "ToTensor3D": _VOLUMES,
    "ToTensorV2": _KIND,
    "ZoomBlur": "sums a varying number of enlarged images",
}
"""Classes that always run in Albumentations."""

_FILTERS = "nearest and area interpolation; cubic and Lanczos use a different algorithm"
_NOT_LINEAR = "any interpolation but linear"
_INPAINTED = "`fill: inpaint_telea` and `inpaint_ns`"

EXCEPTIONS: dict[str, str] = {
    "Affine": _NOT_LINEAR,
    "AutoContrast": "`cutoff` and `ignore`, which need the histogram",
    "CLAHE": "a random `clip_limit`: DALI takes one for all images, such as [4, 4]",
    "CoarseDropout": _INPAINTED,
    "ChromaticAberration": _NOT_LINEAR,
    "ConstrainedCoarseDropout": f"`mask_indices`, which need pixels of the mask; {_INPAINTED}",
    "CropAndPad": f"with `keep_size` {_FILTERS}",
    "Downscale": "any interpolation but nearest and linear; nearest differs on a few pixel borders",
    "ElasticTransform": _NOT_LINEAR,
    "Equalize": "`mode: pil` and a `mask`",
    "Erasing": _INPAINTED,
    "GridDistortion": _NOT_LINEAR,
    "GridDropout": _INPAINTED,
    "ImageCompression": "WebP",
    "LongestMaxSize": _FILTERS,
    "Morphological": "a `scale` with more than 32 neighbours, for which OpenCV is faster",
    "OpticalDistortion": _NOT_LINEAR,
    "Perspective": _NOT_LINEAR,
    "PiecewiseAffine": f"a `scale` from 0; {_NOT_LINEAR}",
    "RandomBrightnessContrast": "`brightness_by_max: false`, which computes parameters from pixels",
    "RandomGridShuffle": "more tiles than DALI pastes at once",
    "RandomResizedCrop": _FILTERS,
    "RandomScale": _FILTERS,
    "RandomShadow": "more than two shadows, which are rounded one by one",
    "RandomSizedBBoxSafeCrop": _FILTERS,
    "RandomSizedCrop": _FILTERS,
    "Resize": _FILTERS,
    "Rotate": _NOT_LINEAR,
    "SafeRotate": _NOT_LINEAR,
    "Sharpen": "`method: gaussian`, whose negative values wrap around",
    "ShiftScaleRotate": _NOT_LINEAR,
    "SmallestMaxSize": _FILTERS,
    "ThinPlateSpline": _NOT_LINEAR,
    "ToGray": "`method: pca`, and other than three channels",
    "XYMasking": _INPAINTED,
}
"""Unsupported options of otherwise supported classes."""
