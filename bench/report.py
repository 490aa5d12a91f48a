"""What a run found, as JSON, Markdown and SVG."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from contestants import Contestant

Rows = list[dict[str, Any]]
LABELS = {
    "item": "GET of one item",
    "list": "list of 20 of 1,000 items",
    "endless": "20 posts, 500 deep",
    "post": "POST of an item",
    "order": "order of three lines",
    "sign-in": "sign-in",
    "mix": "mix, 80 % reads",
}
BAR, GAP, LEFT, WIDTH = 16, 5, 190, 760
STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#57606a} .h{font-weight:600} .o{fill:#0a7d4f} .p{fill:#9aa4af}",
    ".w{stroke:#57606a} @media(prefers-color-scheme:dark){text{fill:#b1bac4} .w{stroke:#b1bac4} .p{fill:#5d6773}}",
    "</style>",
)


@dataclass
class Report:
    """Everything that was measured."""

    options: dict[str, Any]
    environment: dict[str, str]
    contestants: Sequence[Contestant]
    measurements: Rows = field(default_factory=list[dict[str, Any]])
    starts: Rows = field(default_factory=list[dict[str, Any]])
    growth: Rows = field(default_factory=list[dict[str, Any]])

    def write(self, folder: Path) -> str:
        """Write the three files; returns the Markdown."""
        folder.mkdir(parents=True, exist_ok=True)
        name = "busy" if self.options["busy"] else "quiet"
        raw = {"options": self.options, "environment": self.environment}
        raw |= {"measurements": self.measurements, "starts": self.starts, "growth": self.growth}
        (folder / f"{name}.json").write_text(json.dumps(raw, indent=1) + "\n")
        markdown = "\n".join(self.markdown())
        (folder / f"{name}.md").write_text(markdown + "\n")
        (folder / f"{name}.svg").write_text("\n".join(self.svg()) + "\n")
        return markdown

    def markdown(self) -> Iterable[str]:
        """The tables."""
        yield "# Stockroom beside its peers\n"
        for name, value in self.environment.items():
            yield f"- {name}: {value}"
        load = "one core kept busy by something else" if self.options["busy"] else "nothing else on purpose"
        yield f"- {self.options['rounds']} rounds of {self.options['seconds']} s each, {load}\n"
        for one in self.contestants:
            yield f"- **{one.title}**: {one.settings}"
        for workers in sorted({row["workers"] for row in self.measurements}):
            yield f"\n## {workers} worker{'s' if workers > 1 else ''}\n"
            yield "| work | connections | contestant | requests/s (min–max) | ours ÷ its | p50 ms | p99 ms | errors |"
            yield "|---|--:|---|--:|--:|--:|--:|--:|"
            for work, connections in self._works(workers):
                for one in self.contestants:
                    if rows := self._rows(one.name, work, workers, connections):
                        yield self._line(one, work, workers, connections, rows)
        if self.starts:
            yield from self._sizes()
        if self.growth:
            yield from self._growth()

    def _line(self, one: Contestant, work: str, workers: int, connections: int, rows: Rows) -> str:
        ours = {row["round"]: row for row in self._rows("stockroom", work, workers, connections)}
        pairs = [(ours[row["round"]], row) for row in rows if row["round"] in ours]
        errors = sum(sum(row["errors"].values()) for row in rows)
        ratios = [mine["requests_per_second"] / its["requests_per_second"] for mine, its in pairs if _counts(mine, its)]
        ratio = "" if one.name == "stockroom" or not ratios or not _counts(*rows) else _spread(ratios, "{:.2f}")
        rates = [row["requests_per_second"] for row in rows]
        rate = "**fails**" if errors else _spread(rates, "{:,.0f}") if min(rates) else "**none finished**"
        p50, p99 = (median(row[name] for row in rows) for name in ("p50_ms", "p99_ms"))
        label = LABELS.get(work, work)
        return f"| {label} | {connections} | {one.title} | {rate} | {ratio} | {p50:.1f} | {p99:.1f} | {errors} |"

    def _sizes(self) -> Iterable[str]:
        yield "\n## Start and memory\n"
        yield "From the start of the process to the first answer of its readiness check; resident memory after load.\n"
        yield "| contestant | workers | s to ready: median (min–max) | MB, largest process | MB, all processes |"
        yield "|---|--:|--:|--:|--:|"
        for one in self.contestants:
            for workers in sorted({row["workers"] for row in self.measurements}):
                starts = [
                    row["seconds"] for row in self.starts if (row["contestant"], row["workers"]) == (one.name, workers)
                ]
                rows = [row for row in self.measurements if (row["contestant"], row["workers"]) == (one.name, workers)]
                if starts and rows:
                    largest, total = (max(row[name] for row in rows) for name in ("largest_mb", "total_mb"))
                    yield f"| {one.title} | {workers} | {_spread(starts, '{:.2f}')} | {largest:.0f} | {total:.0f} |"

    def _growth(self) -> Iterable[str]:
        amounts = sorted({row["rows"] for row in self.growth})
        yield "\n## Growth\n"
        yield "Stockroom alone: median p50 in ms by the rows of each kind; one worker, one connection.\n"
        yield f"| path | {' | '.join(f'{amount:,}' for amount in amounts)} | last ÷ first |"
        yield f"|---|{'--:|' * (len(amounts) + 1)}"
        for path in dict.fromkeys(row["path"] for row in self.growth):
            rows = [row for row in self.growth if row["path"] == path]
            failed = not _counts(*rows)
            times = [median(row["p50_ms"] for row in rows if row["rows"] == amount) for amount in amounts]
            cells = " | ".join(f"{time:.1f}" for time in times)
            yield f"| `{path}` | {cells} | {'**fails**' if failed else f'{times[-1] / times[0]:.2f}'} |"

    def _works(self, workers: int) -> list[tuple[str, int]]:
        rows = [row for row in self.measurements if row["workers"] == workers]
        return list(dict.fromkeys((row["work"], row["connections"]) for row in rows))

    def _rows(self, name: str, work: str, workers: int, connections: int) -> Rows:
        wanted = (name, work, workers, connections)
        keys = ("contestant", "work", "workers", "connections")
        return [row for row in self.measurements if tuple(row[key] for key in keys) == wanted]

    def svg(self) -> Iterable[str]:
        """Bars of requests per second, with the most workers and the usual connections; a whisker from min to max."""
        workers = max((row["workers"] for row in self.measurements), default=1)
        panels = [
            (LABELS[work], bars)
            for work, connections in self._works(workers)
            if work in LABELS and connections == 32 and (bars := self._bars(work, workers, connections))
        ]
        height = 40 + sum(34 + len(bars) * (BAR + GAP) for _, bars in panels)
        title = f"Requests per second, {workers} worker{'s' if workers > 1 else ''}, 32 connections (higher is better)"
        yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">'
        yield from STYLE
        yield f'<text class="h" x="8" y="20">{title}</text>'
        y = 40
        for label, bars in panels:
            yield f'<text class="h" x="8" y="{y + 16}">{escape(label)}</text>'
            y += 24
            scale = (WIDTH - LEFT - 90) / max(high for *_, high in bars)
            for one, low, middle, high in bars:
                yield from _bar(one, y, low * scale, middle * scale, high * scale, f"{middle:,.0f}")
                y += BAR + GAP
            y += 10
        yield "</svg>"

    def _bars(self, work: str, workers: int, connections: int) -> list[tuple[Contestant, float, float, float]]:
        bars: list[tuple[Contestant, float, float, float]] = []
        for one in self.contestants:
            rows = self._rows(one.name, work, workers, connections)
            if rows and _counts(*rows):
                rates = [row["requests_per_second"] for row in rows]
                bars.append((one, min(rates), median(rates), max(rates)))
        return bars


def _bar(one: Contestant, y: int, low: float, middle: float, high: float, label: str) -> Iterable[str]:
    kind, centre = "o" if one.name == "stockroom" else "p", y + BAR / 2
    yield f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(one.title)}</text>'
    yield f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{middle:.1f}" height="{BAR}" rx="2"/>'
    yield f'<line class="w" x1="{LEFT + low:.1f}" x2="{LEFT + high:.1f}" y1="{centre}" y2="{centre}"/>'
    yield f'<text x="{LEFT + high + 6:.1f}" y="{y + 12}">{label}</text>'


def _counts(*rows: dict[str, Any]) -> bool:
    """Whether all of them had answers, and no errors: with any error a row fails."""
    return all(not row["errors"] and row["requests_per_second"] for row in rows)


def _spread(values: Sequence[float], form: str) -> str:
    low, middle, high = (form.format(value) for value in (min(values), median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low}–{high})"
