"""Engines that run models. What the line asks of one stands in :mod:`llm_queue.upstream.protocol`."""
