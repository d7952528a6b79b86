import math

import numpy as np
import pytest
import torch
from lightwell.models.explain.maps import border_mass, concentration, is_empty, peak, upsample


def test_border_mass_equals_that_of_the_upsampled_map():
    maps = torch.rand(6, 7, 5, generator=torch.Generator().manual_seed(0))
    for height, width, border in [(224, 224, 0.1), (97, 131, 0.2), (50, 20, 0.45), (7, 5, 0.2), (5, 4, 0.2)]:
        large = upsample(maps.double(), height, width)
        rows, columns = round(border * height), round(border * width)
        inner = large[:, rows : height - rows, columns : width - columns].sum((1, 2))
        wanted = (1 - inner / large.sum((1, 2))).float()
        assert torch.allclose(border_mass(maps, border, height, width), wanted, atol=1e-6)


def test_extremes_of_border_mass():
    maps = torch.zeros(3, 7, 7)
    maps[0] = 1
    maps[1, 3, 3] = 1
    found = border_mass(maps, 0.1)
    assert found[0] == pytest.approx(1 - (180 / 224) ** 2, abs=1e-6)
    assert found[1] == pytest.approx(0, abs=1e-6)
    assert math.isnan(found[2])
    with pytest.raises(ValueError, match=r"0 and below 0\.5"):
        border_mass(maps, 0.5)


def test_concentration_is_0_for_a_uniform_map_and_1_for_a_single_cell():
    maps = torch.zeros(4, 8, 8)
    maps[0] = 0.3
    maps[1, 2, 5] = 7
    maps[2, 0] = 1  # 8 of 64 cells: entropy log 8 of log 64
    found = concentration(maps)
    assert found[:3].tolist() == pytest.approx([0, 1, 0.5], abs=1e-6)
    assert math.isnan(found[3])
    assert torch.equal(concentration(maps[:3] * 1000), found[:3])
    assert math.isnan(concentration(torch.ones(1, 1, 1))[0])


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


def test_the_peak_is_the_maximum_pixel_as_x_and_y():
    maps = torch.rand(8, 7, 7, generator=torch.Generator().manual_seed(0))
    large = upsample(maps, 100, 60)
    for (x, y), one in zip(peak(maps, 100, 60).tolist(), large, strict=True):
        assert one[y, x] == one.max()
    corner = torch.zeros(2, 7, 7)
    corner[0, 0, 6] = 1
    assert peak(corner, 70, 140).tolist() == [[130, 0], [-1, -1]]
