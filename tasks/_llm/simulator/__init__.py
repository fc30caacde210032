"""A simulated LLM behind a real OpenAI-compatible HTTP endpoint. It is no language model."""
