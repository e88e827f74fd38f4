/* Any metric against any axis, and the table of accuracies. */

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
    .filter(([condition]) =>
      columns.every(([key], place) => !state.chosen[key] || state.chosen[key] === condition[place]),
    )
    .map(([, number]) => number);
}

/** What the chart shows: panels of lines, with the numbers of each. */
function drawnNow() {
  const of = block();
  const kept = chosen(of);
  const numbers = unique(kept.map((number) => of.panel[number]));
  const settings = unique(kept.map((number) => of.setting[number]));
  return {
    of,
    left: Math.max(0, numbers.length - PANELS),
    panels: numbers.slice(0, PANELS).map((panel) => {
      const lines = kept
        .filter((number) => of.panel[number] === panel)
        .map((number) => ({
          number,
          first: of.conditions[number][of.facets.length],
          dash: DASHES[settings.indexOf(of.setting[number]) % DASHES.length],
          label: of.labels[number],
        }));
      return { ...of.panels[panel], number: panel, lines, seen: lines.filter((line) => !state.hidden.has(line.first)) };
    }),
  };
}

/** Whether lines stand beside their places, so that bars can be told apart: never along what is itself measured. */
const apart = (lines, where) => !where.cost && !where.logarithmic && lines.length > 1 && lines.length <= 8;

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

