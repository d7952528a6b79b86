"""Options of lowered transforms that are hard to run in DALI: every class without a case here is tried as it is made."""

from __future__ import annotations

import albumentations as A
import cv2
import pytest

BORDERS = [
    cv2.BORDER_CONSTANT,
    cv2.BORDER_REPLICATE,
    cv2.BORDER_REFLECT,
    cv2.BORDER_WRAP,
    cv2.BORDER_REFLECT_101,
]
CROPS = [
    A.RandomCrop(20, 30),
    A.RandomCrop(300, 130, pad_if_needed=True, pad_position="random", fill=(3, 9, 200)),
    A.CenterCrop(33, 20),
    A.CenterCrop(300, 500, pad_if_needed=True, fill=7),
    A.Crop(3, 5, 30, 30),
    A.Crop(3, 5, 300, 90, pad_if_needed=True, pad_position="bottom_right", border_mode=cv2.BORDER_REFLECT),
    A.RandomCropFromBorders(0.3, 0.2, 0.1, 0.4),
    A.CropAndPad(px=5),
    A.CropAndPad(px=-5),
    A.CropAndPad(px=(-6, 9), keep_size=False, fill=200),
    A.CropAndPad(px=(-6, 9), keep_size=False, fill=(20, 230)),
    A.CropAndPad(px=(1, 9), keep_size=False, fill=(10, 200, 90)),
    A.CropAndPad(percent=(0, 0.3), fill=(20, 230)),
    A.CropAndPad(percent=(-0.3, 0.3), border_mode=cv2.BORDER_REFLECT_101),
    A.CropAndPad(percent=(-0.3, 0.3), keep_size=False, interpolation=cv2.INTER_AREA),
    A.CropAndPad(percent=(-0.3, 0.3), interpolation=cv2.INTER_CUBIC),
    A.RandomResizedCrop((48, 56)),
    A.RandomResizedCrop((48, 156), interpolation=cv2.INTER_LINEAR_EXACT),
    A.RandomResizedCrop((148, 56), interpolation=cv2.INTER_CUBIC),
    A.RandomResizedCrop((48, 56), interpolation=cv2.INTER_LANCZOS4),
    A.RandomSizedCrop((20, 30), (64, 40), w2h_ratio=1.3),
]
BOXED = [
    A.RandomSizedBBoxSafeCrop(48, 56),
    A.RandomSizedBBoxSafeCrop(40, 60, erosion_rate=0.9),
    A.BBoxSafeRandomCrop(),
    A.BBoxSafeRandomCrop(0.5),
    A.AtLeastOneBBoxRandomCrop(20, 30),
    A.AtLeastOneBBoxRandomCrop(33, 10, erosion_factor=0.5),
    A.ConstrainedCoarseDropout((2, 4), (0.1, 0.5), (0.1, 0.5), bbox_labels=[1, 2], fill=9, p=1),
]
RESIZES = [
    A.Resize(48, 56),
    A.Resize(224, 224),
    A.Resize(33, 47),
    A.Resize(300, 40, interpolation=cv2.INTER_CUBIC),
    A.Resize(30, 400, interpolation=cv2.INTER_LANCZOS4),
    A.SmallestMaxSize(97),
    A.SmallestMaxSize(max_size_hw=(100, 50)),
    A.LongestMaxSize([64, 100, 200]),
    A.LongestMaxSize(max_size_hw=(40, None)),
    A.RandomScale((-0.5, 0.5), p=1),
]
PADS = [
    A.Pad((3, 7, 11, 50), fill=(9, 8, 7)),
    A.Pad(5, border_mode=cv2.BORDER_WRAP),
    A.PadIfNeeded(200, 200, fill=12.6),
    A.PadIfNeeded(None, None, pad_height_divisor=32, pad_width_divisor=64, position="random"),
    *[A.PadIfNeeded(400, 400, border_mode=mode) for mode in BORDERS],
]

with pytest.warns(UserWarning, match="alias"):
    TIME_REVERSE = A.TimeReverse(p=1)
