/* The table of runs. */

// Pages of a table

function pages(element, number, shownNow, rows, go) {
  const last = Math.max(1, Math.ceil(number / rows));
  const until = Math.min(number, (shownNow + 1) * rows);
  const place = counted(shownNow * rows + 1) + " to " + counted(until) + " of " + counted(number);
  const step = (by, text) =>
    make(
      "button",
      {
        type: "button",
        disabled: shownNow + by < 0 || shownNow + by >= last,
        onclick: () => {
          go(shownNow + by);
          const buttons = [...element.querySelectorAll("button")];
          if (by > 0) buttons.reverse();
          // on the first and on the last page one of the two is left
          buttons.find((each) => !each.disabled).focus();
        },
      },
      text,
    );
  element.replaceChildren(
    ...(last > 1
      ? [
          step(-1, "← Previous"),
          make("span", {}, place + ", page " + (shownNow + 1) + " of " + counted(last)),
          step(1, "Next →"),
        ]
      : []),
  );
}

// Runs

const listed = { text: "", chosen: {}, sort: "id", down: false, page: 0 };
const all = runs.id.map((_, number) => number);
const texts = all.map((run) =>
  [runs.id[run], runs.status[run], ...data.columns.map((each) => known(each, run))].join(" ").toLowerCase(),
);

const runColumns = [
  { key: "id", label: "run", text: (run) => runs.id[run], order: (run) => runs.id[run] },
  ...data.columns.map((each) => ({
    key: each.key,
    label: each.label,
    long: each.key === "variant",
    text: (run) => known(each, run),
    order: (run) => (each.codes[run] === undefined ? null : each.codes[run]),
    values: each.values,
  })),
  ...runs.numbers.map((each) => ({
    key: each.key,
    label: each.label + (each.unit ? " (" + each.unit + ")" : ""),
    number: true,
    text: (run) =>
      each.values[run] === null || each.values[run] === undefined
        ? ""
        : (each.scale * each.values[run]).toLocaleString("en-US", {
            minimumFractionDigits: each.digits,
            maximumFractionDigits: each.digits,
          }),
    order: (run) => (each.values[run] === undefined ? null : each.values[run]),
  })),
  {
    key: "status",
    label: "status",
    text: (run) => runs.status[run],
    order: (run) => runs.status[run],
    values: unique(runs.status),
    status: true,
  },
];

function runsNow() {
  const words = listed.text.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = runColumns.filter((each) => listed.chosen[each.key]);
  const kept = all.filter(
    (run) =>
      words.every((word) => texts[run].includes(word)) &&
      wanted.every((each) => each.text(run) === listed.chosen[each.key]),
  );
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
    at("runs-table")
      .querySelector('th[data-key="' + CSS.escape(key) + '"] button')
      .focus();
  };
  at("runs-table").replaceChildren(
    make(
      "table",
      {},
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          runColumns.map((each) =>
            make(
              "th",
              {
                scope: "col",
                class: each.number ? "number" : null,
                "data-key": each.key,
                "aria-sort": listed.sort === each.key ? (listed.down ? "descending" : "ascending") : null,
              },
              make("button", { type: "button", class: "sort", onclick: () => sortBy(each.key) }, each.label),
            ),
          ),
        ),
      ),
      make(
        "tbody",
        {},
        part.map((run) =>
          make(
            "tr",
            {},
            runColumns.map((each) => {
              if (each.key !== "id")
                return cell(
                  each.text(run),
                  each.number ? "number" : each.status ? runs.status[run] : each.long ? "long" : null,
                );
              return make(
                "th",
                { scope: "row" },
                run < runs.recorded
                  ? make(
                      "a",
                      { href: "#configs", title: "its config", onclick: () => configOf(run) },
                      make("code", {}, runs.id[run]),
                    )
                  : make("code", {}, runs.id[run]),
              );
            }),
          ),
        ),
      ),
    ),
  );
  at("runs-count").textContent =
    counted(kept.length) +
    " of " +
    counted(all.length) +
    " runs, by " +
    runColumns.find((each) => each.key === listed.sort).label +
    (listed.down ? ", falling" : "") +
    (printing && kept.length > size ? "; the first " + size + " are printed" : "");
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
  const selects = runColumns
    .filter((each) => each.values && !each.long && each.values.length > 1 && each.values.length <= 60)
    .map((each) =>
      select(
        each.label,
        [["", "all"], ...each.values.filter(Boolean).map((value) => [value, value])],
        "",
        (value) => {
          listed.chosen[each.key] = value;
          again();
        },
        "runs-" + each.key,
      ),
    );
  at("runs-controls").replaceChildren(
    search(
      "Search",
      (value) => {
        listed.text = value;
        again();
      },
      "runs-text",
    ),
    ...selects,
  );
  runsTable();
}
