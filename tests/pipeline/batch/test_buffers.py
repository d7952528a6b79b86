"""Normalization equals Albumentations, and buffers are reused only when unreferenced."""

from __future__ import annotations

import albumentations as A
import numpy as np
import pytest
import torch
from lightwell.pipeline.batch.buffers import BatchBuffer, BufferPool, DeviceBuffer, Normalizer
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.plan.plan import Normalization
from pictures import make_picture

CONSTANTS = Normalization(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def test_normalizing_equals_albumentations_for_every_byte() -> None:
    bytes_hwc = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    out = np.empty((16, 16, 3), np.float32)
    Normalizer(CONSTANTS).write(bytes_hwc, out)
    expected = A.Normalize(CONSTANTS.mean, CONSTANTS.std)(image=bytes_hwc)["image"]
    np.testing.assert_allclose(out, expected, atol=2e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 50_000), (500, 700)])
def test_normalizing_in_strips_leaves_no_seam(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    out = np.full((*size, 3), np.nan, np.float32)
    Normalizer(CONSTANTS).write(image, out)
    np.testing.assert_allclose(
        out, A.Normalize(CONSTANTS.mean, CONSTANTS.std)(image=image)["image"], atol=2e-6
    )


def test_an_image_written_to_its_output_slot_is_not_copied_and_any_other_is() -> None:
    buffer = BatchBuffer(4, None, BufferPool())
    pictures = [make_picture(number, 8, 8) for number in range(4)]
    output_slots = [buffer.output_slot(row, (8, 8)) for row in range(4)]
    assert all(output_slot is not None for output_slot in output_slots)
    output_slots[0][:] = pictures[0]
    output_slots[1][:] = pictures[1]
    output_slots[2][:] = pictures[2]
    buffer.put(0, "a", output_slots[0])
    buffer.put(1, "b", output_slots[1][:, ::-1])  # flipped view without copying
    buffer.put(2, "c", output_slots[2].transpose(1, 0, 2))
    buffer.put(3, "d", pictures[3])
    expected = [pictures[0], pictures[1][:, ::-1], pictures[2].transpose(1, 0, 2), pictures[3]]
    assert np.array_equal(buffer.tensor().numpy(), np.stack(expected))


def test_there_is_no_output_slot_for_normalized_pixels_or_another_size() -> None:
    assert BatchBuffer(1, Normalizer(CONSTANTS), BufferPool()).output_slot(0, (8, 8)) is None
    buffer = BatchBuffer(2, None, BufferPool())
    assert buffer.output_slot(0, (8, 8)) is not None
    assert buffer.output_slot(1, (9, 8)) is None
    buffer.put(
        0, "gray", np.zeros((8, 8, 1), np.uint8)
    )  # the slot was RGB: the first image determines the format
    assert buffer.tensor().shape == (2, 8, 8, 1)
    assert buffer.output_slot(1, (8, 8)) is None


def test_a_buffer_is_reused_once_its_batch_is_gone() -> None:
    pool = BufferPool()
    first = pool.take((2, 8, 8, 3), np.uint8)
    address = first.ctypes.data
    tensor = torch.from_numpy(first)
    view = tensor[0].float  # a bound method holds the tensor
    del first, tensor
    assert pool.take((2, 8, 8, 3), np.uint8).ctypes.data != address
    del view
    assert pool.take((2, 8, 8, 3), np.uint8).ctypes.data == address


@pytest.mark.parametrize("hold", [lambda t: t[0], lambda t: t.numpy(), lambda t: t.permute(0, 3, 1, 2)])
def test_no_view_of_a_batch_is_ever_overwritten(hold: object) -> None:
    pool = BufferPool()
    array = pool.take((2, 8, 8, 3), np.uint8)
    array[:] = 7
    held = hold(torch.from_numpy(array))  # type: ignore[operator]
    del array
    pool.take((2, 8, 8, 3), np.uint8)[:] = 9
    assert (np.asarray(held) == 7).all()


def test_buffers_of_another_size_are_released() -> None:
    pool = BufferPool()
    pool.take((2, 8, 8, 3), np.uint8)
    pool.take((2, 9, 9, 3), np.uint8)
    assert [array.shape for array in pool._arrays] == [(2, 9, 9, 3)]


def test_the_error_of_another_size_names_both_images_and_the_fix() -> None:
    for buffer in (BatchBuffer(2, None, BufferPool()), DeviceBuffer(2, None, "cpu")):
        buffer.put(0, "a", make_picture(0, 8, 9))
        with pytest.raises(PlanError, match=r"got 9x8 \('a'\) and 8x8 \('b'\); end preprocess with a Resize"):
            buffer.put(1, "b", make_picture(0, 8, 8))


def test_the_error_of_normalizing_gray_images_names_the_fix() -> None:
    buffer = BatchBuffer(1, Normalizer(CONSTANTS), BufferPool())
    with pytest.raises(PlanError, match="num_output_channels: 3"):
        buffer.put(0, "a", np.zeros((4, 4, 1), np.uint8))


def test_a_batch_collated_on_a_device_equals_one_collated_on_the_host() -> None:
    pictures = [make_picture(number, 12, 10) for number in range(3)]
    for constants in (None, CONSTANTS):
        host = BatchBuffer(3, None if constants is None else Normalizer(constants), BufferPool())
        device = DeviceBuffer(3, constants, "cpu")
        for row, picture in enumerate(pictures):
            host.put(row, str(row), picture)
            device.put(row, str(row), torch.from_numpy(picture) if row % 2 else picture)
        assert host.tensor().shape == device.tensor().shape
        assert host.tensor().stride() == device.tensor().stride()
        torch.testing.assert_close(device.tensor(), host.tensor(), atol=2e-6, rtol=0)