FLIPS = [
    A.NoOp(p=1),
    A.HorizontalFlip(p=1),
    A.HorizontalFlip(p=0.5),
    A.VerticalFlip(p=1),
    A.Transpose(p=1),
    TIME_REVERSE,
    A.D4(p=1),
    A.SquareSymmetry(p=1),
    A.RandomRotate90(p=1),
    A.RandomGridShuffle((3, 4), p=1),
    A.RandomGridShuffle((8, 8), p=1),
    A.RandomGridShuffle((1, 40), p=1),
    A.RandomGridShuffle((1, 1), p=0.5),
]

with pytest.warns(UserWarning, match="special case"):
    SHIFTS = [
        A.ShiftScaleRotate(p=1),
        A.ShiftScaleRotate(0.3, (0.1, 0.9), 180, border_mode=cv2.BORDER_WRAP, p=1),
    ]
WARPS = [
    *SHIFTS,
    *[A.Rotate(p=1, border_mode=mode, fill=(3, 200, 90)) for mode in BORDERS],
    A.Rotate(p=1, crop_border=True),
    A.Rotate((-180, 180), p=1, crop_border=True, border_mode=cv2.BORDER_REFLECT_101),
    A.Rotate((0, 0), p=1),
    A.SafeRotate(p=1, fill=7),
    A.SafeRotate((-180, 180), p=1, border_mode=cv2.BORDER_REFLECT),
    A.Affine(p=1),
    A.Affine(fit_output=True, p=1),
    A.Affine(
        scale=(0.5, 2),
        rotate=(-90, 90),
        shear=(-20, 20),
        translate_percent=(-0.2, 0.2),
        fill=99.5,
        p=1,
    ),
    A.Affine(scale=(0.3, 1.2), rotate=(-90, 90), fit_output=True, p=1),
    A.Affine(
        scale=(0.1, 1.2),
        shear=(-60, 60),
        border_mode=cv2.BORDER_REFLECT_101,
        interpolation=cv2.INTER_AREA,
        p=1,
    ),
    A.Affine(scale=(0.0, 0.0), p=1),
    A.Affine(translate_px=(-3, 3), p=1),
    A.Perspective(p=1),
    A.Perspective((0.1, 0.3), keep_size=False, fill=7, p=1),
    A.Perspective((0.1, 0.3), fit_output=True, fill=(7, 8, 9), p=1),
    A.Perspective((0.1, 0.3), fit_output=True, keep_size=False, border_mode=cv2.BORDER_REFLECT_101, p=1),
]

with pytest.warns(UserWarning, match="very slow"):
    PIECEWISE = A.PiecewiseAffine((0.05, 0.1), p=1)
DISTORTIONS = [
    A.ElasticTransform(300, 5, p=1),
    A.ElasticTransform(30, 5, fill=9, p=1),
    *[A.GridDistortion(distort_limit=(-1, 1), normalized=False, border_mode=mode, p=1) for mode in BORDERS],
    *[A.ThinPlateSpline((0.9, 1), border_mode=mode, fill=(9, 8, 7), p=1) for mode in BORDERS],
    A.OpticalDistortion((-0.9, 0.9), interpolation=cv2.INTER_AREA, p=1),
    A.OpticalDistortion((-0.9, 0.9), mode="fisheye", border_mode=cv2.BORDER_REFLECT, p=1),
]

with pytest.warns(UserWarning, match="specialized version"):
    SPECTRAL = [A.TimeMasking(20, p=1), A.FrequencyMasking(20, p=1)]
