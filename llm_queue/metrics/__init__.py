"""What the line does, in numbers for Prometheus: an observer of the line, and what is read when somebody asks."""
