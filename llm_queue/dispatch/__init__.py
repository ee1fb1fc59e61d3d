"""The line at work: jobs come in, the scheduler decides, attempts run, and callers are told."""
