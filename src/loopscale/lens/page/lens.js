"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { tokens: T, loops: K, top: N } = data.sizes;
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const floats = (name) => new Float32Array(bytes(data[name]));
  const whole = (name) => new Uint32Array(bytes(data[name]));
  const tokens = whole("tokens"), top = whole("top"), settles = whole("settles");
  const probability = floats("probability"), surprise = floats("surprise"), scale = floats("scale"), turn = floats("turn");
  const byId = (id) => document.getElementById(id);
  const text = byId("text"), colour = byId("colour"), exit = byId("exit");
  const CHUNK = 150; // tokens that the browser lays out at a time, up to a line's end
  const spans = [];
  let chosen = 0;

  const number = (x) => (Number.isFinite(x) ? (Math.abs(x) >= 1e5 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(2) : String(Number(x.toPrecision(3)))) : "–");
  const percent = (p) => (Number.isFinite(p) ? `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)}%` : "–");
  const make = (tag, name, content) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (content !== undefined) element.textContent = content;
    return element;
  };
  const mean = (values, k, width) => {
    let sum = 0, count = 0;
    for (let t = 0; t < T; t++) {
      const value = values[t * width + k];
      if (Number.isFinite(value)) { sum += value; count++; }
    }
    return count ? sum / count : NaN;
  };

  const summary = () => {
    const body = byId("loops").tBodies[0];
    for (let k = 0; k < K; k++) {
      const row = body.insertRow();
      const head = make("th", "", String(k + 1));
      head.scope = "row";
      row.append(head);
      const settled = settles.reduce((sum, s) => sum + (s <= k + 1), 0) / T;
      const cells = [number(mean(surprise, k, K)), percent(settled), number(mean(scale, k, K)), k + 1 < K ? number(mean(turn, k, K - 1)) : "–"];
      for (const cell of cells) row.insertCell().textContent = cell;
    }
  };

  const value = (t, kind, k) => {
    if (kind === "settles") return settles[t];
    if (kind === "surprise") return surprise[t * K + k];
    if (kind === "top") return probability[(t * K + k) * N];
    if (kind === "scale") return scale[t * K + k];
    return k + 1 < K ? turn[t * (K - 1) + k] : NaN;
  };

  const paint = () => {
    const kind = colour.value, k = exit.value - 1;
    const values = Float64Array.from({ length: T }, (_, t) => value(t, kind, k));
    const sorted = values.filter(Number.isFinite).sort();
    let low = sorted[Math.floor(0.02 * (sorted.length - 1))], high = sorted[Math.ceil(0.98 * (sorted.length - 1))];
    if (kind === "settles") [low, high] = [1, K];
    if (kind === "top") [low, high] = [0, 1];
    for (let t = 0; t < T; t++) {
      const heat = high > low ? Math.min(1, Math.max(0, (values[t] - low) / (high - low))) : 0;
      spans[t].style.setProperty("--heat", `${Number.isFinite(heat) ? Math.round(90 * heat) : 0}%`);
    }
    const show = kind === "top" ? percent : number;
    byId("low").textContent = sorted.length ? show(low) : "nothing to show at this exit";
    byId("high").textContent = sorted.length ? show(high) : "";
    byId("exit-value").textContent = exit.value;
    exit.disabled = kind === "settles";
  };

  const exitOf = (t, k) => {
    const box = make("section", k === exit.value - 1 ? "shown" : "");
    box.append(make("h3", "", `exit ${k + 1}${settles[t] === k + 1 ? " (settles here)" : ""}`));
    const figures = [`scale ${number(scale[t * K + k])}`, `surprise ${number(surprise[t * K + k])}`];
    if (k + 1 < K) figures.push(`turn ${number(turn[t * (K - 1) + k])}`);
    box.append(make("p", "", figures.join(", ")));
    const list = make("ol");
    for (let n = 0; n < N; n++) {
      const at = (t * K + k) * N + n, item = make("li");
      const label = make("span", "", "");
      label.append(make("span", t + 1 < T && top[at] === tokens[t + 1] ? "piece right" : "piece", data.pieces[top[at]]));
      const line = make("span", "line");
      line.style.setProperty("--part", `${Math.round(100 * (probability[at] || 0))}%`);
      item.append(label, line, make("span", "share", percent(probability[at])));
      list.append(item);
    }
    box.append(list);
    return box;
  };

  const choose = (t, scroll) => {
    spans[chosen].setAttribute("aria-selected", "false");
    chosen = Math.min(T - 1, Math.max(0, t));
    const span = spans[chosen];
    span.setAttribute("aria-selected", "true");
    text.setAttribute("aria-activedescendant", span.id);
    if (scroll) span.scrollIntoView({ block: "nearest" });
    byId("chosen").textContent = data.pieces[tokens[chosen]];
    const next = byId("next");
    next.replaceChildren();
    if (chosen + 1 < T) next.append("the next token is ", make("span", "piece", data.pieces[tokens[chosen + 1]]), `; the prediction settles at exit ${settles[chosen]} of ${K}.`);
    else next.append(`the text ends; the prediction settles at exit ${settles[chosen]} of ${K}.`);
    byId("exits").replaceChildren(...Array.from({ length: K }, (_, k) => exitOf(chosen, k)));
  };

  const option = (t) => {
    const shown = data.pieces[tokens[t]], span = make("span", "", shown);
    span.id = `t${t}`;
    span.setAttribute("role", "option");
    span.setAttribute("aria-selected", "false");
    if (!shown.trim()) span.setAttribute("aria-label", "space");
    spans.push(span);
    return span;
  };

  const lay = () => {
    let chunk = null, held = 0;
    for (let t = 0; t < T; t++) {
      if (chunk === null) {
        chunk = make("div");
        chunk.setAttribute("role", "group");
        chunk.setAttribute("aria-label", `from token ${t + 1}`);
        text.append(chunk);
        held = 0;
      }
      chunk.append(option(t));
      held++;
      const ends = data.pieces[tokens[t]].includes("⏎");
      if ((ends && held >= CHUNK) || held >= 4 * CHUNK) chunk = null;
      else if (ends) chunk.append(make("br"));
    }
  };

  text.addEventListener("click", (event) => {
    const span = event.target.closest("[role=option]");
    if (span) choose(Number(span.id.slice(1)), false);
  });
  text.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: 1, ArrowLeft: -1, PageDown: 50, PageUp: -50, Home: -T, End: T };
    const exits = { ArrowUp: -1, ArrowDown: 1 };
    if (event.key in moves) choose(chosen + moves[event.key], true);
    else if (event.key in exits) {
      exit.value = Number(exit.value) + exits[event.key];
      paint();
      choose(chosen, false);
    } else return;
    event.preventDefault();
  });
  colour.addEventListener("change", paint);
  exit.addEventListener("input", () => { paint(); choose(chosen, false); });
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());

  summary();
  lay();
  paint();
  choose(0, false);
})();
