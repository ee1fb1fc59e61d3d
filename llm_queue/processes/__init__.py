"""Programs of this machine: which one is behind a connection, and what people call it."""
