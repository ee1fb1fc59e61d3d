"""Three small programs that share one model through the line, for somebody who wants to see it work."""
