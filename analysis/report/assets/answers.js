/* What each model answered to each test question. */

const asking = { set: 0, chosen: {}, seed: "", filter: "all", text: "", page: 0, open: new Set() };
const letters = data.answers.letters;
const LOSSES = data.columns.find((each) => each.key === "loss");

/** What dense, pruned and each loss answered in the condition: one string of letters for each different seed. */
function models() {
  const set = data.answers.sets[asking.set];
  const kept = set.runs.filter(
    ([run]) =>
      answerColumns().every((each) => known(each, run) === asking.chosen[each.key]) &&
      (!asking.seed || known(column("seed"), run) === asking.seed),
  );
  const dense = unique(kept.map(([, each]) => each).filter((each) => each !== null));
  const pruned = unique(
    kept.filter(([, , each]) => each !== null).map(([run, , each]) => known(column("seed"), run) + ":" + each),
  );
  const told = [];
  if (dense.length) told.push({ key: "dense", label: "dense", answers: dense.map((each) => letters[each]) });
  if (pruned.length)
    told.push({
      key: "pruned",
      label: "pruned",
      answers: pruned.map((each) => letters[Number(each.slice(each.lastIndexOf(":") + 1))]),
    });
  for (const loss of LOSSES.values) {
    const mine = kept.filter(([run]) => known(LOSSES, run) === loss);
    if (!mine.length || (loss === "none" && pruned.length)) continue;
    told.push({
      key: "loss:" + loss,
      loss,
      label: loss === "none" ? "no recovery" : loss,
      answers: mine.map(([, , , each]) => letters[each]),
    });
  }
  for (const each of told) each.one = unique(each.answers).length === 1;
  for (const each of told)
    each.rights = set.gold.map((gold, q) => each.answers.filter((one) => one.charCodeAt(q) - 48 === gold).length);
  return { set, told, runs: kept.length };
}

function answerColumns() {
  const set = data.answers.sets[asking.set];
  return data.columns.filter(
    (each) => !["loss", "seed"].includes(each.key) && unique(set.runs.map(([run]) => each.codes[run])).length > 1,
  );
}

// a model is right where more than half of its seeds are
const right = (model, question) => 2 * model.rights[question] > model.answers.length;

const conditionNow = () =>
  [
    ...answerColumns().map((each) => each.label + " " + (asking.chosen[each.key] || "none named")),
    ...(asking.seed ? ["seed " + asking.seed] : []),
  ].join(", ");

/** How the counts of the table are read, by an example of this table. */
function explanation(now) {
  const seeds = Math.max(...now.told.filter((each) => !each.one).map((each) => each.answers.length), 1);
  if (seeds === 1) return "";
  return (
    " " +
    (seeds - 1) +
    "/" +
    seeds +
    ": " +
    (seeds - 1) +
    " of " +
    seeds +
    " seeds " +
    (seeds === 2 ? "is" : "are") +
    " right. A model counts as right where more than half of its seeds are; a tie counts as wrong."
  );
}

