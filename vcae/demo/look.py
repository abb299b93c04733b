"""Style of the page: system fonts, one colour, light and dark, wide and narrow."""

from __future__ import annotations

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
CSS = """
.gradio-container { max-width: 64rem !important; min-width: 0 !important; width: 100%; margin: 0 auto !important; padding: 0 !important; }
.vcae-head h1 { font-size: 1.7rem; letter-spacing: -.02em; margin: 1.2rem 0 .1rem; }
.vcae-head p { margin: 0 0 .3rem; color: var(--body-text-color-subdued); }
.vcae-lead p { font-size: 1.02rem; margin: .2rem 0 .3rem; }
.html-container { padding: 0 !important; }
.vcae-note { margin: .1rem 0; font-size: .92rem; line-height: 1.45; color: var(--body-text-color-subdued); }
.vcae-done { color: var(--body-text-color); border-left: 3px solid var(--color-accent); padding-left: .7rem; }
.vcae-error { color: var(--error-text-color); border-left: 3px solid var(--error-icon-color); padding-left: .7rem; }
.vcae-facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 12rem), 1fr)); gap: .6rem 1.2rem; margin: .2rem 0; }
.vcae-facts > div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.vcae-facts dd { margin: 0; font-size: 1.5rem; font-weight: 600; letter-spacing: -.01em; font-variant-numeric: tabular-nums; }
.vcae-facts dt { font-size: .88rem; color: var(--body-text-color-subdued); }
.vcae-list { max-height: 9rem; overflow-y: auto; margin-top: .5rem; padding-left: .7rem; font-size: .92rem; }
.vcae-list { border-left: 3px solid var(--error-icon-color); }
.vcae-list p { margin: 0; font-weight: 600; }
.vcae-list ul { margin: 0; padding-left: 1.1rem; list-style: disc; }
.vcae-actions { align-items: stretch; }
.vcae-beside { align-items: flex-end; }
button.secondary { font-weight: 500 !important; }
#convert-status, #units-status, #codec-status, #anomaly-status, #voice-status, #generate-status { min-height: 3.4rem; }
.vcae-pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
#codec-pictures .vcae-pair { grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.vcae-figure { margin: 0; min-width: 0; }
.vcae-figure img { width: 100%; height: auto; display: block; }
.vcae-wide { overflow-x: auto; }
.vcae-wide img { width: auto; max-width: none; height: 23rem; }
.vcae-card { background: #fff; border-radius: var(--radius-lg); padding: .5rem; margin-top: .8rem; overflow-x: auto; }
.vcae-card img { max-width: 60rem; min-width: 34rem; }
.block:has(.wrap .error, .wrap .progress-level, .wrap .progress-text) .vcae-note { visibility: hidden; }
.vcae-table, .prose { overflow-x: auto; overflow-y: hidden; }
.prose table { border: 0 !important; border-collapse: collapse !important; font-variant-numeric: tabular-nums; width: auto !important; }
.prose :is(th, td) {
  text-align: left; padding: .45rem 1.2rem .45rem 0 !important; border: 0 !important; min-width: 5rem; vertical-align: top;
  border-bottom: 1px solid var(--border-color-primary) !important; overflow-wrap: normal !important; word-break: normal !important;
}
.prose :is(tr, thead, tbody) { border: 0 !important; }
.vcae-table :is(th, td) { white-space: nowrap; }
.prose pre { overflow-x: auto; }
.prose :is(h3, h4) { margin-top: 1.1rem; }
:focus-visible { outline: 2px solid var(--color-accent) !important; outline-offset: 2px; }
footer { display: none !important; }
.vcae-foot p { font-size: .85rem; color: var(--body-text-color-subdued); margin: 1rem 0 1.5rem; }
@media (max-width: 640px) {
  .gradio-container main.contain, .gradio-container .wrap { min-width: 0; }
  .gradio-container > .main { padding: .6rem .9rem !important; }
  .gradio-container .tab-container button { padding: 0 .6rem !important; }
  .vcae-head h1 { font-size: 1.4rem; margin-top: .8rem; }
  .vcae-actions { flex-wrap: wrap; }
  .vcae-actions :is(#convert, #codec-go, #codec-say) { flex-basis: 100%; }
  .vcae-wide img { height: 17rem; }
}
"""
DESCRIPTION = '<meta name="description" content="Voice conversion on this machine alone.">'


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
        button_primary_background_fill_hover_dark="*primary_600",
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
