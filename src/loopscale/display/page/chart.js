"use strict";
// Hover tells values, the legend hides lines; both by what stands beside each drawing as JSON.
(() => {
  const MOST = 14, NEAR = 40; // lines told at once; pixels from the pointer to a point
  const number = (x) => {
    if (!Number.isFinite(x)) return "not finite";
    if (x !== 0 && (Math.abs(x) >= 1e6 || Math.abs(x) < 1e-4)) return x.toExponential(2).replace("e+", "e");
    return x.toLocaleString("en", { maximumSignificantDigits: 4 });
  };
  const share = (axis, value) => {
    const [low, high, at] = axis.log ? [axis.low, axis.high, value].map(Math.log) : [axis.low, axis.high, value];
    return axis.falling ? (high - at) / (high - low) : (at - low) / (high - low);
  };
  const placed = (panel, box, series, i) => {
    if (series.x[i] === null || series.y[i] === null) return null;
    const up = share(panel.y, series.y[i]);
    return [box[0] + share(panel.x, series.x[i]) * box[2], box[1] + (panel.y.rows ? up : 1 - up) * box[3]];
  };
  const line = (name, value, kind) => {
    const row = document.createElement("p");
    row.className = kind;
    for (const text of [name, value]) row.append(Object.assign(document.createElement("span"), { textContent: text }));
    return row;
  };

  const nearest = (panel, box, shown, [x, y]) => {
    let best = null;
    for (const series of shown) for (let i = 0; i < series.x.length; i++) {
      const at = placed(panel, box, series, i);
      if (at === null) continue;
      const far = panel.across ? Math.hypot(at[0] - x, 0.02 * (at[1] - y)) : Math.hypot(at[0] - x, at[1] - y);
      if (best === null || far < best.far) best = { far, at, series, i };
    }
    return best !== null && (panel.across || best.far < NEAR) ? best : null;
  };

  const across = (data, panel, box, shown, found, y) => {
    const x = found.series.x[found.i], rows = [];
    for (const series of shown) {
      const i = series.x.indexOf(x), at = i < 0 ? null : placed(panel, box, series, i);
      if (at !== null) rows.push({ at, name: data.names[series.name], value: series.y[i] });
    }
    const close = [...rows].sort((a, b) => Math.abs(a.at[1] - y) - Math.abs(b.at[1] - y));
    const kept = close.slice(0, MOST).sort((a, b) => b.value - a.value);
    const told = kept.map((row) => line(row.name, number(row.value), row === close[0] ? "near" : ""));
    return [line(panel.x.label, number(x), "at"), ...told];
  };

  const alone = (data, panel, found) => {
    const { series, i } = found, told = [line(data.names[series.name], series.notes[i] ?? "", "near")];
    told.push(line(panel.x.label, number(series.x[i]), ""));
    if (!panel.y.rows) told.push(line(panel.y.label, number(series.y[i]), ""));
    return told;
  };

  const follow = (figure, data, tip, svg, panel) => {
    const box = panel.boxes[svg.classList.contains("narrow") ? "narrow" : "wide"];
    const mark = document.createElementNS(svg.namespaceURI, "circle");
    mark.setAttribute("class", "found");
    mark.setAttribute("r", "6");
    const leave = () => { tip.hidden = true; mark.remove(); };
    svg.addEventListener("pointermove", (event) => {
      const size = svg.getBoundingClientRect(), scale = box[4] / size.width;
      const point = [(event.clientX - size.left) * scale, (event.clientY - size.top) * scale];
      const shown = panel.series.filter((series) => !data.off.has(series.name));
      const found = nearest(panel, box, shown, point);
      if (found === null) return leave();
      tip.replaceChildren(...(panel.across ? across(data, panel, box, shown, found, point[1]) : alone(data, panel, found)));
      mark.setAttribute("cx", found.at[0]);
      mark.setAttribute("cy", found.at[1]);
      svg.append(mark);
      tip.hidden = false;
      const plot = tip.parentElement.getBoundingClientRect(), x = event.clientX - plot.left;
      tip.style.left = `${Math.max(0, Math.min(x + 14, plot.width - tip.offsetWidth - 4))}px`;
      tip.style.top = `${event.clientY - plot.top + (event.pointerType === "touch" ? -tip.offsetHeight - 16 : 16)}px`;
    });
    svg.addEventListener("pointerleave", leave);
  };

  const choose = (figure, data) => {
    for (const button of figure.querySelectorAll(".legend button")) button.addEventListener("click", () => {
      const name = Number(button.dataset.name), off = !data.off.has(name);
      if (off) data.off.add(name); else data.off.delete(name);
      button.setAttribute("aria-pressed", String(!off));
      for (const series of figure.querySelectorAll(`.series[data-name="${name}"]`)) series.classList.toggle("off", off);
    });
  };

  for (const figure of document.querySelectorAll("figure.chart")) {
    const data = JSON.parse(figure.querySelector("script.data").textContent), tip = figure.querySelector(".tip");
    data.off = new Set();
    choose(figure, data);
    figure.querySelectorAll(".panel").forEach((panel, i) => {
      for (const svg of panel.children) follow(figure, data, tip, svg, data.panels[i]);
    });
  }
})();
