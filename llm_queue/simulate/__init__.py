"""The core in virtual time: the stories that ``llm-queue simulate`` plays, and the orders that it compares."""
