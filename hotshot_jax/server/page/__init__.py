"""The page: Gradio on the server's app, over the same jobs."""