DROPS = [
    *SPECTRAL,
    A.CoarseDropout(p=1),
    A.CoarseDropout((3, 9), (5, 20), (3, 30), fill=(9, 200, 7), p=1),
    A.CoarseDropout((3, 9), (0.1, 0.2), (0.1, 0.3), fill=9.7, p=1),
    A.Erasing(scale=(0.01, 0.02), fill=77, p=1),
    A.Erasing(p=1),
    A.CoarseDropout((3, 9), (5, 20), (3, 30), fill="random", p=1),
    A.GridDropout(fill="random_uniform", p=1),
    A.XYMasking(0, 0, 12, (3, 20), fill="random", p=1),
    A.GridDropout(p=1),
    A.GridDropout(0.3, unit_size_range=(5, 20), fill=3, p=1),
    A.GridDropout(0.9, holes_number_xy=(5, 7), fill=3, p=1),
    A.XYMasking(2, (1, 3), 12, (3, 20), fill=(3, 4, 5), p=1),
    A.XYMasking(0, 0, 12, (3, 20), p=1),
    A.PixelDropout(0.1, p=1),
    A.PixelDropout(0.5, per_channel=True, drop_value=None, p=1),
    A.PixelDropout(0.2, drop_value=(3, 4, 5), p=1),
    A.Morphological(p=1),
    A.Morphological((3, 3), "erosion", p=1),
    A.Morphological((2, 5), "erosion", p=1),
    A.Morphological(1, "dilation", p=1),
    A.Morphological((5, 7), p=1),
]

LEVELS = [
    A.RandomBrightnessContrast(p=0.8),
    A.RandomBrightnessContrast(brightness_limit=(-0.9, 0.9), contrast_limit=(-0.9, 2), p=1),
    A.RandomBrightnessContrast(ensure_safe_range=True, p=1),
    A.RandomGamma(p=0.8),
    A.RandomGamma((20, 400), p=1),
    A.RandomToneCurve(p=0.8),
    A.RandomToneCurve(scale=0.6, per_channel=True, p=1),
    A.InvertImg(p=0.8),
    A.Solarize(p=0.8),
    A.Solarize(threshold_range=(0, 1), p=1),
    A.Posterize(p=0.8),
    A.Posterize(num_bits=(1, 7), p=1),
    A.Posterize(num_bits=[(1, 7), (2, 5), (3, 3)], p=1),
    A.Equalize(p=0.8),
    A.Equalize(by_channels=False, p=1),
    A.AutoContrast(p=0.8),
    A.AutoContrast(method="pil", p=1),
    A.CLAHE(clip_limit=(4, 4), p=0.8),
    A.CLAHE(clip_limit=(2.5, 2.5), tile_grid_size=(3, 5), p=1),
]

COLORS = [
    A.HueSaturationValue(p=0.8),
    A.HueSaturationValue(
        hue_shift_limit=(-180, 180), sat_shift_limit=(-255, 255), val_shift_limit=(-255, 255), p=1
    ),
    A.HueSaturationValue(hue_shift_limit=0, sat_shift_limit=0, val_shift_limit=0, p=1),
    A.ColorJitter(p=0.8),
    A.ColorJitter(brightness=(0, 3), contrast=(0, 3), saturation=(0, 3), hue=(-0.5, 0.5), p=1),
    A.ColorJitter(hue=(0, 0), p=1),
    A.ChannelShuffle(p=0.8),
    A.ChannelDropout(p=0.8),
    A.ChannelDropout(channel_drop_range=(1, 2), fill=77.7, p=1),
    *(
        A.ToGray(method=method, p=0.9)
        for method in ("weighted_average", "from_lab", "desaturation", "average", "max")
    ),
    A.ToSepia(p=0.8),
    A.PlanckianJitter(p=0.8),
    A.PlanckianJitter(mode="cied", sampling_method="gaussian", p=1),
]

