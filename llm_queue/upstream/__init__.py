"""Engines that run models. An engine knows nothing of the line but the few shapes in :mod:`llm_queue.upstream.protocol`."""
