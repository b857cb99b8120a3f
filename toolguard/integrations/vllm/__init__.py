"""The vLLM plugin: requests with tools are guarded, for clients that know nothing of it."""
