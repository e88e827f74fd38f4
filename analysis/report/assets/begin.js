/* Printing, and the order in which the page comes up. */

// Printing: light, as wide as paper, with what is closed opened

let before = null;

function print(on) {
  if (on === printing) return;
  printing = on;
  if (on) {
    const closed = [
      ...document.querySelectorAll(
        "#verdicts, #more-pairs, #more-pairs details, #landmarks, #config-common, #figures-drawn, .failure",
      ),
    ].filter((each) => !each.open);
    closed.forEach((each) => (each.open = true));
    // nothing waits for what is told of the opening
    gallery();
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
at("facts").replaceChildren(
  ...data.study.facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
);
document.addEventListener("submit", (event) => event.preventDefault());
beginChart();
mainTable();
comparisons();
tuned();
applyTheme();
beginTraining();
beginRuns();
beginAnswers();
configs();
configTable();
provenance();
figures();

const watch = new IntersectionObserver(
  (seen) => {
    for (const each of seen) {
      if (!each.isIntersecting) continue;
      watch.unobserve(each.target);
      // after what is seen already has been painted
      requestAnimationFrame(() => setTimeout((each.target.id === "chart" ? mainChart : trainingChart).show));
    }
  },
  { rootMargin: "300px" },
);
if (data.charts.length) watch.observe(at("chart"));
if (trained.length) watch.observe(at("training-chart"));

let resized = 0;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => charts.forEach((each) => each.near && each.width !== each.wanted() && each.redraw()), 120);
});
addEventListener("beforeprint", () => print(true));
addEventListener("afterprint", () => print(false));
matchMedia("print").addEventListener("change", (event) => print(event.matches));
