"""``llm-queue service``: have the line started with every session."""
