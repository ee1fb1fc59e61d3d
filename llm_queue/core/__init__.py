"""Who goes next, and what follows from what happens: pure, without I/O and without a clock of its own."""
