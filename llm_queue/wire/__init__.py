"""Dialects: pure translators between what goes over the wire and the shapes in :mod:`llm_queue.wire.shapes`."""