function filters(now) {
  const of = (key) => now.told.find((each) => each.key === key);
  const dense = of("dense");
  const pruned = of("pruned");
  const losses = now.told.filter((each) => each.loss && each.loss !== "none");
  const found = [["all", "all questions", () => true]];
  if (dense && pruned) found.push(["lost", "dense right, pruned wrong", (q) => right(dense, q) && !right(pruned, q)]);
  if (pruned) {
    for (const loss of losses)
      found.push([
        "back:" + loss.loss,
        "brought back by " + loss.label,
        (q) => (!dense || right(dense, q)) && !right(pruned, q) && right(loss, q),
      ]);
    for (const loss of losses) {
      for (const other of losses) {
        if (loss !== other)
          found.push([
            "only:" + loss.loss + ":" + other.loss,
            "brought back by " + loss.label + " and not by " + other.label,
            (q) => (!dense || right(dense, q)) && !right(pruned, q) && right(loss, q) && !right(other, q),
          ]);
      }
    }
    for (const loss of losses)
      found.push([
        "broken:" + loss.loss,
        "broken by " + loss.label + ": pruned right, " + loss.label + " wrong",
        (q) => right(pruned, q) && !right(loss, q),
      ]);
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
  list.replaceChildren(
    ...kinds.map(([key, text, test]) =>
      make("option", { value: key }, text + " (" + counted(every.filter((q) => test(q)).length) + ")"),
    ),
  );
  list.value = asking.filter;
  const test = kinds.find(([key]) => key === asking.filter)[2];
  const words = asking.text.toLowerCase().split(/\s+/).filter(Boolean);
  const textOf = (q) => (set.texts[q] ? set.texts[q][0] + " " + set.texts[q][1].join(" ") : "");
  const kept = every.filter(
    (q) =>
      test(q) && (!words.length || words.every((word) => (set.ids[q] + " " + textOf(q)).toLowerCase().includes(word))),
  );
  asking.page = Math.min(asking.page, Math.max(0, Math.ceil(kept.length / ROWS) - 1));
  const part = kept.slice(asking.page * ROWS, (asking.page + 1) * ROWS);
  const rows = part.flatMap((q) => questionRows(now, q));
  at("answers-table").replaceChildren(
    now.told.length
      ? make(
          "table",
          {},
          make(
            "thead",
            {},
            make(
              "tr",
              {},
              columnHead("question"),
              now.told.map((each) =>
                make(
                  "th",
                  { scope: "col", class: "share" },
                  each.label + (each.one && each.answers.length > 1 ? " (" + each.answers.length + " seeds alike)" : ""),
                ),
              ),
            ),
          ),
          make("tbody", {}, rows),
        )
      : make("p", { class: "note" }, "No run has this condition."),
  );
  at("answers-count").textContent = now.told.length
    ? counted(kept.length) +
      " of " +
      counted(count) +
      " questions" +
      (conditionNow() ? " (" + conditionNow() + ")" : "") +
      ", answered by " +
      counted(now.runs) +
      (now.runs === 1 ? " run" : " runs") +
      "." +
      explanation(now)
    : "";
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
  const button = make(
    "button",
    {
      type: "button",
      class: "question",
      "aria-expanded": String(open),
      "data-question": set.ids[q],
      onclick: () => {
        if (!asking.open.delete(q)) asking.open.add(q);
        answersTable();
        const again = [...at("answers-table").querySelectorAll("button.question")].find(
          (each) => each.dataset.question === set.ids[q],
        );
        if (again) again.focus();
      },
    },
    text,
    choices ? make("small", {}, set.ids[q]) : null,
  );
  const row = make(
    "tr",
    {},
    make("th", { scope: "row" }, button),
    now.told.map((each) => {
      const count = each.one ? Number(right(each, q)) : each.rights[q];
      // seeds that all answer alike are one answer, not several that agree
      const total = each.one ? 1 : each.answers.length;
      const kind = count === total ? "all" : count === 0 ? "no" : 2 * count > total ? "most" : "few";
      return make("td", { class: "share " + kind }, total === 1 ? (count ? "right" : "wrong") : count + "/" + total);
    }),
  );
  if (!open) return [row];
  const most = Math.max(gold, ...now.told.flatMap((each) => each.answers.map((one) => one.charCodeAt(q) - 48)));
  const told = choices || [...Array(most + 1).keys()].map((number) => "choice " + (number + 1));
  const table = make(
    "table",
    { class: "choices" },
    make(
      "tbody",
      {},
      told.map((choice, number) => {
        const by = now.told
          .map((each) => [
            each.label,
            each.answers.filter((one) => one.charCodeAt(q) - 48 === number).length,
            each.one ? 1 : each.answers.length,
          ])
          .filter(([, count]) => count)
          .map(([label, count, total]) => label + (total === 1 ? "" : " " + count + "/" + total))
          .join(" · ");
        return make(
          "tr",
          { class: number === gold ? "gold" : null },
          make("th", { scope: "row" }, choice),
          cell(number === gold ? "gold" : ""),
          cell(by),
        );
      }),
    ),
  );
  return [row, make("tr", {}, make("td", { colspan: String(now.told.length + 1) }, table))];
}

/** Choose a value, and of the others as many as there is a run with. */
function settle(key, value) {
  const columns = answerColumns();
  const alike = (run) => columns.filter((each) => known(each, run) === asking.chosen[each.key]).length;
  const candidates = data.answers.sets[asking.set].runs
    .map(([run]) => run)
    .filter((run) => columns.every((each) => each.key !== key || known(each, run) === value));
  const best = candidates.reduce((one, other) => (alike(other) > alike(one) ? other : one));
  asking.chosen = Object.fromEntries(columns.map((each) => [each.key, known(each, best)]));
}

/** Begin in the middle of the sparsities that take something away, with the first of all else. */
function settleFirst() {
  const columns = answerColumns();
  const there = (each) =>
    each.values.filter((value) => data.answers.sets[asking.set].runs.some(([run]) => known(each, run) === value));
  asking.chosen = Object.fromEntries(columns.map((each) => [each.key, there(each)[0]]));
  const sparsity = columns.find((each) => each.key === "sparsity");
  const pruned = sparsity ? there(sparsity).filter((value) => parseFloat(value) > 0) : [];
  settle("sparsity", pruned.length ? pruned[Math.floor(pruned.length / 2)] : asking.chosen.sparsity);
}

function answerControls() {
  const set = data.answers.sets[asking.set];
  const again = () => {
    asking.page = 0;
    answersTable();
  };
  const has = (each, value) => set.runs.some(([run]) => known(each, run) === value);
  const selects = answerColumns().map((each) =>
    select(
      each.label.charAt(0).toUpperCase() + each.label.slice(1),
      each.values.filter((value) => has(each, value)).map((value) => [value, value || "none named"]),
      asking.chosen[each.key],
      (value) => {
        settle(each.key, value);
        for (const other of answerColumns()) {
          at("answers-controls").elements.namedItem("answers-" + other.key).value = asking.chosen[other.key];
        }
        again();
      },
      "answers-" + each.key,
    ),
  );
  const seeds = column("seed").values.filter((value) => has(column("seed"), value));
  at("answers-controls").replaceChildren(
    ...(data.answers.sets.length > 1
      ? [
          select(
            "Set",
            data.answers.sets.map((each, number) => [
              String(number),
              "set " +
                (number + 1) +
                ": " +
                counted(each.ids.length) +
                " questions, " +
                counted(each.runs.length) +
                " runs",
            ]),
            String(asking.set),
            (value) => {
              asking.set = Number(value);
              asking.text = "";
              asking.open.clear();
              settleFirst();
              answerControls();
              again();
            },
            "answers-set",
          ),
        ]
      : []),
    ...selects,
    ...(seeds.length > 1
      ? [
          select(
            "Seed",
            [["", "all"], ...seeds.map((value) => [value, value])],
            asking.seed,
            (value) => {
              asking.seed = value;
              again();
            },
            "answers-seed",
          ),
        ]
      : []),
    select(
      "Questions",
      [["all", "all questions"]],
      "all",
      (value) => {
        asking.filter = value;
        again();
      },
      "answers-filter",
    ),
    search(
      "Search",
      (value) => {
        asking.text = value;
        again();
      },
      "answers-text",
    ),
  );
}

function beginAnswers() {
  at("answers-notes").replaceChildren(...gapsOf(data.answers.gaps));
  if (!data.answers.sets.length) {
    at("answers-controls").remove();
    at("answers-count").textContent = "No answers are known.";
    return;
  }
  settleFirst();
  answerControls();
  answersTable();
}
