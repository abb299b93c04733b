"""The page and the HTTP service, on public names alone: one file a tab. Needs gradio (`pip install 'vcae[demo]'`)."""
