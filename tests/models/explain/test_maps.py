import numpy as np
import torch
from lightwell.models.explain.maps import is_empty, upsample


def test_the_threshold_of_empty_maps_is_relative_to_the_logit():
    maps = torch.tensor([0.0, 0.9e-6, 1.1e-6, 0.9e-5, 0.0])[:, None, None].expand(5, 7, 7)
    assert is_empty(maps, torch.tensor([2.0, 1.0, -1.0, -10.0, 0.0])).tolist() == [
        True,
        True,
        False,
        True,
        True,
    ]


def test_upsampling_equals_that_of_opencv():
    import cv2

    maps = torch.rand(2, 7, 7, generator=torch.Generator().manual_seed(0))
    wanted = np.stack([cv2.resize(each.numpy(), (130, 97), interpolation=cv2.INTER_LINEAR) for each in maps])
    assert np.abs(upsample(maps, 97, 130).numpy() - wanted).max() < 1e-6
