"""Warnings of one thread are silenced, and nothing stays silenced."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from lightwell.pipeline.warning_filter import ignored_warnings
from patience import HANG_S


def test_threads_that_overlap_leave_the_filters_as_they_were():
    before = list(warnings.filters)
    gate = threading.Barrier(4, timeout=HANG_S)

    def inside(_):
        with ignored_warnings(), ignored_warnings():
            gate.wait()
            warnings.warn("not shown", UserWarning, stacklevel=1)
            gate.wait()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(inside, range(4)))
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="shown"):
        warnings.warn("shown", UserWarning, stacklevel=1)


def test_another_thread_still_warns_while_one_is_inside():
    entered, leave = threading.Event(), threading.Event()

    def inside():
        with ignored_warnings():
            entered.set()
            leave.wait(HANG_S)

    thread = threading.Thread(target=inside)
    thread.start()
    assert entered.wait(HANG_S)
    try:
        with pytest.warns(UserWarning, match="here"):
            warnings.warn("here", UserWarning, stacklevel=1)
    finally:
        leave.set()
        thread.join()


def test_filters_set_meanwhile_by_others_stay():
    with warnings.catch_warnings():
        with ignored_warnings():
            warnings.filterwarnings("error", message="of the user")
            with ignored_warnings():
                warnings.warn("of the user", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="of the user"):
            warnings.warn("of the user", UserWarning, stacklevel=1)


def test_an_error_inside_ends_the_silence():
    with pytest.raises(KeyError), ignored_warnings():
        raise KeyError
    with pytest.warns(UserWarning, match="shown"):
        warnings.warn("shown", UserWarning, stacklevel=1)
