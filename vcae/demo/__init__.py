"""The web page and the HTTP service, with one file per tab. Needs gradio (`pip install 'vcae[demo]'`)."""
