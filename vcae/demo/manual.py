"""The service's manual as a page without scripts, from its OpenAPI description."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from vcae.figures.page import make_page, make_table

EXAMPLES = """
<h2>Examples</h2>
<pre><code>curl -f -F source=@talk.wav -F reference=@friend.wav http://127.0.0.1:7861/v1/convert -o out.wav
curl -f -F source=@talk.wav -F voice=seed:5 -F format=mp3 http://127.0.0.1:7861/v1/convert -o out.mp3
curl -f -F source=@noisy.wav http://127.0.0.1:7861/v1/denoise -o clean.wav</code></pre>
<p>Python and JavaScript: docs/serve.md in the repository. With API keys, add <code>-H "Authorization: Bearer KEY"</code>.</p>
<p>An error is JSON with one sentence in <code>error</code> and the request's id: 401 without a valid key, 413 too large, 422 unusable input,
503 all places taken (see the header <code>Retry-After</code>). Every answer has the header <code>X-Request-ID</code>, which is in the log too.
Machine-readable: <a href="/openapi.json">openapi.json</a>; counts: <a href="/metrics">metrics</a>; <a href="/health">health</a>.</p>
"""


def manual_html(schema: Mapping[str, Any], limits: str) -> str:
    """Return the manual.

    Args:
        schema: OpenAPI description.
        limits: Sentence about the limits.
    """
    parts = [f"<p>{html.escape(schema['info']['description'])} {html.escape(limits)}</p>", EXAMPLES]
    for path, methods in schema["paths"].items():
        for method, told in methods.items():
            parts.append(f"<h2>{method.upper()} /v1{html.escape(path)}</h2><p>{html.escape(told['description'])}</p>")
            rows = _fields(schema, told)
            if rows:
                parts.append(make_table([("field", "meaning", "default"), *rows]))
    return make_page("vcae over HTTP", {"version": schema["info"]["version"]}, "".join(parts))


def _fields(schema: Mapping[str, Any], told: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    body = told.get("requestBody", {}).get("content", {}).get("multipart/form-data", {}).get("schema", {})
    name = body.get("$ref", "").rpartition("/")[2]
    found = schema.get("components", {}).get("schemas", {}).get(name, {})
    required = set(found.get("required", []))
    rows = []
    for field, facts in found.get("properties", {}).items():
        default = "required" if field in required else str(facts.get("default", ""))
        meaning = facts.get("description", "")
        if "enum" in facts:
            meaning += " One of " + ", ".join(facts["enum"]) + "."
        rows.append((field, meaning, default))
    return rows
