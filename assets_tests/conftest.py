"""For every test: no property has a time limit of its own, because machines are busy; each test has pytest's time-out."""

from hypothesis import settings

settings.register_profile("boucle", deadline=None)
settings.load_profile("boucle")
