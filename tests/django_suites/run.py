"""Runs Django's own tests with AsyncSignal in the place of Signal: run.py FOLDER SUITE ...

FOLDER is Django's source distribution, unpacked.
"""

import runpy
import sys
import warnings
from pathlib import Path

import django.dispatch
import django.dispatch.dispatcher

source, *suites = sys.argv[1:]

from async_signals import AsyncSignal, CeleryNotConfigured  # noqa: E402

# Before anything defines the signals that are tested: those of models are made by a subclass of Signal.
assert "django.db.models.signals" not in sys.modules, "imported too early: its signals would stay Django's own"
django.dispatch.Signal = AsyncSignal
django.dispatch.dispatcher.Signal = AsyncSignal

from django.db.models.signals import ModelSignal, pre_save  # noqa: E402

assert issubclass(ModelSignal, AsyncSignal)
assert isinstance(pre_save, AsyncSignal)

# No Celery is configured here: each send says so and runs the receivers, which is what the suites are about.
warnings.filterwarnings("ignore", category=CeleryNotConfigured)

tests = Path(source) / "tests"
sys.path.insert(0, str(tests))
sys.argv = ["runtests.py", "--parallel=1", *suites]
runpy.run_path(str(tests / "runtests.py"), run_name="__main__")
