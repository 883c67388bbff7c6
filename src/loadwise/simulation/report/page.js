"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const strategy = document.getElementById("strategy");
  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const buttons = [...document.querySelectorAll(".legend button")];
  // On a touch screen a drag has to scroll the page.
  const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
  const config = { displayModeBar: false, responsive: true, showTips: false };
  const ofServers = new Set(["load", "queue", "health"]);

  // Colours come as names of CSS custom properties; what they stand for depends on the scheme.
  function painted(value, style) {
    if (typeof value === "string") {
      return value.startsWith("--") ? style.getPropertyValue(value).trim() || value : value;
    }
    if (Array.isArray(value)) return value.map((item) => painted(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, item]) => [name, painted(item, style)]),
    );
  }

  function isShown(trace, group) {
    const button = buttons.find(
      (each) => each.dataset.group === group && Number(each.dataset.index) === trace.meta,
    );
    return !button || button.getAttribute("aria-pressed") === "true";
  }

  function draw(figure) {
    const name = figure.dataset.chart;
    const group = ofServers.has(name) ? "servers" : "strategies";
    const source = ofServers.has(name) ? page.strategies[strategy.value] : page.charts;
    const [chart, words] = source[name];
    const plot = figure.querySelector(".plot");
    const states = figure.querySelector(".states");
    figure.querySelector("figcaption").textContent = words;
    plot.hidden = !chart;
    if (states) states.hidden = !chart;
    if (!chart) return;
    const { data, layout } = painted(chart, getComputedStyle(root));
    for (const trace of data) trace.visible = isShown(trace, group);
    Plotly.react(plot, data, { ...layout, dragmode }, config);
  }

  function drawAll() {
    figures.forEach(draw);
  }

  strategy.addEventListener("change", () => {
    figures.filter((figure) => ofServers.has(figure.dataset.chart)).forEach(draw);
    const chosen = strategy.selectedOptions[0].textContent;
    document.getElementById("status").textContent = `The charts show ${chosen}.`;
  });
  for (const button of buttons) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
      drawAll();
    });
  }

  document.getElementById("copy").addEventListener("click", async () => {
    const text = document.getElementById("toml");
    const told = document.getElementById("copied");
    try {
      await navigator.clipboard.writeText(text.textContent);
      told.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(text);
      told.textContent = "Selected: copy it with your keyboard.";
    }
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  const forPaper = (printing) => () => {
    root.toggleAttribute("data-print", printing);
    drawAll();
    figures.forEach((figure) => Plotly.Plots.resize(figure.querySelector(".plot")));
  };
  addEventListener("beforeprint", forPaper(true));
  addEventListener("afterprint", forPaper(false));
  drawAll();
})();
