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

DjangosSignal = django.dispatch.Signal
django.dispatch.Signal = AsyncSignal
django.dispatch.dispatcher.Signal = AsyncSignal

from django.db.models import signals  # noqa: E402
from django.dispatch import Signal  # noqa: E402

# Models' signals are made as django.db is imported, which may be earlier than ours can be: these become what they would
# have been.
if not issubclass(signals.ModelSignal, AsyncSignal):
    made = [found for found in vars(signals).values() if isinstance(found, DjangosSignal)]
    signals.ModelSignal.__bases__ = (AsyncSignal,)
    for found in made:
        connected = found.receivers
        if not isinstance(found, AsyncSignal):
            found.__class__ = AsyncSignal
        found.__init__(use_caching=found.use_caching)
        found.receivers = connected

assert Signal is AsyncSignal
assert issubclass(signals.ModelSignal, AsyncSignal)
assert isinstance(signals.pre_save, AsyncSignal)
assert isinstance(signals.class_prepared, AsyncSignal)

# No Celery is configured here: each send says so and runs the receivers, which is what the suites are about.
warnings.filterwarnings("ignore", category=CeleryNotConfigured)

tests = Path(source) / "tests"
sys.path.insert(0, str(tests))
sys.argv = ["runtests.py", "--parallel=1", *suites]
runpy.run_path(str(tests / "runtests.py"), run_name="__main__")
