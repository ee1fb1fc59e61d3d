"""What became of each job, as spans of OpenTelemetry. Nothing of that is imported where it is not asked for."""
