"""The checker: one program, in the manner of Jepsen, that says what a fault has cost.

Senders (`sender.py`) and receivers (`receivers.py`), each in processes that may be killed at any moment, write down
what they did (`journal.py`). From both, and from the dead letters, the judge (`verdict.py`) says whether all that was
accepted ran or is dead-lettered, whether anything ran that was refused, and whether every send ended in time.

`trial.py` is what a test holds; `fleet.py` kills workers at random; `guarantees.py` says what is expected of which
worker on which broker, and is where the documentation's table comes from.
"""
