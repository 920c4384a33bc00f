"""The service behind HTTP, in the shape of vLLM-Omni's and OpenAI's endpoints for videos."""
