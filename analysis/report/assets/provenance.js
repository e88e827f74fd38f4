/* Configs, what became of the runs, environments, and the figures of the paper. */

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
  const kept = (
    compared.only ? rows.filter(([, a, b]) => a !== b) : [...rows, ...common.map(([key, value]) => [key, value, value])]
  ).sort((a, b) => (a[0] < b[0] ? -1 : 1));
  const table = make(
    "table",
    { class: "diff" },
    make(
      "thead",
      {},
      make("tr", {}, columnHead("key"), columnHead(runs.id[compared.a]), columnHead(runs.id[compared.b])),
    ),
    make(
      "tbody",
      {},
      kept.map(([key, a, b]) =>
        make(
          "tr",
          { class: a === b ? null : "differs" },
          make("th", { scope: "row" }, make("code", {}, key)),
          cell(a),
          cell(b),
        ),
      ),
    ),
  );
  at("config-diff").replaceChildren(
    kept.length ? scroller("Two runs side by side", table) : make("p", { class: "note" }, "They differ in nothing."),
  );
}

function configs() {
  const options = all.slice(0, runs.recorded).map((run) => [String(run), called(run) + " · " + runs.id[run]]);
  const pick = (label, key) =>
    select(
      label,
      options,
      String(compared[key]),
      (value) => {
        compared[key] = Number(value);
        configTable();
      },
      "config-" + key,
    );
  const differs = whole(
    ["key", "values (runs)"],
    differing.map((each) => {
      const counts = each.values.map(
        (value, number) => value + " (" + each.codes.filter((code) => code === number).length + ")",
      );
      const lacking = each.codes.filter((code) => code === null).length;
      if (counts.length > 12) counts.splice(12, counts.length, "and " + counted(each.values.length - 12) + " more");
      return [each.key, counts.join(", ") + (lacking ? ", not there (" + lacking + ")" : "")];
    }),
    [],
  );
  differs.className = "settings";
  const same = whole(["key", "value"], common, []);
  same.className = "settings";
  at("configs-body").replaceChildren(
    make("h3", {}, "What differs"),
    differing.length
      ? scroller("What differs", differs)
      : make("p", { class: "note" }, "Nothing: there is one config."),
    make("h3", { id: "config-pair", tabindex: "-1" }, "Two runs side by side"),
    make(
      "form",
      { class: "controls", "aria-label": "Which runs are compared" },
      pick("this run", "a"),
      pick("with this run", "b"),
      check(
        "only differences",
        compared.only,
        (value) => {
          compared.only = value;
          configTable();
        },
        "config-only",
      ),
    ),
    make("div", { id: "config-diff" }),
    make(
      "details",
      { id: "config-common" },
      make(
        "summary",
        {},
        "What all " + counted(runs.recorded) + " runs have in common: " + counted(common.length) + " settings",
      ),
      scroller("What all have in common", same),
    ),
  );
}

// Provenance

function provenance() {
  const parts = data.account.map((line) => make("p", {}, line));
  const commits = data.commits;
  if (commits.length > 1) {
    parts.push(
      make(
        "p",
        { class: "warning" },
        "Mixed code versions: " +
          commits.map(([commit, count]) => counted(count) + " by " + commit).join(", ") +
          ". Runs of different code may differ for that reason alone.",
      ),
    );
  } else if (commits.length) {
    parts.push(
      make(
        "p",
        {},
        "Code version: " +
          commits[0][0] +
          (commits[0][0].endsWith("+") ? "; the + says that files differed from the commit." : "."),
      ),
    );
  }
  if (data.failures.length) {
    parts.push(make("h3", {}, "Failures"));
    for (const each of data.failures) {
      parts.push(
        make(
          "details",
          { class: "failure" },
          make("summary", {}, each.run + ": " + each.first),
          scroller(each.run + " failed", make("pre", {}, each.whole)),
        ),
      );
    }
  }
  for (const [title, lines] of data.left_out) {
    parts.push(
      make("h3", {}, title.charAt(0).toUpperCase() + title.slice(1) + ": " + counted(lines.length)),
      scroller(title, whole(["run", "what is known"], lines, [])),
    );
  }
  const environments = data.environments;
  parts.push(
    make("h3", {}, environments.length === 1 ? "Environment" : counted(environments.length) + " environments"),
  );
  const first = environments.slice(0, 8);
  const maps = first.map((each) => new Map(each.values));
  const keys = unique(first.flatMap((each) => each.values.map(([key]) => key)));
  const rows = keys.map((key) => [key, ...maps.map((map) => map.get(key) || "")]);
  const table = whole(
    ["", ...first.map((each) => counted(each.count) + (each.count === 1 ? " run" : " runs"))],
    rows,
    [],
  );
  table.className = "diff";
  [...table.tBodies[0].rows].forEach((row, place) => {
    if (unique(rows[place].slice(1)).length > 1) row.className = "differs";
  });
  parts.push(
    keys.length
      ? scroller("Environments", table)
      : make("p", { class: "note" }, "The records tell nothing of it."),
  );
  if (environments.length > 8)
    parts.push(make("p", { class: "note" }, counted(environments.length - 8) + " more are not shown."));
  at("provenance-body").replaceChildren(...parts);
}

// Figures: pictures are made when they are looked for

const pictures = JSON.parse(at("pictures").textContent);

function gallery() {
  const details = at("figures-drawn");
  if (!details || !details.open) return;
  const inside = details.querySelector("div");
  if (inside.childElementCount) return;
  inside.className = "gallery";
  inside.replaceChildren(
    ...pictures.map((each) =>
      make(
        "div",
        {},
        make("img", { src: each.picture, alt: each.name }),
        make("h3", {}, each.name),
        make("p", { class: "note" }, each.caption),
        ...gapsOf(each.gaps),
      ),
    ),
  );
}

function figures() {
  const details = at("figures-drawn");
  details.querySelector("summary").textContent =
    pictures.length === 1
      ? "1 figure, as in SWEEP/figures"
      : counted(pictures.length) + " figures, as in SWEEP/figures";
  details.addEventListener("toggle", gallery);
  if (!pictures.length) details.remove();
  if (data.not_drawn.length) {
    at("figures-missing").replaceChildren(
      make(
        "details",
        {},
        make("summary", {}, counted(data.not_drawn.length) + " figures are not drawn, and why"),
        make(
          "ul",
          {},
          data.not_drawn.map(([name, reason]) =>
            make("li", { class: "note" }, name.replaceAll("_", " ") + ": " + reason),
          ),
        ),
      ),
    );
  }
}
