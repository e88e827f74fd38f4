/* Training curves. */

const teaching = { metric: "loss", chosen: {} };
const trained = data.training.lines.map(([run, ...lists]) => ({
  run,
  lists: lists.map((number) => data.training.lists[number]),
}));
const trainingLabels = { loss: "Training loss", lr: "Learning rate", grad_norm: "Norm of the gradient" };
const trainingColumns = data.columns.filter(
  (each) => !["loss", "seed"].includes(each.key) && unique(trained.map((line) => each.codes[line.run])).length > 1,
);

function trainingNow() {
  const kept = trained.filter((line) =>
    trainingColumns.every((each) => !teaching.chosen[each.key] || known(each, line.run) === teaching.chosen[each.key]),
  );
  const lossOf = (line) => known(column("loss"), line.run);
  return {
    left: Math.max(0, kept.length - CURVES),
    kept: kept.slice(0, CURVES),
    losses: column("loss").values.filter((text) => kept.some((line) => lossOf(line) === text)),
    lossOf,
  };
}

function buildTraining(width) {
  const now = trainingNow();
  const place = data.training.series.indexOf(teaching.metric) + 1;
  const layout = panels(
    Math.max(1, now.losses.length),
    width,
    3,
    now.losses,
    "Optimizer step",
    trainingLabels[teaching.metric],
    width < NARROW ? 260 : 320,
  );
  const traces = now.kept.map((line) => {
    const panel = now.losses.indexOf(now.lossOf(line));
    const colours = data.charts.map((each) => each.colours[now.lossOf(line)]).find(Boolean) || ["#000000"];
    return {
      type: "scatter",
      mode: "lines",
      xaxis: suffixed("x", panel),
      yaxis: suffixed("y", panel),
      hoverinfo: "text",
      x: line.lists[0],
      // a loss of 0, as KL of a model to itself, has no place on a logarithmic axis
      y: line.lists[place].map((value) =>
        teaching.metric === "loss" && value !== null && value <= 1e-9 ? null : value,
      ),
      hovertext: line.lists[0].map(
        (step, number) =>
          plain(called(line.run)) +
          "<br>step " +
          step +
          ": " +
          line.lists[place][number] +
          "<br>run " +
          plain(runs.id[line.run]),
      ),
      line: { color: onGround(colours[0]), width: 1.3 },
      opacity: now.kept.length > 40 ? 0.45 : 0.75,
    };
  });
  now.losses.forEach((loss, panel) => {
    const values = traces.filter((_, number) => now.lossOf(now.kept[number]) === loss).flatMap((trace) => trace.y);
    Object.assign(
      layout[suffixed("yaxis", panel)],
      teaching.metric === "loss" ? { type: "log", ...decades(values) } : { nticks: 6, tickformat: "~g" },
    );
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
  const said = [
    counted(now.kept.length) +
      (now.kept.length === 1 ? " run" : " runs") +
      only(
        trainingColumns.map((each) => [each.key, each.label]),
        teaching.chosen,
      ) +
      "; one line each; steps count over all recover stages. Values of different losses do not compare with each other.",
  ];
  if (data.training.averaged > 1)
    said.push("Points are means of up to " + data.training.averaged + " neighbouring steps.");
  if (now.left) said.push(counted(now.left) + " more lines are not drawn: choose fewer above.");
  at("training-chart-caption").replaceChildren(said.join(" "), ...gapsOf(data.training.gaps));
}

function trainingNumbers() {
  const place = data.training.series.indexOf(teaching.metric) + 1;
  const number = (value) => (value === null || value === undefined ? "" : String(Number(value.toPrecision(3))));
  const rows = trainingNow().kept.map((line) => {
    const values = line.lists[place];
    return [
      runs.id[line.run],
      called(line.run),
      number(values[0]),
      number(values[values.length - 1]),
      String(line.lists[0][line.lists[0].length - 1]),
    ];
  });
  at("training-numbers")
    .querySelector(".scroll")
    .replaceChildren(whole(["run", "condition", "first", "last", "at step"], rows, [false, false, true, true, true]));
}

function beginTraining() {
  if (!trained.length) {
    at("training").replaceChildren(
      at("training-title"),
      make("p", { class: "note" }, "No run was trained, so there are no training curves."),
      ...gapsOf(data.training.gaps),
    );
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
    } else if (each.key === "criterion")
      teaching.chosen.criterion = each.values.find((value) => values.includes(value));
  }
  // values that no run has together
  if (!trainingNow().kept.length) teaching.chosen = {};
  at("training-controls").replaceChildren(
    select(
      "Shown",
      data.training.series.map((name) => [name, trainingLabels[name]]),
      "loss",
      (value) => {
        teaching.metric = value;
        redraw();
      },
      "training-metric",
    ),
    ...trainingColumns.map((each) =>
      select(
        each.label,
        [
          ["", "all"],
          ...each.values
            .filter((value) => value && trained.some((line) => known(each, line.run) === value))
            .map((value) => [value, value]),
        ],
        teaching.chosen[each.key] || "",
        (value) => {
          teaching.chosen[each.key] = value;
          redraw();
        },
        "training-" + each.key,
      ),
    ),
  );
  at("training-numbers").addEventListener("toggle", () => at("training-numbers").open && trainingNumbers());
  trainingCaption();
}
