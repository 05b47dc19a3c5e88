"""Answer requests with models: an engine for this process, an OpenAI-compatible server, a chat."""
