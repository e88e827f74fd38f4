/* Light and dark, and what all charts have in common. */

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

// the colours of the figures, the same hues: on dark ground lighter, on light ground dark enough to be seen (3 : 1)
function onGround(colour) {
  let parts = [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
  if (dark()) parts = parts.map((part) => part + (255 - part) * 0.38);
  else while (luminance(parts) > 0.28) parts = parts.map((part) => part * 0.97);
  return "rgb(" + parts.map(Math.round).join(",") + ")";
}

/** Relative luminance of red, green and blue (WCAG 2). */
const luminance = (parts) =>
  parts
    .map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, place) => sum + [0.2126, 0.7152, 0.0722][place] * part, 0);

const ink = (name) =>
  getComputedStyle(root)
    .getPropertyValue("--" + name)
    .trim();

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
      if (!mine.near) return;
      library();
      mine.width = mine.wanted();
      const { traces, layout } = build(mine.width);
      window.Plotly.react(
        element,
        traces,
        { ...base(), ...layout, width: mine.width },
        {
          displaylogo: false,
          // else a button sends the chart to a server
          showSendToCloud: false,
          plotlyServerURL: "",
          responsive: false,
          modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
          toImageButtonOptions: { filename: data.title + "_" + element.id },
        },
      );
      const [drawn, ...above] = element.querySelectorAll("svg.main-svg");
      drawn.setAttribute("role", "img");
      drawn.setAttribute("aria-labelledby", element.closest("section").getAttribute("aria-labelledby"));
      drawn.setAttribute("aria-describedby", element.id + "-caption");
      above.forEach((each) => each.setAttribute("aria-hidden", "true"));
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

/** Run the chart library, which lies in the page as text: it takes longer than all else, and reading need not wait. */
function library() {
  if (window.Plotly) return;
  const script = make("script", {}, at("library").textContent);
  document.head.append(script);
  script.remove();
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
    modebar: { bgcolor: "rgba(0,0,0,0)", color: ink("edge"), activecolor: ink("accent") },
  };
}

/** Places of `number` panels: as many beside one another as fit, axes named where they stand. */
function panels(number, width, most, titles, xTitle, yTitle, height) {
  const across = width < NARROW ? 1 : Math.min(number, most, width < 900 ? 2 : 3);
  const down = Math.ceil(number / across);
  const gapX = across > 1 ? 56 / width : 0;
  const wide = (1 - gapX * (across - 1)) / across;
  const named = titles.map((title) => wrapped(title, (wide * (width - 68)) / LETTER));
  const more = TITLE_LINE * Math.max(0, ...named.map((lines) => lines.length - 1));
  height += more;
  const layout = { margin: { l: 58, r: 10, t: 30 + more, b: 52 }, annotations: [], height: height * down + 40 };
  const gapY = down > 1 ? ((across === 1 ? 92 : 84) + more) / (height * down) : 0;
  for (let place = 0; place < number; place++) {
    const left = place % across;
    const top = Math.floor(place / across);
    const high = (1 - gapY * (down - 1)) / down;
    const x = [left * (wide + gapX), left * (wide + gapX) + wide];
    const y = [1 - top * (high + gapY) - high, 1 - top * (high + gapY)];
    const suffix = place ? String(place + 1) : "";
    const lines = {
      gridcolor: ink("rule"),
      gridwidth: 1,
      zeroline: false,
      linecolor: ink("soft"),
      ticks: "outside",
      tickcolor: ink("soft"),
      ticklen: 4,
      automargin: false,
    };
    layout["xaxis" + suffix] = {
      ...lines,
      domain: x,
      anchor: "y" + suffix,
      showgrid: false,
      showline: true,
      title: { text: plain(xTitle), standoff: 8, font: { size: 12 } },
    };
    layout["yaxis" + suffix] = {
      ...lines,
      domain: y,
      anchor: "x" + suffix,
      title: left ? undefined : { text: plain(yTitle), standoff: 6, font: { size: 12 } },
    };
    if (titles[place]) {
      layout.annotations.push({
        text: named[place].map(plain).join("<br>"),
        align: "left",
        x: x[0],
        y: y[1],
        xref: "paper",
        yref: "paper",
        xanchor: "left",
        yanchor: "bottom",
        showarrow: false,
        yshift: 5,
        font: { family: ink("serif"), size: 14.5 },
      });
    }
  }
  return layout;
}

/** Words on lines of so many letters. */
function wrapped(text, letters) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines[lines.length - 1];
    if (line && line.length + 1 + word.length > letters) lines.push(word);
    else lines[lines.length - 1] = line ? line + " " + word : word;
  }
  return lines;
}

const suffixed = (letter, place) => letter + (place ? String(place + 1) : "");

function spread(values, share) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const pad = share * (high - low || Math.abs(high) || 1);
  return [low - pad, high + pad];
}
