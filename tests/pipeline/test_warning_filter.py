"""Warnings of one thread are silenced, and nothing stays silenced."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from lightwell.pipeline.warning_filter import ignored_warnings
from patience import HANG_S


def test_overlapping_threads_restore_the_filters():
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


def test_another_thread_still_warns_inside_the_context():
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


def test_filters_added_by_others_inside_the_context_are_kept():
    with warnings.catch_warnings():
        with ignored_warnings():
            warnings.filterwarnings("error", message="of the user")
            with ignored_warnings():
                warnings.warn("of the user", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="of the user"):
            warnings.warn("of the user", UserWarning, stacklevel=1)


def test_warnings_are_restored_after_an_error():
    with pytest.raises(KeyError), ignored_warnings():
        raise KeyError
    with pytest.warns(UserWarning, match="shown"):
        warnings.warn("shown", UserWarning, stacklevel=1)
