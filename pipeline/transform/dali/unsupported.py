"""Why some transforms run in Albumentations: whole classes, and options of those that DALI runs otherwise."""

from __future__ import annotations

_VOLUMES = "takes volumes, and pictures have no depth"
_KIND = "changes the kind of a batch's numbers, which is done to whole batches at the end"
_OTHERS = "takes other pictures out of the data"
_FROM_PIXELS = "decides by looking at pixels"
_HLS = "turns the picture into hue, lightness and saturation of 8 bits and back, cut off on the way"
_OWN_NOISE = "draws its noise from the pixels while it is applied; DALI's own noise cannot be keyed by sample"

ALBUMENTATIONS_ONLY: dict[str, str] = {
    "CenterCrop3D": _VOLUMES,
    "CoarseDropout3D": _VOLUMES,
    "CropNonEmptyMaskIfExists": "crops around what a mask shows",
    "CubicSymmetry": _VOLUMES,
    "FDA": _OTHERS,
    "FancyPCA": "looks for the main axes of the picture's colours",
    "FromFloat": _KIND,
    "GlassBlur": "swaps pixels with their neighbours one after the other",
    "GridElasticDeform": "moves the corners of a grid and warps every cell by its own perspective",
    "HEStain": _FROM_PIXELS,
    "HistogramMatching": _OTHERS,
    "ISONoise": _OWN_NOISE,
    "Lambda": "is your own function, which may look at pixels",
    "MaskDropout": "drops the objects of a mask",
    "Mosaic": _OTHERS,
    "Normalize": "is done to whole batches at the end, in one pass",
    "OverlayElements": _OTHERS,
    "Pad3D": _VOLUMES,
    "PadIfNeeded3D": _VOLUMES,
    "PixelDistributionAdaptation": _OTHERS,
    "RandomCrop3D": _VOLUMES,
    "RandomCropNearBBox": "takes a box out of the data under a name of its own",
    "RandomFog": "lays hundreds of discs one on the other and rounds after each",
    "RandomGravel": _HLS,
    "RandomSnow": _HLS,
    "RandomSunFlare": "lays discs one on the other and rounds after each",
    "ShotNoise": _OWN_NOISE,
    "Superpixels": "clusters pixels by colour and place, again and again",
    "TextImage": "writes texts out of the data",
    "ToFloat": _KIND,
    "ToRGB": "makes three channels of one, and decoding has done so",
    "ToTensor3D": _VOLUMES,
    "ToTensorV2": _KIND,
    "ZoomBlur": "adds up enlarged pictures, another number of them in each draw",
}
"""Classes that DALI never runs."""

_FILL = "a border of more than four levels"
_FILTERS = "nearest and area interpolation; cubic and Lanczos follow another law"
_NOT_LINEAR = "any interpolation but linear"
_INPAINTED = "`fill: inpaint_telea` and `inpaint_ns`, and levels outside 0 to 255"
_WARPED = f"{_NOT_LINEAR}; {_FILL}"

EXCEPTIONS: dict[str, str] = {
    "Affine": _WARPED,
    "AutoContrast": "`cutoff` and `ignore`, which need the histogram",
    "CLAHE": "a drawn `clip_limit`: DALI takes one for all pictures, such as [4, 4]",
    "CenterCrop": _FILL,
    "ChannelDropout": "a `fill` outside 0 to 255",
    "CoarseDropout": _INPAINTED,
    "ChromaticAberration": _NOT_LINEAR,
    "ConstrainedCoarseDropout": f"`mask_indices`, which need pixels of the mask; {_INPAINTED}",
    "Crop": _FILL,
    "CropAndPad": f"with `keep_size` {_FILTERS}",
    "Downscale": "all interpolation but nearest and linear; nearest follows another law on a few borders",
    "ElasticTransform": _WARPED,
    "Equalize": "`mode: pil` and a `mask`",
    "Erasing": _INPAINTED,
    "FrequencyMasking": _INPAINTED,
    "GridDistortion": _WARPED,
    "GridDropout": _INPAINTED,
    "ImageCompression": "WebP",
    "LongestMaxSize": _FILTERS,
    "Morphological": "a large `scale`, whose neighbours are too many",
    "OpticalDistortion": _WARPED,
    "Pad": _FILL,
    "PadIfNeeded": _FILL,
    "Perspective": _WARPED,
    "PiecewiseAffine": f"a `scale` from 0; {_WARPED}",
    "Posterize": "`num_bits` for other than one or three channels",
    "RandomBrightnessContrast": "`brightness_by_max: false`, which decides by looking at pixels",
    "RandomCrop": _FILL,
    "RandomGridShuffle": "more tiles than DALI pastes at once",
    "RandomResizedCrop": _FILTERS,
    "RandomScale": _FILTERS,
    "RandomShadow": "more than two shadows, which are rounded one after the other",
    "RandomSizedBBoxSafeCrop": _FILTERS,
    "RandomSizedCrop": _FILTERS,
    "Resize": _FILTERS,
    "Rotate": _WARPED,
    "SafeRotate": _WARPED,
    "Sharpen": "`method: gaussian`, which counts below 0 as 255 and less",
    "ShiftScaleRotate": _WARPED,
    "SmallestMaxSize": _FILTERS,
    "ThinPlateSpline": _WARPED,
    "TimeMasking": _INPAINTED,
    "ToGray": "`method: pca`, and other than three channels",
    "XYMasking": _INPAINTED,
}
"""Options that DALI does not take of classes that it runs otherwise."""
