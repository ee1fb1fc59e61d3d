"""One line in front of a local Ollama: every program waits its turn, and the model loads once and stays."""
