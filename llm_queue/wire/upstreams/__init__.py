"""The dialects that we speak to upstreams."""
