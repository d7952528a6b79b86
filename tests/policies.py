"""Random Albumentations policies for property tests."""

from __future__ import annotations

from typing import Any

import albumentations as A
from hypothesis import strategies as st

CROPPED = (40, 48)


def leaves() -> st.SearchStrategy[Any]:
    """Transforms that keep working whatever stands before them on pictures of at least 64 pixels a side."""
    p = st.sampled_from([0.3, 0.7, 1.0])
    return st.one_of(
        st.builds(A.HorizontalFlip, p=p),
        st.builds(A.VerticalFlip, p=p),
        st.builds(A.Transpose, p=p),
        st.builds(A.RandomRotate90, p=p),
        st.builds(A.D4, p=p),
        st.builds(A.Affine, rotate=st.just((-30, 30)), scale=st.just((0.8, 1.2)), p=p),
        st.builds(A.RandomBrightnessContrast, p=p),
        st.builds(A.RandomGamma, p=p),
        st.builds(A.GaussNoise, p=p),
        st.builds(A.HueSaturationValue, p=p),
        st.builds(A.GaussianBlur, p=p),
        st.builds(A.CoarseDropout, p=p),
        st.builds(A.ChannelShuffle, p=p),
        st.builds(A.ToGray, p=p),
        st.builds(A.ImageCompression, p=p),
        st.builds(A.GridDistortion, p=p),
        st.builds(A.RandomScale, p=p),
        st.builds(A.PadIfNeeded, min_height=st.just(90), min_width=st.just(110), p=p),
        st.builds(A.RandomSizedCrop, st.just((30, 60)), st.just((70, 72)), p=p),
        st.builds(A.Rotate, crop_border=st.booleans(), p=p),
        st.builds(A.Perspective, keep_size=st.booleans(), p=p),
    )


def policies() -> st.SearchStrategy[list[Any]]:
    """Lists of transforms and nested compositions, some of which cannot be drawn ahead."""
    p = st.sampled_from([0.5, 1.0])

    def nested(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        several = st.lists(children, min_size=1, max_size=3)
        return st.one_of(
            st.builds(A.OneOf, several, p=p),
            st.builds(A.Sequential, several, p=p),
            st.builds(lambda some, p: A.SomeOf(some, n=len(some), p=p), several, p),
            st.builds(lambda some, p: A.RandomOrder(some, n=len(some), p=p), several, p),
            st.builds(A.OneOrOther, children, children, p=p),
        )

    return st.lists(st.recursive(leaves(), nested, max_leaves=4), min_size=1, max_size=4)


def leading_crops() -> st.SearchStrategy[list[Any]]:
    """What a policy may begin with that decoding takes over."""
    size = st.just(CROPPED)
    return st.one_of(
        st.just([]),
        st.builds(lambda size: [A.RandomResizedCrop(size)], size),
        st.builds(lambda: [A.RandomCrop(61, 73), A.CenterCrop(52, 60)]),
        st.builds(lambda size: [A.RandomCropFromBorders(), A.Resize(*size)], size),
        st.builds(lambda: [A.SmallestMaxSize(64), A.CenterCrop(60, 62)]),
        st.builds(lambda size: [A.CenterCrop(70, 80), A.RandomResizedCrop(size)], size),
        st.builds(lambda: [A.RandomCrop(150, 90, pad_if_needed=True)]),
    )
