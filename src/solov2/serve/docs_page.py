"""The OpenAPI description as a plain page: no script, nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #8884; --accent: #3b6ef5; }
body { font: 16px/1.55 system-ui, sans-serif; margin: 0 auto; max-width: 52rem; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 1.75rem; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem; color: var(--accent); }
details { border: 1px solid var(--line); border-radius: 10px; margin: .6rem 0; padding: .7rem 1rem; }
summary { cursor: pointer; }
summary code { font-weight: 600; }
.method { display: inline-block; min-width: 3.2rem; color: var(--accent); font: 600 .8rem ui-monospace, monospace; }
code, pre { font-family: ui-monospace, monospace; font-size: .875rem; }
pre { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; padding: .75rem; }
table { border-collapse: collapse; width: 100%; margin: .75rem 0; }
td:first-child { white-space: nowrap; }
td { border-top: 1px solid var(--line); padding: .35rem .75rem .35rem 0; vertical-align: top; }
a { color: var(--accent); }
""".lstrip()


def docs_html(description: Mapping[str, Any]) -> str:
    """The page.

    Args:
        description: an OpenAPI description.
    """
    info = description["info"]
    operations = [
        (method, path, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    tags = list(dict.fromkeys(tag for _, _, operation in operations for tag in operation.get("tags", ["other"])))
    body = "".join(
        f"<h2>{escape(tag)}</h2>"
        + "".join(
            "".join(_operation(method, path, operation))
            for method, path, operation in operations
            if tag in operation.get("tags", ["other"])
        )
        for tag in tags
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(info["title"])} API</title><link rel="icon" href="page/icon.svg">'
        '<link rel="stylesheet" href="docs/style.css"></head><body>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info.get('description', ''))}</p>"
        '<p><a href="./">The page</a> · <a href="openapi.json">openapi.json</a></p>'
        f"<main>{body}</main></body></html>\n"
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<details><summary><span class="method">{method.upper()}</span> <code>{escape(path)}</code> '
    yield f"{escape(operation.get('summary', ''))}</summary>"
    rows = [
        (f"?{each['name']}" if each["in"] == "query" else each["name"], each.get("description", ""), each["schema"])
        for each in operation.get("parameters", [])
    ]
    if rows:
        yield "<table>"
        for name, text, schema in rows:
            yield f"<tr><td><code>{escape(name)}</code></td><td>{escape(text)}</td>"
            yield f"<td>{escape(_values(schema))}</td></tr>"
        yield "</table>"
    body = operation.get("requestBody", {})
    if body:
        kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in body["content"])
        yield f"<p>{escape(body.get('description', ''))} Body: {kinds}</p>"
        yield from _examples(body["content"])
    yield "<table>"
    for status, answer in operation.get("responses", {}).items():
        yield f"<tr><td><code>{escape(str(status))}</code></td><td>{escape(answer.get('description', ''))}</td></tr>"
    yield "</table>"
    for answer in operation.get("responses", {}).values():
        yield from _examples(answer.get("content", {}))
    yield "</details>"


def _examples(content: Mapping[str, Any]) -> Iterator[str]:
    for kind in content.values():
        if "example" in kind:
            yield f"<pre>{escape(json.dumps(kind['example'], indent=2, ensure_ascii=False))}</pre>"


def _values(schema: Mapping[str, Any]) -> str:
    """The allowed values of a parameter in a few words."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    words = []
    for kind in kinds:
        if "enum" in kind:
            words.append(" | ".join(map(str, kind["enum"])))
            continue
        limits = [f"{sign} {kind[key]:g}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in kind]
        words.append(" ".join([str(kind.get("type", "")), *limits]))
    default = schema.get("default")
    return ", ".join(words) + (f"; default {default}" if default is not None else "")
