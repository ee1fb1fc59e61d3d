"""The dialects that callers speak to us."""
