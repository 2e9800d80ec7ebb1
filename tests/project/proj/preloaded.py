"""The project for `gunicorn --preload`, with a signal sent before the workers are forked."""

from proj.wsgi import application
from shopapp.signals import order_placed

__all__ = ["application"]

order_placed.send(sender="preload", order_id=0)
