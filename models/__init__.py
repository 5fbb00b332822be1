"""Adapters from Hugging Face video LLMs to the engine, and the bundled tiny model."""
