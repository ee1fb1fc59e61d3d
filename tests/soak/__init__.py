"""A long run under random load and faults, and what must hold all the while: ``nox -s soak``."""
