"""What the campaigns found, as Markdown."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz import campaign
from tests.fuzz.host import Outcome


def report(folder: Path) -> str:
    """Cases by outcome, memory and changes, and each unexpected outcome once with its smallest prompt."""
    return "\n\n".join(_campaign(name, lines) for name, lines in _campaigns(folder).items()) + "\n"


def failures(folder: Path) -> list[dict[str, Any]]:
    """Lines of unexpected outcomes, and of changes that no case may make."""
    lines = [line for found in _campaigns(folder).values() for line in found]
    return [line for line in lines if not Outcome(line["kind"]).expected or line.get("changed")]


def _campaigns(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The lines of all seeds, by campaign."""
    campaigns: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        campaigns.setdefault(path.stem.rsplit("-", 1)[0], []).extend(campaign.read(path))
    return campaigns


def _campaign(name: str, lines: list[dict[str, Any]]) -> str:
    counts = Counter(line["kind"] for line in lines)
    rows = [f"| {kind} | {count} |" for kind, count in counts.most_common()]
    table = "\n".join([f"| {name}: {len(lines)} | cases |", "|---|---|", *rows])
    return "\n\n".join(filter(None, [table, _memory(lines), _found(lines)]))


def _memory(lines: list[dict[str, Any]]) -> str:
    sizes = [line["resident"] / 2**20 for line in lines if "resident" in line]
    if len(sizes) < 2:
        return ""
    middle = sizes[len(sizes) // 2]
    return f"Memory of the process: {sizes[0]:.0f} MB at first, {middle:.0f} MB half-way, {sizes[-1]:.0f} MB at last."


def _found(lines: list[dict[str, Any]]) -> str:
    parts = []
    unexpected = Counter((line["kind"], line["about"]) for line in lines if not Outcome(line["kind"]).expected)
    prompts = {line["about"]: line["prompt"] for line in lines if "prompt" in line}
    for (kind, about), count in unexpected.most_common():
        prompt = f"\n\n  ```json\n  {json.dumps(prompts[about])}\n  ```" if about in prompts else ""
        parts.append(f"- {kind}, {count} times: {about}{prompt}")
    parts += [f"- after case {line['case']}: {', '.join(line['changed'])}" for line in lines if line.get("changed")]
    return "\n".join(parts)
