"""What ``demo.py`` is made of; standard library only.

``processes`` starts and stops, ``customer`` speaks HTTP, ``story`` says who orders what
and which effects that must have, ``account`` tells what happened.
"""