function buildChart(width) {
  const now = drawnNow();
  const { of } = now;
  const where = axis();
  const scaleX = where.scale;
  const scaleY = of.scale;
  const overSeeds = of.means.over.includes("seeds");
  const layout = panels(
    now.panels.length,
    width,
    3,
    now.panels.map((panel) => panel.title),
    where.label,
    of.axis,
    width < NARROW ? 300 : 400,
  );
  const stars = (panel) => panel.stars[where.name] || [];
  // sparsities have one range in all panels; costs of several models do not lie on one scale
  const xsOf = (panel) =>
    of.runs.run
      .filter((_, row) => !where.cost || of.panel[of.runs.condition[row]] === panel.number)
      .map((run) => where.values[run])
      .concat(stars(panel).map(([cost]) => cost))
      .filter((value) => value !== null)
      .map((value) => scaleX * value);
  const traces = [];
  const ys = [];
  const meansOf = rowsOf(of.means.condition, (row) => of.means.x[where.name][row] !== null);
  const runsOf = rowsOf(of.runs.condition, (row) => where.values[of.runs.run[row]] !== null);
  layout.shapes = [];
  now.panels.forEach((panel, place) => {
    const [x, y] = [suffixed("x", place), suffixed("y", place)];
    const xs = xsOf(panel);
    const rangeX = xs.length ? spread(where.logarithmic ? xs.map(Math.log10) : xs, 0.05) : [0, 1];
    const lines = panel.seen;
    const step = apart(lines, where) ? (0.016 * (rangeX[1] - rangeX[0])) / (lines.length - 1) : 0;
    lines.forEach((line, order) => {
      const shift = (order - (lines.length - 1) / 2) * step;
      const colour = colourOf(line.first);
      // in the order of what was swept
      const mean = meansOf.get(line.number) || [];
      if (state.single && runs.finished <= MANY_RUNS) {
        const mine = runsOf.get(line.number) || [];
        ys.push(...mine.map((row) => scaleY * of.runs.value[row]));
        traces.push({
          type: "scatter",
          mode: "markers",
          xaxis: x,
          yaxis: y,
          hoverinfo: "text",
          x: mine.map((row) => scaleX * where.values[of.runs.run[row]] + shift),
          y: mine.map((row) => scaleY * of.runs.value[row]),
          hovertext: mine.map(
            (row) =>
              plain(called(of.runs.run[row])) +
              "<br>" +
              plain(shown(of.runs.value[row], of)) +
              " at " +
              plain(placed(where.values[of.runs.run[row]], where)) +
              "<br>run " +
              plain(runs.id[of.runs.run[row]]),
          ),
          marker: { color: colour, size: 4.5, opacity: 0.42 },
        });
      }
      const bars = (row) => of.means.over[row] === (overSeeds ? "seeds" : "questions") && of.means.low[row] !== null;
      const clip = (value) => (of.share ? Math.min(1, Math.max(0, value)) : value);
      const up = mean.map((row) =>
        bars(row) ? Math.max(0, scaleY * (clip(of.means.high[row]) - of.means.mean[row])) : 0,
      );
      const down = mean.map((row) =>
        bars(row) ? Math.max(0, scaleY * (of.means.mean[row] - clip(of.means.low[row]))) : 0,
      );
      const means = mean.map((row) => scaleY * of.means.mean[row]);
      ys.push(...means.map((value, row) => value + up[row]), ...means.map((value, row) => value - down[row]));
      traces.push({
        type: "scatter",
        mode: where.clocked ? "markers" : "lines+markers",
        xaxis: x,
        yaxis: y,
        hoverinfo: "text",
        x: mean.map((row) => scaleX * of.means.x[where.name][row] + shift),
        y: means,
        error_y: {
          type: "data",
          symmetric: false,
          array: up,
          arrayminus: down,
          color: colour,
          thickness: 1.3,
          width: 3,
        },
        hovertext: mean.map((row) => {
          const interval =
            of.means.low[row] === null
              ? "no interval"
              : "95 % [" +
                shown(of.means.low[row], of) +
                ", " +
                shown(of.means.high[row], of) +
                "] over " +
                of.means.over[row];
          return (
            "<b>" +
            plain(line.label) +
            "</b>" +
            (panel.title ? "<br>" + plain(panel.title) : "") +
            "<br>mean " +
            plain(shown(of.means.mean[row], of)) +
            " at " +
            plain(placed(of.means.x[where.name][row], where)) +
            "<br>" +
            plain(interval) +
            "<br>" +
            of.means.seeds[row] +
            (of.means.seeds[row] === 1 ? " seed" : " seeds")
          );
        }),
        line: { color: colour, width: 2, dash: line.dash },
        marker: { color: colour, size: 8, symbol: symbolOf(line.first) },
      });
    });
    for (const value of state.hidden.has("dense") ? [] : panel.dense) {
      ys.push(scaleY * value);
      layout.shapes.push({
        type: "line",
        xref: x + " domain",
        yref: y,
        x0: 0,
        x1: 1,
        y0: scaleY * value,
        y1: scaleY * value,
        line: { color: ink("ink"), width: 1.2, dash: "dash" },
      });
    }
    if (stars(panel).length && !state.hidden.has("dense")) {
      traces.push({
        type: "scatter",
        mode: "markers",
        xaxis: x,
        yaxis: y,
        hoverinfo: "text",
        x: stars(panel).map(([cost]) => scaleX * cost),
        y: stars(panel).map(([, value]) => scaleY * value),
        hovertext: stars(panel).map(
          ([cost, value]) => "dense<br>" + plain(shown(value, of)) + " at " + plain(placed(cost, where)),
        ),
        marker: { symbol: "star-open", size: 13, color: ink("ink") },
      });
    }
    if (panel.chance !== null && !state.hidden.has("chance")) {
      ys.push(scaleY * panel.chance);
      layout.shapes.push({
        type: "line",
        xref: x + " domain",
        yref: y,
        x0: 0,
        x1: 1,
        y0: scaleY * panel.chance,
        y1: scaleY * panel.chance,
        line: { color: ink("soft"), width: 1.2, dash: "dot" },
      });
    }
    const front = frontNow();
    if (front && state.front) traces.push(...frontTraces(front, panel, of, where, x, y));
    Object.assign(
      layout[suffixed("xaxis", place)],
      where.logarithmic ? ticks(xs) : { tickformat: prefixed(xs) },
      {
        type: where.logarithmic ? "log" : "linear",
        range: where.reversed ? [rangeX[1], rangeX[0]] : rangeX,
      },
    );
  });
  const rangeY = spread(ys.length ? ys : [0, 1], 0.05);
  if (of.share) rangeY.splice(0, 2, Math.max(-2, rangeY[0]), Math.min(102, rangeY[1]));
  now.panels.forEach((_, place) =>
    Object.assign(layout[suffixed("yaxis", place)], { range: [...rangeY], tickformat: prefixed(ys) }),
  );
  return { traces, layout };
}

/** Thousands as k, millions as M; smaller numbers as they are, since m could be read as part of a unit. */
const prefixed = (values) => (values.some((value) => Math.abs(value) >= 1e4) ? "~s" : "");

function ticks(values) {
  const found = unique(values).sort((a, b) => a - b);
  return found.length <= 8 ? { tickvals: found, ticktext: found.map((value) => counted(value)) } : {};
}

const frontNow = () => block().fronts[state.axis];

/** The runs of the front among the lines that are seen, and its staircase where all of it is. */
function frontTraces(front, panel, of, where, x, y) {
  const whole = front.rows.filter((row) => of.panel[of.runs.condition[row]] === panel.number);
  const points = whole
    .filter((row) => panel.seen.some((line) => line.number === of.runs.condition[row]))
    .map((row) => [where.scale * where.values[of.runs.run[row]], of.scale * of.runs.value[row], of.runs.run[row]])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const common = {
    type: "scatter",
    xaxis: x,
    yaxis: y,
    x: points.map((point) => point[0]),
    y: points.map((point) => point[1]),
  };
  const rings = {
    ...common,
    mode: "markers",
    hoverinfo: "text",
    hovertext: points.map(
      (point) =>
        "no run of this panel beats it in both<br>" +
        plain(called(point[2])) +
        "<br>run " +
        plain(runs.id[point[2]]),
    ),
    marker: { symbol: "circle-open", size: 12, color: ink("ink"), line: { width: 1.4 } },
  };
  if (front.split !== "test" || points.length < whole.length) return [rings];
  return [{ ...common, mode: "lines", hoverinfo: "skip", line: { shape: "hv", color: ink("ink"), width: 1.2 } }, rings];
}

