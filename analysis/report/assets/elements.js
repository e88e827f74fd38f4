/* Elements and texts. Data becomes text nodes and attributes, never HTML; texts that plotly draws are escaped, since it
   reads some tags. Nothing is computed but what is shown where: the numbers are those of the analysis. */

const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs;
// pixels below which panels stand below one another
const NARROW = 640;
// panels of a chart, and training curves, that are drawn at once; the others are chosen
const PANELS = 6;
const CURVES = 240;
// runs above which a chart shows means alone
const MANY_RUNS = 2000;
// rows of a page of a table, and of the table of runs on paper
const ROWS = 25;
const PRINTED_ROWS = 150;
// pixels of a chart on paper
const PRINTED_WIDTH = 680;
// pixels of a letter and of a line of the title of a panel
const LETTER = 7.2;
const TITLE_LINE = 19;
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

/** A region that is scrolled sideways, by keyboard too. */
const scroller = (label, ...children) =>
  make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, ...children);

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
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        head.map((text, place) => columnHead(text, numbers[place])),
      ),
    ),
    make(
      "tbody",
      {},
      rows.map((row) =>
        make(
          "tr",
          {},
          row.map((text, place) => cell(text, numbers[place] ? "number" : null)),
        ),
      ),
    ),
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
  return axis.scale === 100
    ? Number(number.toFixed(1)) + " %"
    : Math.abs(number) >= 1e4
      ? counted(Math.round(number))
      : String(Number(number.toPrecision(4)));
}

/** What is chosen among the columns: `, criterion L2`. On paper there are no controls that say so. */
const only = (columns, chosen) =>
  columns
    .filter(([key]) => chosen[key])
    .map(([key, label]) => ", " + label.toLowerCase() + " " + chosen[key])
    .join("");

// plotly takes some tags and references in texts for what they say
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const column = (key) => data.columns.find((each) => each.key === key);
const known = (each, run) =>
  each.codes[run] === null || each.codes[run] === undefined ? "" : each.values[each.codes[run]];

function called(run) {
  const parts = data.columns
    .filter((each) => each.key !== "seed" && known(each, run))
    .map((each) =>
      ["loss", "criterion", "sparsity"].includes(each.key) ? known(each, run) : each.label + " " + known(each, run),
    );
  const seed = column("seed");
  if (seed && known(seed, run)) parts.push("seed " + known(seed, run));
  return parts.join(", ");
}
