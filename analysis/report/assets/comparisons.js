/* Differences with their intervals. */

const FEW_PAIRS = 6;

function pairTable(pair) {
  const ends = pair.rows.flatMap((row) => (row.low === null ? [row.difference] : [row.low, row.high])).map(Math.abs);
  const reach = 1.06 * Math.max(0.01, ...ends.filter(Number.isFinite));
  const percent = (value) => (50 + (50 * Math.max(-reach, Math.min(reach, value))) / reach).toFixed(2) + "%";
  const points = (value) => {
    const text = Math.abs(100 * value).toFixed(1);
    return (text === "0.0" ? "" : value > 0 ? "+" : "−") + text;
  };
  return scroller(
    pair.a + " minus " + pair.b,
    make(
      "table",
      {},
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          columnHead(pair.units),
          make(
            "th",
            { scope: "col", class: "forest" },
            make(
              "span",
              { class: "sides" },
              make("span", {}, "← " + pair.b + " better"),
              make("span", {}, pair.a + " better →"),
            ),
          ),
          columnHead("points", true),
          columnHead("verdict"),
          columnHead("p (Holm)", true),
          columnHead("95 % interval", true),
        ),
      ),
      make(
        "tbody",
        {},
        pair.rows.map((row) => {
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
          const line = make(
            "tr",
            { class: row.claimed ? "claimed" : null, title: row.verdict },
            make("th", { scope: "row" }, row.where),
            make("td", { class: "forest" }, track),
            cell(points(row.difference), "number"),
            make("td", { class: "said-cell" }, row.said, row.notes.length ? " (" + row.notes.join("; ") + ")" : null),
            cell(row.p, "number"),
            cell(row.low === null ? "" : "[" + points(row.low) + ", " + points(row.high) + "]", "number"),
          );
          const own = data.charts.map((each) => each.colours[row.better]).find(Boolean);
          if (own) tinted.push([line, own[0]]);
          return line;
        }),
      ),
    ),
  );
}

function tuned() {
  if (!data.tuning) return at("tuned").remove();
  at("tuned").append(
    make("h3", {}, "Each loss at its best learning rate"),
    bookTable(data.tuning.table),
    ...data.tuning.lines.map((line) => make("p", { class: "note" }, line)),
  );
}

function comparisons() {
  if (!data.pairs.length) {
    at("comparisons").append(
      make(
        "p",
        { class: "note" },
        "Nothing is compared here, since no two losses and no two criteria that remove something were run. ",
        make("code", {}, "python -m analysis compare"),
        " compares the values of any factor.",
      ),
    );
    at("verdicts").remove();
    return;
  }
  const parts = data.pairs.map((pair) => [
    make("h3", {}, pair.a + " minus " + pair.b),
    pair.summary ? make("p", { class: "note" }, pair.summary) : null,
    pair.rows.length ? pairTable(pair) : null,
    ...gapsOf(pair.gaps),
  ]);
  at("pairs").replaceChildren(...parts[0].filter(Boolean));
  if (parts.length > 1) {
    const further = data.pairs.slice(1);
    const names = further.map((pair) => pair.a + " minus " + pair.b);
    // of many pairs each is one line that can be opened
    const many = further.length > FEW_PAIRS;
    const told = many
      ? further.length + " further pairs, each a family of its own for Holm"
      : "Further pairs: " + names.join(", ");
    const folded = ([, ...rest], place) =>
      make(
        "details",
        {},
        make("summary", {}, names[place] + (further[place].finding ? ": " + further[place].finding : "")),
        rest.filter(Boolean),
      );
    at("pairs").append(
      make(
        "details",
        { id: "more-pairs" },
        make("summary", {}, told),
        many ? parts.slice(1).map(folded) : parts.slice(1).flat().filter(Boolean),
      ),
    );
  }
  at("verdicts")
    .querySelector("div")
    .replaceChildren(
      make(
        "ul",
        {},
        data.pairs.flatMap((pair) => pair.rows.map((row) => make("li", {}, row.verdict))),
      ),
    );
}