LINEAR = {"downscale": cv2.INTER_LINEAR, "upscale": cv2.INTER_LINEAR}
NEAREST_THEN_LINEAR = {"downscale": cv2.INTER_NEAREST, "upscale": cv2.INTER_LINEAR}
LINEAR_THEN_NEAREST = {"downscale": cv2.INTER_LINEAR, "upscale": cv2.INTER_NEAREST}
FILTERS = [
    A.Blur(p=0.8),
    A.Blur((9, 31), p=1),
    A.MotionBlur(p=0.8),
    A.MotionBlur((7, 21), allow_shifted=False, p=1),
    A.AdvancedBlur(p=0.8),
    A.AdvancedBlur((9, 15), sigma_x_limit=(1, 4), sigma_y_limit=(1, 4), p=1),
    A.GaussianBlur(p=0.8),
    A.GaussianBlur((3, 7), (0.1, 2.0), p=1),
    A.Defocus(p=0.8),
    A.Sharpen(p=0.8),
    A.Sharpen(alpha=(0, 1), lightness=(0, 3), p=1),
    A.Emboss(p=0.8),
    A.Emboss(alpha=(0, 1), strength=(0, 2), p=1),
    A.RingingOvershoot(p=0.8),
    A.UnsharpMask(p=0.8),
    A.UnsharpMask(blur_limit=(3, 9), sigma_limit=(0.5, 2), alpha=(0, 1), threshold=3, p=1),
    A.ImageCompression(p=0.8),
    A.ImageCompression(quality_range=(1, 100), p=1),
    A.Downscale(p=0.8),
    A.Downscale((0.1, 0.9), p=1),
    A.Downscale((0.1, 0.9), LINEAR, p=1),
    A.Downscale((0.1, 0.9), NEAREST_THEN_LINEAR, p=1),
    A.Downscale((0.1, 0.9), LINEAR_THEN_NEAREST, p=1),
]
ON_A_GPU_ONLY = [A.MedianBlur((3, 7), p=1), A.ChromaticAberration(mode="random", p=1)]

GAUSSIAN = {"mean_range": (-0.2, 0.2), "std_range": (0.1, 0.2)}
LAPLACE = {"mean_range": (0, 0), "scale_range": (0.1, 0.2)}
BETA = {"alpha_range": (0.5, 1), "beta_range": (0.5, 1), "scale_range": (0.1, 0.5)}
NOISE = [
    A.GaussNoise(p=0.8),
    A.GaussNoise((0.0, 0.1), (-0.5, 0.5), per_channel=False, noise_scale_factor=0.5, p=1),
    A.AdditiveNoise(noise_params={"ranges": [(-0.2, 0.2)]}, p=0.8),
    A.AdditiveNoise("gaussian", "per_pixel", GAUSSIAN, approximation=0.3, p=1),
    A.AdditiveNoise("laplace", "shared", LAPLACE, p=1),
    A.AdditiveNoise("beta", "per_pixel", BETA, p=1),
    A.RGBShift(p=0.8),
    A.RGBShift((-255, 255), (0, 255), (0.1, 0.4), p=1),
    A.MultiplicativeNoise(p=0.8),
    A.MultiplicativeNoise((0, 3), per_channel=True, p=1),
    A.MultiplicativeNoise((0, 3), elementwise=True, p=1),
    A.MultiplicativeNoise((0, 3), per_channel=True, elementwise=True, p=1),
    A.SaltAndPepper(p=0.8),
    A.SaltAndPepper((0.2, 0.9), (0, 1), p=1),
    A.Illumination(p=0.8),
    A.Illumination("corner", (0.1, 0.2), p=1),
    A.Illumination("gaussian", (0.1, 0.2), p=1),
    A.PlasmaShadow(p=0.8),
    A.PlasmaBrightnessContrast(p=0.8),
    A.PlasmaBrightnessContrast((0.1, 0.9), (0.1, 0.9), p=1),
    A.RandomShadow(p=0.8),
    A.RandomShadow((0, 0, 1, 1), (1, 2), shadow_intensity_range=(0, 1), p=1),
    A.RandomRain(p=0.8),
    A.RandomRain((-20, 20), 5, 2, (10, 255, 99), 1, 1.0, "heavy", p=1),
    A.Spatter(p=0.8),
    A.Spatter(mode="mud", p=1),
]

GEOMETRY = [*CROPS, *BOXED, *RESIZES, *PADS, *FLIPS, *WARPS, *DROPS]
CASES = [*GEOMETRY, *DISTORTIONS, PIECEWISE, *LEVELS, *COLORS, *FILTERS, *ON_A_GPU_ONLY, *NOISE]
