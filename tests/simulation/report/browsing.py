"""A report that is open in a browser, and what its tests ask of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page

__all__ = ["BOXES", "CONTRASTS", "DESKTOP", "PHONE", "Report"]

DESKTOP, PHONE = (1280, 900), (390, 844)

CONTRASTS = """() => {
  // Relative luminance and contrast ratio, by WCAG 2.2.
  const rgba = (text) => {
    const numbers = text.match(/[\\d.]+/g).map(Number);
    return numbers.length === 4 ? numbers : [...numbers, 1];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((c, i) => c * a + below[i] * (1 - a));
  const luminance = (colour) => {
    const [r, g, b] = colour.map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const layer = rgba(getComputedStyle(at).backgroundColor);
      layers.push(layer);
      if (layer[3] === 1) break;
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  // A pattern lies on a rectangle of the bar's colour.
  const groundOf = (bar) => {
    const pattern = bar.style.fill.match(/#([^"')]+)/);
    return pattern
      ? getComputedStyle(document.getElementById(pattern[1]).querySelector("rect")).fill
      : bar.style.fill;
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const text = texts.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest("script, noscript")) continue;
    const style = getComputedStyle(element);
    const svg = element.closest("svg");
    // A letter on a bar stands on the bar.
    const bar = element.closest("g.point")?.querySelector("path");
    const colour = rgba(svg ? style.fill : style.color);
    const ground = bar
      ? rgba(groundOf(bar))
      : behind(svg ? svg.closest("div.plot") : element);
    const [one, other] = [luminance(over(colour, ground)), luminance(ground)];
    found.push({
      text: text.slice(0, 40), inPlot: Boolean(svg), size: parseFloat(style.fontSize),
      contrast: (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05),
    });
  }
  return found;
}"""

BOXES = """all => all.map((text) => {
  // Spaces at the end take room and are not seen.
  const {left, top, bottom} = text.getBoundingClientRect();
  const shown = text.textContent.trimEnd().length;
  return {left, right: left + text.getSubStringLength(0, shown), top, bottom};
})"""


@dataclass
class Report:
    """A report that is open in a browser, and what the browser had to say and send."""

    page: Page
    file: Path
    said: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    def chart(self, name: str) -> Locator:
        """Return the figure of a chart."""
        return self.page.locator(f"figure[data-chart={name}]")

    def lines(self, name: str) -> Locator:
        """Return the lines drawn in a chart, gaps and all; bands have no markers."""
        return self.chart(name).locator(".trace.scatter:has(.point):has(path.js-line)")

    def drawn(self, name: str) -> list[dict[str, Any]]:
        """Return the traces of a chart as plotly has them."""
        plot = self.chart(name).locator(".plot")
        traces: list[dict[str, Any]] = plot.evaluate("plot => plot.data")
        return traces

    def words(self, name: str) -> str:
        """Return the sentence below a chart."""
        return self.chart(name).locator("figcaption").inner_text()

    def point_at_a_marker(self) -> None:
        """Move the mouse to a marker of the quantile plot."""
        marker = self.chart("quantiles").locator(".points path").nth(8)
        marker.scroll_into_view_if_needed()
        box = marker.bounding_box()
        assert box is not None
        self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    def focus(self) -> str:
        """Return what has the focus: its identity or class, or else its element's name."""
        found: str = self.page.evaluate(
            "() => { const at = document.activeElement;"
            " return at.id || at.dataset.group || at.className || at.localName; }"
        )
        return found

    def state(self) -> list[Any]:
        """Return what tests change and set back: window, scheme, strategy, what is hidden."""
        found: list[Any] = self.page.evaluate(
            "() => [innerWidth, matchMedia('(prefers-color-scheme: dark)').matches,"
            " scrollX, document.querySelector('#strategy').value,"
            " document.querySelector('details').open,"
            " document.querySelectorAll('[aria-pressed=false]').length]"
        )
        return found
