"""Style of the page: system fonts, one colour, light and dark, wide and narrow."""

from __future__ import annotations

from importlib import resources

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
CSS = (resources.files("vcae.demo") / "assets" / "page.css").read_text(encoding="utf-8")
HEAD = (
    '<meta name="description" content="Say it in another voice, on this machine alone.">'
    '<script src="studio/assets/studio.js" defer></script><script src="studio/assets/live.js" defer></script>'
    '<script src="studio/assets/folders.js" defer></script><script src="studio/assets/words.js" defer></script>'
)


def make_theme() -> gr.themes.Base:
    """Return gradio's plain theme with system fonts, so that no font is fetched."""
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=FONTS,
        font_mono=MONO,
    )
    theme.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        button_large_text_weight="600",
        block_label_text_weight="600",
        button_secondary_background_fill="*background_fill_primary",
        button_secondary_background_fill_hover="*background_fill_secondary",
        button_secondary_background_fill_dark="transparent",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_600",
        button_border_width="1px",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_border_width="1px",
    )
    return theme
