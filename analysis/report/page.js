/* What the page does. Data becomes text nodes and attributes of elements, never HTML; texts that plotly draws are escaped,
   since it reads some tags. Nothing is computed here but what is shown where: the numbers are those of the analysis. */
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const runs = data.runs;
  const NARROW = 640;
  const PANELS = 6;
  const MANY_RUNS = 2000;
  const CURVES = 240;
  const ROWS = 25;
  const PRINTED_ROWS = 150;
  const PRINTED_WIDTH = 680;
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

  // Elements

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "value") element.value = value;
      else element.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat()) {
      if (child !== null && child !== undefined) element.append(child);
    }
    return element;
  }

  function drawing(tag, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  const at = (id) => document.getElementById(id);

  function select(label, options, value, changed, name) {
    const list = make("select", { name, onchange: () => changed(list.value) });
    for (const [key, text] of options) list.append(make("option", { value: key }, text));
    list.value = value;
    return make("label", {}, label, list);
  }

  function check(label, value, changed, name) {
    const box = make("input", { type: "checkbox", name, onchange: () => changed(box.checked) });
    box.checked = value;
    return make("label", { class: "check" }, box, label);
  }

  function search(label, changed, name) {
    let waiting = 0;
    const box = make("input", {
      type: "search",
      name,
      oninput: () => {
        clearTimeout(waiting);
        waiting = setTimeout(() => changed(box.value), 80);
      },
    });
    return make("label", {}, label, box);
  }

  const columnHead = (text, number) => make("th", { scope: "col", class: number ? "number" : null }, text);
  const cell = (text, kind) => make("td", { class: kind }, text);

  function whole(head, rows, numbers, caption) {
    return make(
      "table",
      {},
      caption ? make("caption", {}, caption) : null,
      make("thead", {}, make("tr", {}, head.map((text, place) => columnHead(text, numbers[place])))),
      make("tbody", {}, rows.map((row) => make("tr", {}, row.map((text, place) => cell(text, numbers[place] ? "number" : null)))))
    );
  }

  // Numbers and names

  const unique = (values) => [...new Set(values)];
  const counted = (number) => number.toLocaleString("en-US");

  function shown(value, metric) {
    if (value === null || value === undefined) return "";
    if (metric.share) return (100 * value).toFixed(1) + " %";
    const size = Math.abs(value);
    const text = size >= 1e4 ? counted(Math.round(value)) : String(Number(value.toPrecision(4)));
    return metric.unit ? text + " " + metric.unit : text;
  }

  function placed(value, axis) {
    if (value === null || value === undefined) return "";
    const number = axis.scale * value;
    return axis.scale === 100 ? Number(number.toFixed(1)) + " %" : Math.abs(number) >= 1e4 ? counted(Math.round(number)) : String(Number(number.toPrecision(4)));
  }

  // plotly takes some tags and references in texts for what they say
  const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  const column = (key) => data.columns.find((each) => each.key === key);
  const known = (each, run) => (each.codes[run] === null || each.codes[run] === undefined ? "" : each.values[each.codes[run]]);

  function called(run) {
    const parts = data.columns
      .filter((each) => each.key !== "seed" && known(each, run))
      .map((each) => (["loss", "criterion", "sparsity"].includes(each.key) ? known(each, run) : each.label + " " + known(each, run)));
    const seed = column("seed");
    if (seed && known(seed, run)) parts.push("seed " + known(seed, run));
    return parts.join(", ");
  }

  // Light and dark. What is chosen stays with this entry of the history, which asks no permission and outlives a reload.

  const root = document.documentElement;
  const prefers = matchMedia("(prefers-color-scheme: dark)");
  let theme = history.state && history.state.theme;
  const dark = () => root.dataset.theme === "dark";

  function applyTheme() {
    root.dataset.theme = theme || (prefers.matches ? "dark" : "light");
    at("theme").textContent = dark() ? "Light" : "Dark";
    at("theme").setAttribute("aria-label", dark() ? "Use light colours" : "Use dark colours");
    charts.forEach((chart) => chart.redraw());
    tinted.forEach(([element, colour]) => element.style.setProperty("--claim", onGround(colour)));
    legendNow();
  }

  function keepTheme() {
    try {
      if (theme) history.replaceState({ theme }, "");
    } catch {
      /* a page inside a frame may keep no history: the choice lasts until it is closed */
    }
  }

  at("theme").addEventListener("click", () => {
    theme = dark() ? "light" : "dark";
    keepTheme();
    applyTheme();
  });
  prefers.addEventListener("change", applyTheme);
  addEventListener("hashchange", keepTheme);

  // the colours of the figures; on dark ground the same hues, lighter
  function onGround(colour) {
    if (!dark()) return colour;
    const parts = [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
    return "rgb(" + parts.map((part) => Math.round(part + (255 - part) * 0.38)).join(",") + ")";
  }

  const ink = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();

  /** Elements with the colour of a loss, which differs between light and dark. */
  const tinted = [];

  // Charts: each is drawn when it comes near the window, and again when what it shows has changed

  const charts = [];
  let printing = false;

  function chart(element, build) {
    const mine = {
      near: false,
      width: 0,
      wanted: () => (printing ? PRINTED_WIDTH : element.clientWidth),
      redraw() {
        if (!mine.near || !window.Plotly) return;
        mine.width = mine.wanted();
        const { traces, layout } = build(mine.width);
        window.Plotly.react(element, traces, { ...base(), ...layout, width: mine.width }, {
          displaylogo: false,
          responsive: false,
          modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
          toImageButtonOptions: { filename: data.title + "_" + element.id },
        });
        element.dataset.drawn = "true";
      },
      show() {
        mine.near = true;
        mine.redraw();
      },
    };
    charts.push(mine);
    return mine;
  }

  function base() {
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      showlegend: false,
      hovermode: "closest",
      dragmode: "zoom",
      font: { family: ink("sans"), size: 12.5, color: ink("ink") },
      hoverlabel: { bgcolor: ink("card"), bordercolor: ink("soft"), font: { color: ink("ink") }, align: "left" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: ink("rule"), activecolor: ink("accent") },
    };
  }

  /** Places of `number` panels: as many beside one another as fit, axes named where they stand. */
  function panels(number, width, most, titles, xTitle, yTitle, height) {
    const across = width < NARROW ? 1 : Math.min(number, most, width < 900 ? 2 : 3);
    const down = Math.ceil(number / across);
    const layout = { margin: { l: 58, r: 10, t: 30, b: 52 }, annotations: [], height: height * down + 40 };
    const gapX = across > 1 ? 56 / width : 0;
    const gapY = down > 1 ? (across === 1 ? 92 : 74) / (height * down) : 0;
    for (let place = 0; place < number; place++) {
      const left = place % across;
      const top = Math.floor(place / across);
      const wide = (1 - gapX * (across - 1)) / across;
      const high = (1 - gapY * (down - 1)) / down;
      const x = [left * (wide + gapX), left * (wide + gapX) + wide];
      const y = [1 - top * (high + gapY) - high, 1 - top * (high + gapY)];
      const suffix = place ? String(place + 1) : "";
      const lines = { gridcolor: ink("rule"), gridwidth: 1, zeroline: false, linecolor: ink("soft"), ticks: "outside", tickcolor: ink("soft"), ticklen: 4, automargin: false };
      layout["xaxis" + suffix] = { ...lines, domain: x, anchor: "y" + suffix, showgrid: false, showline: true, title: { text: plain(xTitle), standoff: 8, font: { size: 12 } } };
      layout["yaxis" + suffix] = { ...lines, domain: y, anchor: "x" + suffix, title: left ? undefined : { text: plain(yTitle), standoff: 6, font: { size: 12 } } };
      if (titles[place]) {
        layout.annotations.push({ text: plain(titles[place]), x: x[0], y: y[1], xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false, yshift: 5, font: { family: ink("serif"), size: 14.5 } });
      }
    }
    return layout;
  }

  const suffixed = (letter, place) => letter + (place ? String(place + 1) : "");

  function spread(values, share) {
    const low = Math.min(...values);
    const high = Math.max(...values);
    const pad = share * (high - low || Math.abs(high) || 1);
    return [low - pad, high + pad];
  }

  // The chart of accuracy, or of any metric against any axis

  const state = { view: 0, metric: "", axis: "", chosen: {}, single: true, front: true, hidden: new Set() };

  const view = () => data.charts[state.view];
  const block = () => view().metrics[state.metric];
  const axis = () => view().axes.find((each) => each.name === state.axis);
  const columnsOf = (of) => [...of.facets, ...of.lines];
  const colourOf = (text) => onGround((view().colours[text] || ["#000000", "circle"])[0]);
  const symbolOf = (text) => (view().colours[text] || ["#000000", "circle"])[1];

  /** The conditions that are chosen, as numbers. */
  function chosen(of) {
    const columns = columnsOf(of);
    return of.conditions
      .map((condition, number) => [condition, number])
      .filter(([condition]) => columns.every(([key], place) => !state.chosen[key] || state.chosen[key] === condition[place]))
      .map(([, number]) => number);
  }

  /** What the chart shows: panels of lines, with the numbers of each. */
  function drawnNow() {
    const of = block();
    const facets = of.facets.length;
    const kept = chosen(of);
    const texts = (number) => of.conditions[number];
    const keys = unique(kept.map((number) => JSON.stringify(texts(number).slice(0, facets))));
    const others = unique(kept.map((number) => JSON.stringify(texts(number).slice(facets + 1))));
    return {
      of,
      left: Math.max(0, keys.length - PANELS),
      panels: keys.slice(0, PANELS).map((key) => ({
        key,
        title: of.facets.map(([, label], place) => (JSON.parse(key)[place] ? label + " " + JSON.parse(key)[place] : "")).filter(Boolean).join(", "),
        lines: kept
          .filter((number) => JSON.stringify(texts(number).slice(0, facets)) === key)
          .map((number) => ({
            number,
            first: texts(number)[facets],
            dash: DASHES[others.indexOf(JSON.stringify(texts(number).slice(facets + 1))) % DASHES.length],
            label: texts(number)
              .slice(facets)
              .map((text, place) => (place && text ? (of.lines[place][0] === "variant" ? text : of.lines[place][1].toLowerCase() + " " + text) : text))
              .filter(Boolean)
              .join(", "),
          })),
      })),
    };
  }

  /** Condition -> its rows, those that have a place. */
  function rowsOf(conditions, hasPlace) {
    const found = new Map();
    conditions.forEach((number, row) => {
      if (!hasPlace(row)) return;
      if (!found.has(number)) found.set(number, []);
      found.get(number).push(row);
    });
    return found;
  }

  const inPanel = (told, key) => (told.find(([texts]) => JSON.stringify(texts) === key) || [null, null])[1];

  function buildChart(width) {
    const now = drawnNow();
    const { of } = now;
    const where = axis();
    const scaleX = where.scale;
    const scaleY = of.scale;
    const overSeeds = of.means.over.includes("seeds");
    const layout = panels(now.panels.length, width, 3, now.panels.map((panel) => panel.title), where.label, of.axis, width < NARROW ? 300 : 400);
    const xs = where.values.filter((value) => value !== null).map((value) => scaleX * value).concat(where.dense);
    const rangeX = where.logarithmic ? spread(xs.map(Math.log10), 0.05) : spread(xs, 0.05);
    const traces = [];
    const ys = [];
    const meansOf = rowsOf(of.means.condition, (row) => of.means.x[where.name][row] !== null);
    const runsOf = rowsOf(of.runs.condition, (row) => where.values[of.runs.run[row]] !== null);
    layout.shapes = [];
    now.panels.forEach((panel, place) => {
      const [x, y] = [suffixed("x", place), suffixed("y", place)];
      const lines = panel.lines.filter((line) => !state.hidden.has(line.first));
      const step = where.logarithmic ? 0 : (0.016 * (rangeX[1] - rangeX[0])) / Math.max(1, lines.length - 1);
      lines.forEach((line, order) => {
        const shift = lines.length > 8 ? 0 : (order - (lines.length - 1) / 2) * step;
        const colour = colourOf(line.first);
        const mean = (meansOf.get(line.number) || [])
          .sort((a, b) => of.means.x[where.name][a] - of.means.x[where.name][b]);
        if (state.single && runs.finished <= MANY_RUNS) {
          const mine = runsOf.get(line.number) || [];
          ys.push(...mine.map((row) => scaleY * of.runs.value[row]));
          traces.push({
            type: "scatter", mode: "markers", xaxis: x, yaxis: y, hoverinfo: "text",
            x: mine.map((row) => scaleX * where.values[of.runs.run[row]] + shift),
            y: mine.map((row) => scaleY * of.runs.value[row]),
            hovertext: mine.map((row) => plain(called(of.runs.run[row])) + "<br>" + plain(shown(of.runs.value[row], of)) + " at " + plain(placed(where.values[of.runs.run[row]], where)) + "<br>run " + plain(runs.id[of.runs.run[row]])),
            marker: { color: colour, size: 4.5, opacity: 0.42 },
          });
        }
        const bars = (row) => of.means.over[row] === (overSeeds ? "seeds" : "questions") && of.means.low[row] !== null;
        const clip = (value) => (of.share ? Math.min(1, Math.max(0, value)) : value);
        const up = mean.map((row) => (bars(row) ? Math.max(0, scaleY * (clip(of.means.high[row]) - of.means.mean[row])) : 0));
        const down = mean.map((row) => (bars(row) ? Math.max(0, scaleY * (of.means.mean[row] - clip(of.means.low[row]))) : 0));
        const means = mean.map((row) => scaleY * of.means.mean[row]);
        ys.push(...means.map((value, row) => value + up[row]), ...means.map((value, row) => value - down[row]));
        traces.push({
          type: "scatter", mode: "lines+markers", xaxis: x, yaxis: y, hoverinfo: "text",
          x: mean.map((row) => scaleX * of.means.x[where.name][row] + shift),
          y: means,
          error_y: { type: "data", symmetric: false, array: up, arrayminus: down, color: colour, thickness: 1.3, width: 3 },
          hovertext: mean.map((row) => {
            const interval = of.means.low[row] === null ? "no interval" : "95 % [" + shown(of.means.low[row], of) + ", " + shown(of.means.high[row], of) + "] over " + of.means.over[row];
            return "<b>" + plain(line.label) + "</b>" + (panel.title ? "<br>" + plain(panel.title) : "") + "<br>mean " + plain(shown(of.means.mean[row], of)) + " at " + plain(placed(of.means.x[where.name][row], where)) + "<br>" + plain(interval) + "<br>" + of.means.seeds[row] + (of.means.seeds[row] === 1 ? " seed" : " seeds");
          }),
          line: { color: colour, width: 2, dash: line.dash },
          marker: { color: colour, size: 8, symbol: symbolOf(line.first) },
        });
      });
      for (const value of inPanel(of.dense, panel.key) || []) {
        if (state.hidden.has("dense")) continue;
        ys.push(scaleY * value);
        layout.shapes.push({ type: "line", xref: x + " domain", yref: y, x0: 0, x1: 1, y0: scaleY * value, y1: scaleY * value, line: { color: ink("ink"), width: 1.2, dash: "dash" } });
        if (where.dense.length) {
          traces.push({
            type: "scatter", mode: "markers", xaxis: x, yaxis: y, hoverinfo: "text", x: where.dense, y: where.dense.map(() => scaleY * value),
            hovertext: where.dense.map((cost) => "dense<br>" + plain(shown(value, of)) + " at " + plain(placed(cost, where))),
            marker: { symbol: "star-open", size: 13, color: ink("ink") },
          });
        }
      }
      const chance = inPanel(of.chance, panel.key);
      if (chance !== null && !state.hidden.has("chance")) {
        ys.push(scaleY * chance);
        layout.shapes.push({ type: "line", xref: x + " domain", yref: y, x0: 0, x1: 1, y0: scaleY * chance, y1: scaleY * chance, line: { color: ink("soft"), width: 1.2, dash: "dot" } });
      }
      const front = frontNow();
      if (front && state.front) traces.push(...frontTraces(front, of, where, x, y));
      Object.assign(layout[suffixed("xaxis", place)], where.logarithmic ? ticks(xs) : { tickformat: where.scale === 1 ? "~s" : "" }, {
        type: where.logarithmic ? "log" : "linear",
        range: where.reversed ? [rangeX[1], rangeX[0]] : rangeX,
      });
    });
    const rangeY = spread(ys.length ? ys : [0, 1], 0.05);
    if (of.share) rangeY.splice(0, 2, Math.max(-2, rangeY[0]), Math.min(102, rangeY[1]));
    now.panels.forEach((_, place) => Object.assign(layout[suffixed("yaxis", place)], { range: [...rangeY], tickformat: of.share ? "" : "~s" }));
    return { traces, layout };
  }

  function ticks(values) {
    const found = unique(values).sort((a, b) => a - b);
    return found.length <= 8 ? { tickvals: found, ticktext: found.map((value) => counted(value)) } : {};
  }

  const frontNow = () => (axis().cost ? (view().fronts[state.axis] || {})[state.metric] : null);

  function frontTraces(front, of, where, x, y) {
    const value = new Map(of.runs.run.map((run, row) => [run, of.runs.value[row]]));
    const points = front.runs
      .filter((run) => value.has(run) && where.values[run] !== null)
      .map((run) => [where.scale * where.values[run], of.scale * value.get(run), run])
      .sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const common = { type: "scatter", xaxis: x, yaxis: y, x: points.map((point) => point[0]), y: points.map((point) => point[1]) };
    const rings = {
      ...common, mode: "markers", hoverinfo: "text",
      hovertext: points.map((point) => "no run beats it in both<br>" + plain(called(point[2])) + "<br>run " + plain(runs.id[point[2]])),
      marker: { symbol: "circle-open", size: 12, color: ink("ink"), line: { width: 1.4 } },
    };
    if (front.split !== "test") return [rings];
    return [{ ...common, mode: "lines", hoverinfo: "skip", line: { shape: "hv", color: ink("ink"), width: 1.2 } }, rings];
  }

  const mainChart = chart(at("chart"), buildChart);

  function chartControls() {
    const of = block();
    const where = axis();
    const names = Object.entries(view().metrics).map(([name, each]) => [name, each.label]);
    const axes = data.charts.flatMap((each, number) => each.axes.map((one) => [number + "/" + one.name, one.label]));
    const selectors = columnsOf(of)
      .map(([key, label], place) => [key, label, unique(of.conditions.map((condition) => condition[place])), place])
      .filter(([, , values, place]) => values.length > 1 && place !== of.facets.length)
      .map(([key, label, values]) =>
        select(label, [["", "all"], ...values.filter(Boolean).map((value) => [value, value])], state.chosen[key] || "", (value) => {
          state.chosen[key] = value;
          changed();
        }, "chart-" + key)
      );
    at("chart-controls").replaceChildren(
      select("Vertical axis", names, state.metric, (value) => {
        state.metric = value;
        changed(true);
      }, "chart-metric"),
      select("Horizontal axis", axes, state.view + "/" + state.axis, (value) => {
        const [number, name] = value.split("/");
        state.view = Number(number);
        state.axis = name;
        if (!view().metrics[state.metric]) state.metric = Object.keys(view().metrics)[0];
        changed(true);
      }, "chart-axis"),
      ...selectors,
      ...(runs.finished <= MANY_RUNS ? [check("single runs", state.single, (value) => { state.single = value; changed(); }, "chart-single")] : []),
      ...(where.cost && frontNow() ? [check("Pareto front", state.front, (value) => { state.front = value; changed(); }, "chart-front")] : [])
    );
  }

  function swatch(colour, symbol, dash) {
    const shapes = {
      square: ["rect", { x: 9.5, y: 3.5, width: 7, height: 7 }],
      "triangle-up": ["path", { d: "M13 2.6 17.4 11H8.6Z" }],
      "triangle-down": ["path", { d: "M13 11.4 17.4 3H8.6Z" }],
      diamond: ["path", { d: "M13 2.4 17.6 7 13 11.6 8.4 7Z" }],
      x: ["path", { d: "M9.6 3.6 16.4 10.4M16.4 3.6 9.6 10.4", stroke: colour, "stroke-width": 2.4 }],
    };
    const [tag, attributes] = symbol === "none" ? ["g", {}] : shapes[symbol] || ["circle", { cx: 13, cy: 7, r: 3.8 }];
    return drawing("svg", { width: 26, height: 14, "aria-hidden": "true" },
      drawing("line", { x1: 0, x2: 26, y1: 7, y2: 7, stroke: colour, "stroke-width": 2, "stroke-dasharray": { dash: "5 3", dot: "2 3", dashdot: "6 2 2 2", longdash: "8 3", longdashdot: "9 2 2 2" }[dash] || "none" }),
      drawing(tag, { fill: colour, ...attributes })
    );
  }

  function legendNow() {
    if (!data.charts.length) return;
    const now = drawnNow();
    const lines = now.panels.flatMap((panel) => panel.lines);
    const toggle = (key, text, mark) => {
      const button = make("button", { type: "button", "aria-pressed": String(!state.hidden.has(key)), onclick: () => {
        if (!state.hidden.delete(key)) state.hidden.add(key);
        button.setAttribute("aria-pressed", String(!state.hidden.has(key)));
        mainChart.redraw();
      } }, mark, text);
      return button;
    };
    const entries = unique(lines.map((line) => line.first)).map((text) => toggle(text, text || "none named", swatch(colourOf(text), symbolOf(text), "solid")));
    const dashed = unique(lines.map((line) => line.dash));
    if (dashed.length > 1 && unique(lines.map((line) => line.label.slice(line.first.length))).length <= DASHES.length) {
      for (const dash of dashed) {
        const line = lines.find((each) => each.dash === dash);
        entries.push(make("span", { class: "key" }, swatch(ink("soft"), "none", dash), line.label.slice(line.first.length).replace(/^, /, "") || "otherwise"));
      }
    }
    if (now.of.dense.some(([, values]) => values.length)) {
      const values = unique(now.of.dense.flatMap(([, each]) => each)).map((value) => shown(value, now.of));
      entries.push(toggle("dense", "dense" + (values.length === 1 ? " " + values[0] : ""), swatch(ink("ink"), "none", "dash")));
    }
    if (now.of.chance.length) {
      const values = unique(now.of.chance.map(([, value]) => shown(value, now.of)));
      entries.push(toggle("chance", "chance" + (values.length === 1 ? " " + values[0] : ""), swatch(ink("soft"), "none", "dot")));
    }
    at("chart-legend").replaceChildren(...entries);
  }

  function captionNow() {
    const now = drawnNow();
    const { of } = now;
    const seeds = unique(of.means.seeds).sort((a, b) => a - b);
    const span = seeds.length > 1 ? seeds[0] + " to " + seeds[seeds.length - 1] : String(seeds[0]);
    const said = [of.label + " on test questions: lines are means over " + span + (span === "1" ? " seed." : " seeds.")];
    if (of.means.over.includes("seeds")) {
      said.push("Bars: 95 % intervals of the mean over seeds (t quantiles), for these questions; none where all seeds came to one value.");
    } else if (of.means.over.includes("questions")) {
      said.push("Bars: 95 % intervals over the questions (Wilson); nothing is known of the spread over seeds.");
    } else {
      said.push("There are no intervals: nothing is known of their spread.");
    }
    if (state.single && runs.finished <= MANY_RUNS) said.push("Faint points are single runs: point at one to see which.");
    const front = frontNow();
    if (front && state.front) {
      said.push("Rings" + (front.split === "test" ? " and staircase" : "") + ": the runs that no other run of these sweeps beats in both, chosen by " + front.split + " questions" + (front.split === "test" ? ", the very ones shown, so they look better than they are." : "."));
    }
    if (axis().clocked || of.clocked) said.push("Times were measured by a clock: they differ from one time to the next, and seconds of different machines do not compare.");
    if (now.panels.some((panel) => panel.lines.length > 1) && !axis().logarithmic) said.push("Lines are moved sideways a little, so that bars can be told apart.");
    if (now.left) said.push(counted(now.left) + " more panels are not drawn: choose among them above.");
    at("chart-caption").replaceChildren(said.join(" "), ...gapsOf(of.gaps));
  }

  function gapsOf(gaps) {
    if (!gaps.length) return [];
    return [make("details", {}, make("summary", {}, gaps.length === 1 ? "1 thing is missing here" : counted(gaps.length) + " things are missing here"), make("ul", {}, gaps.map((gap) => make("li", { class: "note" }, gap))))];
  }

  function chartNumbers() {
    const of = block();
    const where = axis();
    const columns = columnsOf(of);
    const kept = new Set(chosen(of));
    const rows = of.means.condition
      .map((number, row) => [number, row])
      .filter(([number]) => kept.has(number))
      .sort(([a, i], [b, j]) => a - b || of.means.x[where.name][i] - of.means.x[where.name][j])
      .map(([number, row]) => [
        ...of.conditions[number],
        placed(of.means.x[where.name][row], where),
        shown(of.means.mean[row], of),
        of.means.low[row] === null ? "" : "[" + shown(of.means.low[row], of) + ", " + shown(of.means.high[row], of) + "]",
        of.means.over[row],
        String(of.means.seeds[row]),
      ]);
    const head = [...columns.map(([, label]) => label), where.label, "mean", "95 % interval", "over", "seeds"];
    const numbers = [...columns.map(() => false), true, true, true, false, true];
    at("chart-numbers").querySelector("div").replaceChildren(whole(head, rows, numbers));
  }

  const openNumbers = at("chart-numbers");
  openNumbers.addEventListener("toggle", () => openNumbers.open && chartNumbers());

  function changed(all) {
    if (all) {
      const keys = new Set(columnsOf(block()).map(([key]) => key));
      for (const key of Object.keys(state.chosen)) if (!keys.has(key)) delete state.chosen[key];
    }
    const focused = document.activeElement && document.activeElement.name;
    chartControls();
    if (focused) {
      const again = at("chart-controls").elements.namedItem(focused);
      if (again) again.focus();
    }
    legendNow();
    captionNow();
    mainChart.redraw();
    if (openNumbers.open) chartNumbers();
  }

  function beginChart() {
    if (!data.charts.length) {
      at("chart").replaceChildren("Nothing was measured that could be drawn.");
      return;
    }
    state.metric = view().metrics.accuracy ? "accuracy" : Object.keys(view().metrics)[0];
    const preferred = view().axes.find((each) => each.name === "block") || view().axes[0];
    state.axis = preferred.name;
    const of = block();
    // too many panels to be read at once: begin with the first value
    of.facets.forEach(([key], place) => {
      if (drawnNow().panels.length + drawnNow().left > 4) state.chosen[key] = unique(of.conditions.map((condition) => condition[place])).find(Boolean) || "";
    });
    changed();
  }

  // The table of accuracies

  function mainTable() {
    const told = data.table;
    const rules = new Set(told.rules);
    const body = told.body.map((line, number) =>
      make("tr", { class: rules.has(number) ? "rule" : null }, line.map(([text, best], place) => make("td", { class: [place >= told.left ? "number" : "", best ? "best" : ""].join(" ").trim() || null }, text)))
    );
    at("main-table").replaceChildren(
      make("div", { class: "booktabs" },
        make("p", { class: "note" }, told.title),
        make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": told.title },
          make("table", {},
            make("thead", {}, make("tr", {}, told.header.map((text, place) => columnHead(text, place >= told.left)))),
            make("tbody", {}, body)
          )
        ),
        told.notes.slice(0, 4).map((note) => make("p", { class: "note" }, note.replace("Bold, in formats that have it: ", "Bold: "))),
        told.notes.length > 4 ? gapsOf(told.notes.slice(4)) : null
      )
    );
    if (data.landmarks.length) at("landmarks").querySelector("pre").textContent = data.landmarks.join("\n");
    else at("landmarks").remove();
  }

  // Comparisons

  function pairTable(pair) {
    const ends = pair.rows.flatMap((row) => (row.low === null ? [row.difference] : [row.low, row.high])).map(Math.abs);
    const reach = 1.06 * Math.max(0.01, ...ends.filter(Number.isFinite));
    const percent = (value) => (50 + (50 * Math.max(-reach, Math.min(reach, value))) / reach).toFixed(2) + "%";
    const points = (value) => {
      const text = Math.abs(100 * value).toFixed(1);
      return (text === "0.0" ? "" : value > 0 ? "+" : "−") + text;
    };
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": pair.a + " minus " + pair.b },
      make("table", {},
        make("thead", {}, make("tr", {},
          columnHead(pair.units),
          make("th", { scope: "col", class: "forest" }, make("span", { class: "sides" }, make("span", {}, "← " + pair.b + " better"), make("span", {}, pair.a + " better →"))),
          columnHead("points", true),
          columnHead("95 % interval", true),
          columnHead("verdict"),
          columnHead("p (Holm)", true)
        )),
        make("tbody", {}, pair.rows.map((row) => {
          const track = make("span", { class: "track", "aria-hidden": "true" }, make("span", { class: "zero" }));
          track.firstChild.style.left = "50%";
          if (row.low !== null) {
            const bar = make("span", { class: "bar" });
            bar.style.left = percent(row.low);
            bar.style.width = "calc(" + percent(row.high) + " - " + percent(row.low) + ")";
            track.append(bar);
          }
          const dot = make("span", { class: "dot" });
          dot.style.left = percent(row.difference);
          track.append(dot);
          const line = make("tr", { class: row.claimed ? "claimed" : null, title: row.verdict },
            make("th", { scope: "row" }, row.where),
            make("td", { class: "forest" }, track),
            cell(points(row.difference), "number"),
            cell(row.low === null ? "" : "[" + points(row.low) + ", " + points(row.high) + "]", "number"),
            cell(row.said, "said-cell"),
            cell(row.p, "number")
          );
          const own = data.charts.map((each) => each.colours[row.better]).find(Boolean);
          if (own) tinted.push([line, own[0]]);
          return line;
        }))
      )
    );
  }

  function comparisons() {
    if (!data.pairs.length) {
      at("comparisons").append(make("p", { class: "note" }, "Nothing is compared: these runs have one loss and one criterion."));
      at("verdicts").remove();
      return;
    }
    const parts = data.pairs.map((pair) => {
      const overs = unique(pair.rows.map((row) => row.over).filter(Boolean));
      return [
        make("h3", {}, pair.a + " minus " + pair.b),
        pair.summary ? make("p", { class: "note" }, pair.summary + (overs.length ? " Intervals over " + overs.join(" or ") + "; p is adjusted by Holm over " + pair.family + (pair.family === 1 ? " comparison" : " comparisons") + "; where the seed changes nothing, or is one, nothing is claimed." : "")) : null,
        pair.rows.length ? pairTable(pair) : null,
        ...gapsOf(pair.gaps),
      ];
    });
    at("pairs").replaceChildren(...parts[0].filter(Boolean));
    if (parts.length > 1) {
      const names = data.pairs.slice(1).map((pair) => pair.a + " minus " + pair.b).join(", ");
      at("pairs").append(make("details", { id: "more-pairs" }, make("summary", {}, "Further pairs: " + names), parts.slice(1).flat().filter(Boolean)));
    }
    at("verdicts").querySelector("div").replaceChildren(make("ul", {}, data.pairs.flatMap((pair) => pair.rows.map((row) => make("li", {}, row.verdict)))));
  }

  // Training

  const teaching = { metric: "loss", chosen: {} };
  const trained = data.training.lines.map(([run, ...lists]) => ({ run, lists: lists.map((number) => data.training.lists[number]) }));
  const trainingLabels = { loss: "Training loss", lr: "Learning rate", grad_norm: "Norm of the gradient" };
  const trainingColumns = data.columns.filter((each) => !["loss", "seed"].includes(each.key) && unique(trained.map((line) => each.codes[line.run])).length > 1);

  function trainingNow() {
    const kept = trained.filter((line) => trainingColumns.every((each) => !teaching.chosen[each.key] || known(each, line.run) === teaching.chosen[each.key]));
    const lossOf = (line) => known(column("loss"), line.run);
    return { left: Math.max(0, kept.length - CURVES), kept: kept.slice(0, CURVES), losses: column("loss").values.filter((text) => kept.some((line) => lossOf(line) === text)), lossOf };
  }

  function buildTraining(width) {
    const now = trainingNow();
    const place = data.training.series.indexOf(teaching.metric) + 1;
    const layout = panels(Math.max(1, now.losses.length), width, 3, now.losses, "Optimizer step", trainingLabels[teaching.metric], width < NARROW ? 260 : 320);
    const traces = now.kept.map((line) => {
      const panel = now.losses.indexOf(now.lossOf(line));
      const colours = data.charts.map((each) => each.colours[now.lossOf(line)]).find(Boolean) || ["#000000"];
      return {
        type: "scatter", mode: "lines", xaxis: suffixed("x", panel), yaxis: suffixed("y", panel), hoverinfo: "text",
        x: line.lists[0],
        // a loss of 0, as KL of a model to itself, has no place on a logarithmic axis
        y: line.lists[place].map((value) => (teaching.metric === "loss" && value !== null && value <= 1e-9 ? null : value)),
        hovertext: line.lists[0].map((step, number) => plain(called(line.run)) + "<br>step " + step + ": " + line.lists[place][number] + "<br>run " + plain(runs.id[line.run])),
        line: { color: onGround(colours[0]), width: 1.3 },
        opacity: now.kept.length > 40 ? 0.45 : 0.75,
      };
    });
    now.losses.forEach((loss, panel) => {
      const values = traces.filter((_, number) => now.lossOf(now.kept[number]) === loss).flatMap((trace) => trace.y);
      Object.assign(layout[suffixed("yaxis", panel)], teaching.metric === "loss" ? { type: "log", ...decades(values) } : { nticks: 6, tickformat: "~g" });
    });
    return { traces, layout };
  }

  /** Ticks of a logarithmic axis: 1, 2, 5, 10 where few decades are seen, else the decades. */
  function decades(values) {
    const seen = values.filter((value) => value > 0).map(Math.log10);
    const [low, high] = seen.length ? [Math.floor(Math.min(...seen)), Math.ceil(Math.max(...seen))] : [0, 1];
    const steps = high - low <= 3 ? [1, 2, 5] : [1];
    const tickvals = [];
    for (let power = low; power <= high; power++) tickvals.push(...steps.map((step) => Number(step + "e" + power)));
    return { tickvals, ticktext: tickvals.map(String) };
  }

  const trainingChart = chart(at("training-chart"), buildTraining);

  function trainingCaption() {
    const now = trainingNow();
    const said = [counted(now.kept.length) + (now.kept.length === 1 ? " run" : " runs") + ", one line each; steps count over all recover stages. Values of different losses do not compare with each other."];
    if (data.training.averaged > 1) said.push("Points are means of up to " + data.training.averaged + " neighbouring steps.");
    if (now.left) said.push(counted(now.left) + " more lines are not drawn: choose fewer above.");
    at("training-caption").replaceChildren(said.join(" "), ...gapsOf(data.training.gaps));
  }

  function trainingNumbers() {
    const place = data.training.series.indexOf(teaching.metric) + 1;
    const number = (value) => (value === null || value === undefined ? "" : String(Number(value.toPrecision(3))));
    const rows = trainingNow().kept.map((line) => {
      const values = line.lists[place];
      return [runs.id[line.run], called(line.run), number(values[0]), number(values[values.length - 1]), String(line.lists[0][line.lists[0].length - 1])];
    });
    at("training-numbers").querySelector("div").replaceChildren(whole(["run", "condition", "first", "last", "at step"], rows, [false, false, true, true, true]));
  }

  function beginTraining() {
    if (!trained.length) {
      at("training").replaceChildren(at("training-title"), make("p", { class: "note" }, "No run was trained, so there are no training curves."), ...gapsOf(data.training.gaps));
      return;
    }
    const redraw = () => {
      trainingCaption();
      trainingChart.redraw();
      if (at("training-numbers").open) trainingNumbers();
    };
    for (const each of trainingColumns) {
      const values = unique(trained.map((line) => known(each, line.run)));
      if (each.key === "sparsity") {
        const sorted = each.values.filter((value) => values.includes(value) && parseFloat(value) > 0);
        teaching.chosen.sparsity = sorted[Math.floor(sorted.length / 2)] || "";
      } else if (each.key === "criterion") teaching.chosen.criterion = each.values.find((value) => values.includes(value));
    }
    at("training-controls").replaceChildren(
      select("Shown", data.training.series.map((name) => [name, trainingLabels[name]]), "loss", (value) => {
        teaching.metric = value;
        redraw();
      }, "training-metric"),
      ...trainingColumns.map((each) =>
        select(each.label, [["", "all"], ...each.values.filter((value) => value && trained.some((line) => known(each, line.run) === value)).map((value) => [value, value])], teaching.chosen[each.key] || "", (value) => {
          teaching.chosen[each.key] = value;
          redraw();
        }, "training-" + each.key)
      )
    );
    at("training-numbers").addEventListener("toggle", () => at("training-numbers").open && trainingNumbers());
    trainingCaption();
  }

  // Pages of a table

  function pages(element, number, shownNow, rows, go) {
    const last = Math.max(1, Math.ceil(number / rows));
    const step = (by, text) => make("button", { type: "button", disabled: shownNow + by < 0 || shownNow + by >= last, onclick: () => {
      go(shownNow + by);
      const again = element.querySelector(by < 0 ? "button:first-of-type" : "button:last-of-type");
      if (again && !again.disabled) again.focus();
    } }, text);
    element.replaceChildren(...(last > 1 ? [step(-1, "← Previous"), make("span", {}, "page " + (shownNow + 1) + " of " + counted(last)), step(1, "Next →")] : []));
  }

  // Runs

  const listed = { text: "", chosen: {}, sort: null, down: false, page: 0 };
  const all = runs.id.map((_, number) => number);
  const texts = all.map((run) => [runs.id[run], runs.status[run], ...data.columns.map((each) => known(each, run))].join(" ").toLowerCase());

  const runColumns = [
    { key: "id", label: "run", text: (run) => runs.id[run], order: (run) => runs.id[run] },
    ...data.columns.map((each) => ({ key: each.key, label: each.label, long: each.key === "variant", text: (run) => known(each, run), order: (run) => (each.codes[run] === undefined ? null : each.codes[run]), values: each.values })),
    ...runs.numbers.map((each) => ({
      key: each.key,
      label: each.label + (each.unit ? " (" + each.unit + ")" : ""),
      number: true,
      text: (run) => (each.values[run] === null || each.values[run] === undefined ? "" : (each.scale * each.values[run]).toLocaleString("en-US", { minimumFractionDigits: each.digits, maximumFractionDigits: each.digits })),
      order: (run) => (each.values[run] === undefined ? null : each.values[run]),
    })),
    { key: "status", label: "status", text: (run) => runs.status[run], order: (run) => runs.status[run], values: unique(runs.status), status: true },
  ];

  function runsNow() {
    const words = listed.text.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = runColumns.filter((each) => listed.chosen[each.key]);
    const kept = all.filter((run) => words.every((word) => texts[run].includes(word)) && wanted.every((each) => each.text(run) === listed.chosen[each.key]));
    const by = runColumns.find((each) => each.key === listed.sort);
    if (by) {
      kept.sort((a, b) => {
        const [x, y] = [by.order(a), by.order(b)];
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return (x < y ? -1 : x > y ? 1 : 0) * (listed.down ? -1 : 1) || a - b;
      });
    }
    return kept;
  }

  function runsTable() {
    const kept = runsNow();
    const size = printing ? PRINTED_ROWS : ROWS;
    listed.page = Math.min(listed.page, Math.max(0, Math.ceil(kept.length / size) - 1));
    const part = kept.slice(listed.page * size, (listed.page + 1) * size);
    const sortBy = (key) => {
      listed.down = listed.sort === key ? !listed.down : false;
      listed.sort = key;
      listed.page = 0;
      runsTable();
      at("runs-table").querySelector('th[data-key="' + CSS.escape(key) + '"] button').focus();
    };
    at("runs-table").replaceChildren(
      make("table", {},
        make("thead", {}, make("tr", {}, runColumns.map((each) =>
          make("th", { scope: "col", class: each.number ? "number" : null, "data-key": each.key, "aria-sort": listed.sort === each.key ? (listed.down ? "descending" : "ascending") : null },
            make("button", { type: "button", class: "sort", onclick: () => sortBy(each.key) }, each.label)
          )
        ))),
        make("tbody", {}, part.map((run) =>
          make("tr", {}, runColumns.map((each) => {
            if (each.key !== "id") return cell(each.text(run), each.number ? "number" : each.status ? runs.status[run] : each.long ? "long" : null);
            return make("th", { scope: "row" }, run < runs.recorded ? make("a", { href: "#configs", title: "its config", onclick: () => configOf(run) }, make("code", {}, runs.id[run])) : make("code", {}, runs.id[run]));
          }))
        ))
      )
    );
    at("runs-count").textContent = counted(kept.length) + " of " + counted(all.length) + " runs" + (printing && kept.length > size ? "; the first " + size + " are printed" : "");
    pages(at("runs-pages"), kept.length, listed.page, size, (page) => {
      listed.page = page;
      runsTable();
    });
  }

  function beginRuns() {
    const again = () => {
      listed.page = 0;
      runsTable();
    };
    const selects = runColumns.filter((each) => each.values && !each.long && each.values.length > 1 && each.values.length <= 60).map((each) =>
      select(each.label, [["", "all"], ...each.values.filter(Boolean).map((value) => [value, value])], "", (value) => {
        listed.chosen[each.key] = value;
        again();
      }, "runs-" + each.key)
    );
    at("runs-controls").replaceChildren(search("Search", (value) => {
      listed.text = value;
      again();
    }, "runs-text"), ...selects);
    runsTable();
  }

  // Answers

  const asking = { set: 0, chosen: {}, seed: "", filter: "all", text: "", page: 0, open: new Set() };
  const letters = data.answers.letters;
  const NONE = data.columns.find((each) => each.key === "loss");

  /** What dense, pruned and each loss answered in the condition: one string of letters for each different seed. */
  function models() {
    const set = data.answers.sets[asking.set];
    const kept = set.runs.filter(([run]) =>
      answerColumns().every((each) => !asking.chosen[each.key] || known(each, run) === asking.chosen[each.key]) &&
      (!asking.seed || known(column("seed"), run) === asking.seed)
    );
    const dense = unique(kept.map(([, each]) => each).filter((each) => each !== null));
    const pruned = unique(kept.filter(([, , each]) => each !== null).map(([run, , each]) => known(column("seed"), run) + ":" + each));
    const told = [];
    if (dense.length) told.push({ key: "dense", label: "dense", answers: dense.map((each) => letters[each]) });
    if (pruned.length) told.push({ key: "pruned", label: "pruned", answers: pruned.map((each) => letters[Number(each.slice(each.lastIndexOf(":") + 1))]) });
    for (const loss of NONE.values) {
      const mine = kept.filter(([run]) => known(NONE, run) === loss);
      if (!mine.length || (loss === "none" && pruned.length)) continue;
      told.push({ key: "loss:" + loss, loss, label: loss === "none" ? "no recovery" : loss, answers: mine.map(([, , , each]) => letters[each]) });
    }
    for (const each of told) each.rights = set.gold.map((gold, q) => each.answers.filter((one) => one.charCodeAt(q) - 48 === gold).length);
    return { set, told, runs: kept.length };
  }

  function answerColumns() {
    const set = data.answers.sets[asking.set];
    return data.columns.filter((each) => !["loss", "seed"].includes(each.key) && unique(set.runs.map(([run]) => each.codes[run])).length > 1);
  }

  // a model is right where more than half of its seeds are
  const right = (model, question) => 2 * model.rights[question] > model.answers.length;

  const conditionNow = () => [...answerColumns().map((each) => each.label + " " + asking.chosen[each.key]), ...(asking.seed ? ["seed " + asking.seed] : [])].join(", ");

  function filters(now) {
    const of = (key) => now.told.find((each) => each.key === key);
    const dense = of("dense");
    const pruned = of("pruned");
    const losses = now.told.filter((each) => each.loss && each.loss !== "none");
    const found = [["all", "all questions", () => true]];
    if (dense && pruned) found.push(["lost", "dense right, pruned wrong", (q) => right(dense, q) && !right(pruned, q)]);
    if (pruned) {
      for (const loss of losses) found.push(["back:" + loss.loss, "brought back by " + loss.label, (q) => (!dense || right(dense, q)) && !right(pruned, q) && right(loss, q)]);
      for (const loss of losses) {
        for (const other of losses) {
          if (loss !== other) found.push(["only:" + loss.loss + ":" + other.loss, "brought back by " + loss.label + " and not by " + other.label, (q) => (!dense || right(dense, q)) && !right(pruned, q) && right(loss, q) && !right(other, q)]);
        }
      }
      if (losses.length) found.push(["broken", "broken by recovery: pruned right, a loss wrong", (q) => right(pruned, q) && losses.some((loss) => !right(loss, q))]);
    }
    return found;
  }

  function answersTable() {
    const now = models();
    const { set } = now;
    const count = set.ids.length;
    const every = [...Array(count).keys()];
    const kinds = filters(now);
    if (!kinds.some(([key]) => key === asking.filter)) asking.filter = "all";
    const list = at("answers-controls").elements.namedItem("answers-filter");
    list.replaceChildren(...kinds.map(([key, text, test]) => make("option", { value: key }, text + " (" + counted(every.filter((q) => test(q)).length) + ")")));
    list.value = asking.filter;
    const test = kinds.find(([key]) => key === asking.filter)[2];
    const words = asking.text.toLowerCase().split(/\s+/).filter(Boolean);
    const textOf = (q) => (set.texts[q] ? set.texts[q][0] + " " + set.texts[q][1].join(" ") : "");
    const kept = every.filter((q) => test(q) && (!words.length || words.every((word) => (set.ids[q] + " " + textOf(q)).toLowerCase().includes(word))));
    asking.page = Math.min(asking.page, Math.max(0, Math.ceil(kept.length / ROWS) - 1));
    const part = kept.slice(asking.page * ROWS, (asking.page + 1) * ROWS);
    const rows = part.flatMap((q) => questionRows(now, q));
    at("answers-table").replaceChildren(
      now.told.length
        ? make("table", {},
            make("thead", {}, make("tr", {}, columnHead("question"), now.told.map((each) => make("th", { scope: "col", class: "share" }, each.label)))),
            make("tbody", {}, rows)
          )
        : make("p", { class: "note" }, "No run has this condition.")
    );
    at("answers-count").textContent = now.told.length ? counted(kept.length) + " of " + counted(count) + " questions" + (conditionNow() ? " (" + conditionNow() + ")" : "") + ", answered by " + counted(now.runs) + (now.runs === 1 ? " run" : " runs") + ". 4/5: four of five seeds are right. A model counts as right where more than half of its seeds are." : "";
    pages(at("answers-pages"), kept.length, asking.page, ROWS, (page) => {
      asking.page = page;
      answersTable();
    });
  }

  function questionRows(now, q) {
    const { set } = now;
    const gold = set.gold[q];
    const [text, choices] = set.texts[q] || [set.ids[q], null];
    const open = asking.open.has(q);
    const button = make("button", { type: "button", class: "question", "aria-expanded": String(open), "data-question": set.ids[q], onclick: () => {
      if (!asking.open.delete(q)) asking.open.add(q);
      answersTable();
      const again = [...at("answers-table").querySelectorAll("button.question")].find((each) => each.dataset.question === set.ids[q]);
      if (again) again.focus();
    } }, text, choices ? make("small", {}, set.ids[q]) : null);
    const row = make("tr", {}, make("th", { scope: "row" }, button), now.told.map((each) => {
      const count = each.rights[q];
      const total = each.answers.length;
      const kind = count === total ? "all" : count === 0 ? "no" : 2 * count > total ? "most" : "few";
      return make("td", { class: "share " + kind }, total === 1 ? (count ? "right" : "wrong") : count + "/" + total);
    }));
    if (!open) return [row];
    const most = Math.max(gold, ...now.told.flatMap((each) => each.answers.map((one) => one.charCodeAt(q) - 48)));
    const told = choices || [...Array(most + 1).keys()].map((number) => "choice " + (number + 1));
    const table = make("table", { class: "choices" }, make("tbody", {}, told.map((choice, number) => {
      const by = now.told
        .map((each) => [each.label, each.answers.filter((one) => one.charCodeAt(q) - 48 === number).length, each.answers.length])
        .filter(([, count]) => count)
        .map(([label, count, total]) => label + (total === 1 ? "" : " " + count + "/" + total))
        .join(" · ");
      return make("tr", { class: number === gold ? "gold" : null }, make("th", { scope: "row" }, choice), cell(number === gold ? "gold" : ""), cell(by));
    })));
    return [row, make("tr", {}, make("td", { colspan: String(now.told.length + 1) }, table))];
  }

  function answerControls() {
    const set = data.answers.sets[asking.set];
    const again = () => {
      asking.page = 0;
      answersTable();
    };
    const has = (each, value) => set.runs.some(([run]) => known(each, run) === value);
    const selects = answerColumns().map((each) => {
      const values = each.values.filter((value) => value && has(each, value));
      if (!values.includes(asking.chosen[each.key])) {
        const pruned = values.filter((value) => parseFloat(value) > 0);
        asking.chosen[each.key] = each.key === "sparsity" ? pruned[Math.floor(pruned.length / 2)] || values[0] : values[0];
      }
      return select(each.label, values.map((value) => [value, value]), asking.chosen[each.key], (value) => {
        asking.chosen[each.key] = value;
        again();
      }, "answers-" + each.key);
    });
    const seeds = column("seed").values.filter((value) => has(column("seed"), value));
    at("answers-controls").replaceChildren(
      ...(data.answers.sets.length > 1 ? [select("questions", data.answers.sets.map((each, number) => [String(number), "set " + (number + 1) + ": " + counted(each.ids.length) + " questions, " + counted(each.runs.length) + " runs"]), String(asking.set), (value) => {
        asking.set = Number(value);
        asking.chosen = {};
        asking.open.clear();
        answerControls();
        again();
      }, "answers-set")] : []),
      ...selects,
      ...(seeds.length > 1 ? [select("seed", [["", "all"], ...seeds.map((value) => [value, value])], asking.seed, (value) => {
        asking.seed = value;
        again();
      }, "answers-seed")] : []),
      select("Questions", [["all", "all questions"]], "all", (value) => {
        asking.filter = value;
        again();
      }, "answers-filter"),
      search("Search", (value) => {
        asking.text = value;
        again();
      }, "answers-text")
    );
  }

  function beginAnswers() {
    at("answers-notes").replaceChildren(...gapsOf(data.answers.gaps));
    if (!data.answers.sets.length) {
      at("answers-controls").remove();
      at("answers-count").textContent = "No answers are known.";
      return;
    }
    answerControls();
    answersTable();
  }

  // Configs

  const { common, differing } = data.configs;
  const compared = { a: 0, b: Math.min(1, runs.recorded - 1), only: true };

  function configOf(run) {
    if (compared.b === run) compared.b = compared.a;
    compared.a = run;
    compared.only = false;
    configs();
    configTable();
    setTimeout(() => at("config-pair").focus(), 0);
  }

  function configTable() {
    const valueOf = (each, run) => (each.codes[run] === null ? "" : each.values[each.codes[run]]);
    const rows = differing.map((each) => [each.key, valueOf(each, compared.a), valueOf(each, compared.b)]);
    const kept = (compared.only ? rows.filter(([, a, b]) => a !== b) : [...rows, ...common.map(([key, value]) => [key, value, value])]).sort((a, b) => (a[0] < b[0] ? -1 : 1));
    const table = make("table", { class: "diff" },
      make("thead", {}, make("tr", {}, columnHead("key"), columnHead(runs.id[compared.a]), columnHead(runs.id[compared.b]))),
      make("tbody", {}, kept.map(([key, a, b]) => make("tr", { class: a === b ? null : "differs" }, make("th", { scope: "row" }, make("code", {}, key)), cell(a), cell(b))))
    );
    at("config-diff").replaceChildren(kept.length ? table : make("p", { class: "note" }, "They differ in nothing."));
  }

  function configs() {
    const options = all.slice(0, runs.recorded).map((run) => [String(run), called(run) + " · " + runs.id[run]]);
    const pick = (label, key) => select(label, options, String(compared[key]), (value) => {
      compared[key] = Number(value);
      configTable();
    }, "config-" + key);
    const differs = whole(["key", "values (runs)"], differing.map((each) => {
      const counts = each.values.map((value, number) => value + " (" + each.codes.filter((code) => code === number).length + ")");
      const lacking = each.codes.filter((code) => code === null).length;
      if (counts.length > 12) counts.splice(12, counts.length, "and " + counted(each.values.length - 12) + " more");
      return [each.key, counts.join(", ") + (lacking ? ", not there (" + lacking + ")" : "")];
    }), []);
    differs.className = "settings";
    const same = whole(["key", "value"], common, []);
    same.className = "settings";
    at("configs-body").replaceChildren(
      make("h3", {}, "What differs"),
      differing.length ? make("div", { class: "scroll" }, differs) : make("p", { class: "note" }, "Nothing: there is one config."),
      make("h3", { id: "config-pair", tabindex: "-1" }, "Two runs side by side"),
      make("form", { class: "controls", "aria-label": "Which runs are compared" }, pick("this run", "a"), pick("with this run", "b"), check("only differences", compared.only, (value) => {
        compared.only = value;
        configTable();
      }, "config-only")),
      make("div", { class: "scroll", id: "config-diff" }),
      make("details", { id: "config-common" }, make("summary", {}, "What all " + counted(runs.recorded) + " runs have in common: " + counted(common.length) + " settings"), make("div", { class: "scroll" }, same))
    );
  }

  // Provenance

  function provenance() {
    const parts = data.account.map((line) => make("p", {}, line));
    const commits = data.commits;
    if (commits.length > 1) {
      parts.push(make("p", { class: "warning" }, "Mixed code versions: " + commits.map(([commit, count]) => counted(count) + " by " + commit).join(", ") + ". Runs of different code may differ for that reason alone."));
    } else if (commits.length) {
      parts.push(make("p", {}, "Code version: " + commits[0][0] + (commits[0][0].endsWith("+") ? "; the + says that files differed from the commit." : ".")));
    }
    if (data.failures.length) {
      parts.push(make("h3", {}, "Failures"));
      for (const each of data.failures) {
        parts.push(make("details", { class: "failure" }, make("summary", {}, each.run + ": " + each.first), make("pre", { class: "scroll" }, each.whole)));
      }
    }
    for (const [title, lines] of data.left_out) {
      parts.push(make("h3", {}, title.charAt(0).toUpperCase() + title.slice(1) + ": " + counted(lines.length)), make("div", { class: "scroll" }, whole(["run", "what is known"], lines, [])));
    }
    const environments = data.environments;
    parts.push(make("h3", {}, environments.length === 1 ? "Environment" : counted(environments.length) + " environments"));
    const first = environments.slice(0, 8);
    const maps = first.map((each) => new Map(each.values));
    const keys = unique(first.flatMap((each) => each.values.map(([key]) => key)));
    const rows = keys.map((key) => [key, ...maps.map((map) => map.get(key) || "")]);
    const table = whole(["", ...first.map((each) => counted(each.count) + (each.count === 1 ? " run" : " runs"))], rows, []);
    table.className = "diff";
    [...table.tBodies[0].rows].forEach((row, place) => {
      if (unique(rows[place].slice(1)).length > 1) row.className = "differs";
    });
    parts.push(keys.length ? make("div", { class: "scroll" }, table) : make("p", { class: "note" }, "The records tell nothing of it."));
    if (environments.length > 8) parts.push(make("p", { class: "note" }, counted(environments.length - 8) + " more are not shown."));
    at("provenance-body").replaceChildren(...parts);
  }

  // Figures: pictures are made when they are looked for

  function figures() {
    const details = at("figures-drawn");
    const pictures = JSON.parse(at("pictures").textContent);
    details.querySelector("summary").textContent = pictures.length === 1 ? "1 figure, as in SWEEP/figures" : counted(pictures.length) + " figures, as in SWEEP/figures";
    details.addEventListener("toggle", () => {
      const inside = details.querySelector("div");
      if (!details.open || inside.childElementCount) return;
      inside.className = "gallery";
      inside.replaceChildren(...pictures.map((each) =>
        make("div", {}, make("img", { src: each.picture, alt: each.caption }), make("h3", {}, each.name), make("p", { class: "note" }, each.caption), ...gapsOf(each.gaps))
      ));
    });
    if (!pictures.length) details.remove();
    if (data.not_drawn.length) {
      at("figures-missing").replaceChildren(make("details", {}, make("summary", {}, counted(data.not_drawn.length) + " figures are not drawn, and why"), make("ul", {}, data.not_drawn.map(([name, reason]) => make("li", { class: "note" }, name.replaceAll("_", " ") + ": " + reason)))));
    }
  }

  // Printing: light, as wide as paper, with what is closed opened

  let before = null;

  function print(on) {
    if (on === printing) return;
    printing = on;
    if (on) {
      const closed = [...document.querySelectorAll("#verdicts, #more-pairs, #landmarks, #config-common, #figures-drawn, .failure")].filter((each) => !each.open);
      closed.forEach((each) => (each.open = true));
      before = { closed, theme };
      theme = "light";
      charts.forEach((each) => (each.near = true));
    } else {
      before.closed.forEach((each) => (each.open = false));
      theme = before.theme;
    }
    applyTheme();
    runsTable();
  }

  // Begin

  at("rests").textContent = data.study.rests ? "(" + data.study.rests + ")" : "";
  at("more").textContent = data.study.more;
  at("facts").replaceChildren(...data.study.facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  document.addEventListener("submit", (event) => event.preventDefault());
  beginChart();
  mainTable();
  comparisons();
  applyTheme();
  beginTraining();
  beginRuns();
  beginAnswers();
  configs();
  configTable();
  provenance();
  figures();

  addEventListener("DOMContentLoaded", () => {
    const watch = new IntersectionObserver((seen) => {
      for (const each of seen) {
        if (!each.isIntersecting) continue;
        watch.unobserve(each.target);
        (each.target.id === "chart" ? mainChart : trainingChart).show();
      }
    }, { rootMargin: "300px" });
    if (data.charts.length) watch.observe(at("chart"));
    if (trained.length) watch.observe(at("training-chart"));
    let waiting = 0;
    addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => charts.forEach((each) => each.near && each.width !== each.wanted() && each.redraw()), 120);
    });
    addEventListener("beforeprint", () => print(true));
    addEventListener("afterprint", () => print(false));
    matchMedia("print").addEventListener("change", (event) => print(event.matches));
  });
})();
