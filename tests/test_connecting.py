"""What connecting and disconnecting leave behind: nothing that Django's own signals would not."""

from __future__ import annotations

import gc
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.dispatch import Signal

from async_signals import AsyncSignal, SenderRef, names, senders

#: More than what a test's own frames may keep, and far less than one object for each sender.
FEW = 100
MANY = 1000


def stays(sender: Any, **kwargs: Any) -> None:
    """Connected, and held by this module."""


@contextmanager
def nothing_stays() -> Iterator[None]:
    gc.collect()
    before = len(gc.get_objects())
    yield
    gc.collect()
    assert len(gc.get_objects()) - before < FEW


@pytest.fixture(params=[False, True], ids=["uncached", "cached"])
def signal(request: pytest.FixtureRequest) -> AsyncSignal:
    return AsyncSignal(name=f"{__name__}.{request.node.name}", use_caching=request.param)


def test_nothing_stays_of_senders_that_were_disconnected(signal: AsyncSignal) -> None:
    signal.connect(stays, sender="another")
    with nothing_stays():
        for number in range(MANY):
            # Strongly: Django 5.2 itself keeps something for each weak connection of a receiver that is there.
            signal.connect(stays, sender=number, weak=False)
        assert signal.has_listeners(5)
        for number in range(MANY):
            assert signal.disconnect(stays, sender=number)
        assert not signal.has_listeners(5)
    assert signal.has_listeners("another")


def test_nothing_stays_of_receivers_that_are_gone(signal: AsyncSignal) -> None:
    def receivers(number: int) -> Callable[..., None]:
        def goes(sender: Any, **kwargs: Any) -> None:
            raise AssertionError(number)

        return goes

    signal.connect(stays, sender="another")
    with nothing_stays():
        connected = [receivers(number) for number in range(MANY)]
        for number, goes in enumerate(connected):
            signal.connect(goes, sender=number)
            assert signal.has_listeners(number)
        connected.clear()
        del goes
        gc.collect()
        assert not signal.has_listeners(5)
    assert signal.has_listeners("another")
    assert len(signal.receivers) == 1


@pytest.mark.parametrize("caching", [False, True])
def test_classes_that_are_gone_are_forgotten_as_django_forgets_them(caching: bool) -> None:
    """Django 6 forgets the receivers of a sender that is gone; Django 5.2 keeps them, and so do we."""

    def left(signal: Signal) -> int:
        classes = [type("Gone", (), {}) for _ in range(10)]
        for each in classes:
            signal.connect(stays, sender=each)
            assert signal.has_listeners(each)
        signal.connect(stays, sender=AsyncSignal)
        classes.clear()
        del each
        gc.collect()
        assert signal.has_listeners(AsyncSignal)
        assert not signal.has_listeners(Signal)
        return len(signal.receivers)

    forgets = left(Signal()) == 1
    # Ours tell classes apart by their names: these ten are one sender.
    assert left(AsyncSignal(name="gone", use_caching=caching)) == (1 if forgets else 2)


def test_a_value_is_not_gone_with_an_object_that_was_equal_to_it(signal: AsyncSignal) -> None:
    signal.connect(stays, sender=SenderRef(["class", "nowhere.Found"]))
    gc.collect()
    assert signal.has_listeners(SenderRef(["class", "nowhere.Found"]))


def test_at_the_same_time(signal: AsyncSignal) -> None:
    """No receiver is lost because another one of the same sender is disconnected just now."""
    ended = threading.Event()

    def other(sender: Any, **kwargs: Any) -> None: ...

    def disturb() -> None:
        while not ended.is_set():
            signal.connect(other, sender="shop")
            signal.disconnect(other, sender="shop")

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(MANY):
            signal.connect(stays, sender="shop")
            assert stays in signal._live_receivers("shop")[0]
            assert signal.disconnect(stays, sender="shop")
    finally:
        ended.set()
        thread.join()


def _connect_in_child() -> None:
    AsyncSignal(name="made in a child").connect(stays, sender="child")


def test_a_lock_that_was_held_in_the_parent_is_free_in_the_child() -> None:
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with senders._lock, names._lock:
            held.set()
            over.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    child = multiprocessing.get_context("fork").Process(target=_connect_in_child)
    child.start()
    child.join(30)
    over.set()
    thread.join()
    alive = child.is_alive()
    child.kill()
    assert not alive
    assert child.exitcode == 0
