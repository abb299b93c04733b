"""Pages that are made when the documentation is built: commands from their help, Python names, model cards, recipes.

MkDocs calls the functions `on_...`. Links from a page to a file of the repository lead to that file's page, or become plain text where it has none.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import reference  # noqa: E402
import sounds  # noqa: E402

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def copied_pages() -> dict[str, str]:
    """Return the pages and pictures of the repository outside docs/ that the site has, by their path in the repository."""
    pages = {
        "demo/README.md": "pages/demo.md",
        "demo/clips/NOTICE.md": "pages/licences.md",
        "CHANGELOG.md": "pages/changelog.md",
        "CONTRIBUTING.md": "pages/contributing.md",
        "SECURITY.md": "pages/security.md",
    }
    for card in sorted((ROOT / "vcae/weights").glob("*.md")):
        pages[f"vcae/weights/{card.name}"] = f"models/{card.name}"
    for recipe in sorted((ROOT / "recipes").glob("*/README.md")):
        pages[f"recipes/{recipe.parent.name}/README.md"] = f"recipes/{recipe.parent.name}.md"
        pages |= {f"recipes/{recipe.parent.name}/{one.name}": f"recipes/{one.name}" for one in recipe.parent.glob("*.png")}
    return pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages that are made into the navigation, where it says `FOLDER/*`, and at its end those that it does not name."""
    made = [*copied_pages().values(), *reference.pages()]

    def expand(entry: object) -> object:
        if isinstance(entry, list):
            return [expand(one) for one in entry]
        if isinstance(entry, dict):
            return {title: expand(inside) for title, inside in entry.items()}
        if isinstance(entry, str) and entry.endswith("/*"):
            return [page for page in made if page.startswith(entry[:-1]) and page.endswith(".md")]
        return entry

    nav = expand(config.nav)
    named = str(nav)
    left = [path.relative_to(ROOT / "docs").as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]
    more = [page for page in left if f"'{page}'" not in named]
    config.nav = [*nav, *([{"More": more}] if more else [])]  # type: ignore[assignment, misc]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and sounds that are made."""
    for path, page in copied_pages().items():
        files.append(File.generated(config, page, content=(ROOT / path).read_bytes()))
    for page, text in reference.pages().items():
        files.append(File.generated(config, page, content=text))
    for path in sounds.made():
        files.append(File.generated(config, f"sounds/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page to the pages of the site."""
    if "<!-- sounds -->" in markdown:
        markdown = markdown.replace("<!-- sounds -->", sounds.table())
    origins = {page: path for path, page in copied_pages().items()}
    here = page.file.src_uri
    return point_links(markdown, here, origins.get(here, f"docs/{here}"))


def point_links(markdown: str, here: str, origin: str) -> str:
    """Return a page with its links to files of the repository changed to the site's.

    Args:
        markdown: Text of the page.
        here: Path of the page in the site.
        origin: Path of the page in the repository, to which its links are relative.
    """
    copies = copied_pages()

    def changed(found: re.Match[str]) -> str:
        picture, text, target, anchor = found[1], found[2], found[3], found[4] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if not target or re.match(r"[a-z]+:", target) or not (ROOT / path).exists():
            return found[0]
        if (ROOT / path / "README.md").exists():
            path += "/README.md"
        goal = path.removeprefix("docs/") if path.startswith("docs/") else copies.get(path)
        if goal is None:
            return text
        return f"{picture}[{text}]({posixpath.relpath(goal, posixpath.dirname(here) or '.')}{anchor})"

    # Code is left as it is.
    parts = re.split(r"(^```[\s\S]*?^```|^(?: {4}[^\n]*\n)+|`[^`\n]*`)", markdown, flags=re.M)
    return "".join(part if n % 2 else LINK.sub(changed, part) for n, part in enumerate(parts))
