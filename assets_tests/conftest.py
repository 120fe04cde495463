"""For every test: no property has a time limit of its own (machines are busy); each test has the time-out of pytest."""

from hypothesis import settings

settings.register_profile("boucle", deadline=None)
settings.load_profile("boucle")
