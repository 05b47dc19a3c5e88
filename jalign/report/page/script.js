"use strict";
// values under the pointer, for every chart that carries its data
(() => {
  const tip = document.getElementById("tip");
  const LEFT = 46, RIGHT = 12, TOP = 10, BOTTOM = 26;
  const format = (x) => Math.abs(x) >= 1e5 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(2) : String(Number(x.toPrecision(5)));
  function nearest(steps, at) {
    let low = 0, high = steps.length - 1;
    while (high - low > 1) { const mid = (low + high) >> 1; if (steps[mid] < at) low = mid; else high = mid; }
    return Math.abs(steps[low] - at) <= Math.abs(steps[high] - at) ? low : high;
  }
  function show(svg, chart, event) {
    const box = svg.getBoundingClientRect(), width = svg.viewBox.baseVal.width, height = svg.viewBox.baseVal.height;
    const share = ((event.clientX - box.left) / box.width * width - LEFT) / (width - LEFT - RIGHT);
    const [x0, x1] = chart.x, at = x0 + Math.min(Math.max(share, 0), 1) * (x1 - x0);
    const hits = chart.lines.map((line) => ({ line, i: nearest(line.s, at) }));
    const step = hits.reduce((best, h) => Math.abs(h.line.s[h.i] - at) < Math.abs(best - at) ? h.line.s[h.i] : best, Infinity);
    let cursor = svg.querySelector(".cursor");
    if (!cursor) { cursor = document.createElementNS("http://www.w3.org/2000/svg", "path"); cursor.setAttribute("class", "cursor"); svg.append(cursor); }
    const x = LEFT + (step - x0) / (x1 - x0) * (width - LEFT - RIGHT);
    cursor.setAttribute("d", `M${x.toFixed(1)} ${TOP}V${height - BOTTOM}`);
    tip.replaceChildren();
    const head = document.createElement("div"); head.className = "soft"; head.textContent = `step ${step}`; tip.append(head);
    for (const { line, i } of hits) {
      const row = document.createElement("div"), swatch = document.createElement("i"), name = document.createElement("span"), value = document.createElement("span");
      row.className = `key c${line.c}`;
      name.textContent = line.s[i] === step ? line.l : `${line.l} (step ${line.s[i]})`;
      value.textContent = format(line.v[i]);
      row.append(swatch, name, value); tip.append(row);
    }
    tip.hidden = false;
    const flip = event.clientX + tip.offsetWidth + 24 > innerWidth;
    tip.style.left = `${Math.max(4, flip ? event.clientX - tip.offsetWidth - 14 : event.clientX + 14)}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 4))}px`;
  }
  for (const svg of document.querySelectorAll("svg[data-chart]")) {
    const chart = JSON.parse(svg.dataset.chart);
    svg.addEventListener("pointermove", (event) => show(svg, chart, event));
    svg.addEventListener("pointerdown", (event) => show(svg, chart, event));
    svg.addEventListener("pointerleave", () => { tip.hidden = true; svg.querySelector(".cursor")?.remove(); });
  }
})();
// tables that can be sorted: numbers by value, texts by letters, what is missing last
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
    const th = button.closest("th"), column = th.cellIndex, body = table.tBodies[0];
    const down = th.getAttribute("aria-sort") !== "descending";
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    th.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => { const cell = row.cells[column], v = cell.dataset.v; return v === undefined ? cell.textContent : v === "" ? null : Number(v); };
    const sign = down ? -1 : 1;
    const order = (a, b) => a === null ? (b === null ? 0 : 1) : b === null ? -1 : sign * (typeof a === "number" ? a - b : a.localeCompare(b));
    body.append(...[...body.rows].map((row) => [key(row), row]).sort((a, b) => order(a[0], b[0])).map((pair) => pair[1]));
  }));
}
// long texts open at a click
document.addEventListener("click", (event) => {
  const text = event.target instanceof Element && event.target.closest(".text");
  if (text && !String(getSelection())) text.classList.toggle("cut");
});