const mainChart = chart(at("chart"), buildChart);

function chartControls() {
  const of = block();
  const where = axis();
  const names = Object.entries(view().metrics).map(([name, each]) => [name, each.axis]);
  const axes = data.charts.flatMap((each, number) => each.axes.map((one) => [number + "/" + one.name, one.label]));
  const selectors = columnsOf(of)
    .map(([key, label], place) => [key, label, unique(of.conditions.map((condition) => condition[place])), place])
    .filter(([, , values, place]) => values.length > 1 && place !== of.facets.length)
    .map(([key, label, values]) =>
      select(
        label,
        [["", "all"], ...values.filter(Boolean).map((value) => [value, value])],
        state.chosen[key] || "",
        (value) => {
          state.chosen[key] = value;
          changed();
        },
        "chart-" + key,
      ),
    );
  at("chart-controls").replaceChildren(
    select(
      "Vertical axis",
      names,
      state.metric,
      (value) => {
        state.metric = value;
        changed(true);
      },
      "chart-metric",
    ),
    select(
      "Horizontal axis",
      axes,
      state.view + "/" + state.axis,
      (value) => {
        const [number, name] = value.split("/");
        state.view = Number(number);
        state.axis = name;
        if (!view().metrics[state.metric]) state.metric = Object.keys(view().metrics)[0];
        changed(true);
      },
      "chart-axis",
    ),
    ...selectors,
    ...(runs.finished <= MANY_RUNS
      ? [
          check(
            "single runs",
            state.single,
            (value) => {
              state.single = value;
              changed();
            },
            "chart-single",
          ),
        ]
      : []),
    ...(frontNow()
      ? [
          check(
            "Pareto front",
            state.front,
            (value) => {
              state.front = value;
              changed();
            },
            "chart-front",
          ),
        ]
      : []),
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
  return drawing(
    "svg",
    { width: 26, height: 14, "aria-hidden": "true" },
    drawing("line", {
      x1: 0,
      x2: 26,
      y1: 7,
      y2: 7,
      stroke: colour,
      "stroke-width": 2,
      "stroke-dasharray":
        { dash: "5 3", dot: "2 3", dashdot: "6 2 2 2", longdash: "8 3", longdashdot: "9 2 2 2" }[dash] || "none",
    }),
    drawing(tag, { fill: colour, ...attributes }),
  );
}

function legendNow() {
  if (!data.charts.length) return;
  const now = drawnNow();
  const lines = now.panels.flatMap((panel) => panel.lines);
  const toggle = (key, text, mark) => {
    const button = make(
      "button",
      {
        type: "button",
        "aria-pressed": String(!state.hidden.has(key)),
        onclick: () => {
          if (!state.hidden.delete(key)) state.hidden.add(key);
          button.setAttribute("aria-pressed", String(!state.hidden.has(key)));
          captionNow();
          mainChart.redraw();
        },
      },
      mark,
      text,
    );
    return button;
  };
  const entries = unique(lines.map((line) => line.first)).map((text) =>
    toggle(text, text || "none named", swatch(colourOf(text), symbolOf(text), "solid")),
  );
  const dashed = unique(lines.map((line) => line.dash));
  if (dashed.length > 1 && unique(lines.map((line) => line.label.slice(line.first.length))).length <= DASHES.length) {
    for (const dash of dashed) {
      const line = lines.find((each) => each.dash === dash);
      entries.push(
        make(
          "span",
          { class: "key" },
          swatch(ink("soft"), "none", dash),
          line.label.slice(line.first.length).replace(/^, /, "") || "otherwise",
        ),
      );
    }
  }
  const dense = unique(now.panels.flatMap((panel) => panel.dense));
  if (dense.length) {
    const values = dense.map((value) => shown(value, now.of));
    entries.push(
      toggle("dense", "dense" + (values.length === 1 ? " " + values[0] : ""), swatch(ink("ink"), "none", "dash")),
    );
  }
  const chance = unique(now.panels.map((panel) => panel.chance)).filter((value) => value !== null);
  if (chance.length) {
    const values = chance.map((value) => shown(value, now.of));
    entries.push(
      toggle("chance", "chance" + (values.length === 1 ? " " + values[0] : ""), swatch(ink("soft"), "none", "dot")),
    );
  }
  at("chart-legend").replaceChildren(...entries);
}

function captionNow() {
  const now = drawnNow();
  const { of } = now;
  const seeds = unique(of.means.seeds).sort((a, b) => a - b);
  const span = seeds.length > 1 ? seeds[0] + " to " + seeds[seeds.length - 1] : String(seeds[0]);
  const where = axis();
  const said = [
    (where.clocked ? "Points" : "Lines") +
      " are means over " +
      span +
      (span === "1" ? " seed: " : " seeds: ") +
      of.label.charAt(0).toLowerCase() +
      of.label.slice(1) +
      (of.asked ? " on test questions" : "") +
      only(columnsOf(of), state.chosen) +
      ".",
  ];
  if (of.means.over.includes("seeds")) {
    said.push(
      "Bars: 95 % intervals of the mean over seeds (t quantiles)" +
        (of.asked ? ", for these questions" : "") +
        "; none where all seeds came to one value.",
    );
  } else if (of.means.over.includes("questions")) {
    said.push("Bars: 95 % intervals over the questions (Wilson); nothing is known of the spread over seeds.");
  } else {
    said.push(
      of.asked
        ? "There are no intervals: nothing is known of their spread."
        : "There are no intervals: this is counted, not estimated, and all seeds came to one value.",
    );
  }
  if (state.single && runs.finished <= MANY_RUNS) said.push("Faint points are single runs: point at one to see which.");
  const front = frontNow();
  if (front && state.front) {
    said.push(
      "Rings" +
        (front.split === "test" ? " and staircase" : "") +
        ": the runs that no other run of their panel beats in both, chosen by " +
        front.split +
        " questions" +
        (front.split === "test" ? ", the very ones shown, so they look better than they are." : "."),
    );
  }
  if (where.clocked || of.clocked)
    said.push(
      "Times were measured by a clock: they differ from one time to the next, and seconds of different machines do not compare.",
    );
  if (now.panels.some((panel) => apart(panel.seen, where)))
    said.push("Lines are moved sideways a little, so that bars can be told apart.");
  if (now.left) said.push(counted(now.left) + " more panels are not drawn: choose among them above.");
  at("chart-caption").replaceChildren(said.join(" "), ...gapsOf(of.gaps));
}

function gapsOf(gaps) {
  if (gaps.length <= 2) return gaps.map((gap) => make("p", { class: "note gap" }, gap));
  return [
    make(
      "details",
      {},
      make("summary", {}, counted(gaps.length) + " things are missing here"),
      make(
        "ul",
        {},
        gaps.map((gap) => make("li", { class: "note" }, gap)),
      ),
    ),
  ];
}

function chartNumbers() {
  const of = block();
  const where = axis();
  const columns = columnsOf(of);
  const kept = new Set(chosen(of));
  const rows = of.means.condition
    .map((number, row) => [number, row])
    .filter(([number]) => kept.has(number))
    .sort(([a, i], [b, j]) => a - b || i - j)
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
  at("chart-numbers")
    .querySelector(".scroll")
    .replaceChildren(whole(head, rows, numbers));
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
    if (drawnNow().panels.length + drawnNow().left > 4)
      state.chosen[key] = unique(of.conditions.map((condition) => condition[place])).find(Boolean) || "";
  });
  changed();
}

// The table of accuracies

function bookTable(told) {
  const rules = new Set(told.rules);
  const body = told.body.map((line, number) =>
    make(
      "tr",
      { class: rules.has(number) ? "rule" : null },
      line.map(([text, best], place) =>
        make("td", { class: [place >= told.left ? "number" : "", best ? "best" : ""].join(" ").trim() || null }, text),
      ),
    ),
  );
  return make(
    "div",
    { class: "booktabs" },
    make("p", { class: "note" }, told.title),
    scroller(
      told.title,
      make(
        "table",
        {},
        make(
          "thead",
          {},
          make(
            "tr",
            {},
            told.header.map((text, place) => columnHead(text, place >= told.left)),
          ),
        ),
        make("tbody", {}, body),
      ),
    ),
    told.notes
      .slice(0, 4)
      .map((note) => make("p", { class: "note" }, note.replace("Bold, in formats that have it: ", "Bold: "))),
    told.notes.length > 4 ? gapsOf(told.notes.slice(4)) : null,
  );
}

function mainTable() {
  at("main-table").replaceChildren(bookTable(data.table));
  if (data.landmarks.length) at("landmarks").append(scroller("Landmarks", make("pre", {}, data.landmarks.join("\n"))));
  else at("landmarks").remove();
}
