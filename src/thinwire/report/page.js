"use strict";

// What Python left to compute with: `views` redraw accuracy by bytes, `runs` are the crossings of each run by round.
const data = JSON.parse(document.getElementById("data").textContent);
const charts = () => [...document.querySelectorAll(".js-plotly-plot")];
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

// A run is shown or hidden in all charts at once.
function toggle(run, shown) {
  for (const button of document.querySelectorAll(`button[data-run="${run}"]`)) button.setAttribute("aria-pressed", shown);
  for (const chart of charts()) {
    const lines = chart.data.flatMap((line, i) => (line.meta === run ? [i] : []));
    if (lines.length) Plotly.restyle(chart, { visible: shown }, lines);
  }
}

// Seconds and joules of one client's round, by its bytes each way; thinwire/report/links.py has the formulas.
function seconds(up, down, link) {
  return 2e-3 * link.latency + 8e-6 * (down / link.down + up / link.up);
}
function joules(up, down, link) {
  const one = (bytes, rate, slope) => 8e-6 * bytes * (slope + link.radio.base / rate);
  return 1e-3 * (one(up, link.up, link.radio.up) + one(down, link.down, link.radio.down));
}

// Seconds from the beginning of a run to the end of each round.
function clock(run, link) {
  let now = 0;
  return run.asked.map((clients, i) => (now += seconds(run.up[i] / clients, run.down[i] / clients, link)));
}

// What a run costs; joules go with the bytes, so that totals do for them.
function costs(run, link) {
  const time = clock(run, link).at(-1);
  const energy = joules(sum(run.up), sum(run.down), link);
  return {
    roundSeconds: duration(time / run.asked.length),
    seconds: duration(time),
    roundJoules: energyText(energy / sum(run.asked)),
    joules: run.clients ? energyText(energy / run.clients) : "–",
  };
}

function inUnits(value, units) {
  const [size, name] = units.findLast(([size]) => value >= size) ?? units[0];
  return `${Number((value / size).toPrecision(3))} ${name}`;
}
const duration = (s) => inUnits(s, [[1e-3, "ms"], [1, "s"], [60, "min"], [3600, "h"], [86400, "d"]]);
const energyText = (j) => inUnits(j, [[1e-6, "µJ"], [1e-3, "mJ"], [1, "J"], [1e3, "kJ"]]);

// A logarithmic axis over some seconds, with a few round ticks that stand around them.
const LADDER = [
  ...[1e-3, 1e-2, 0.1, 1].flatMap((n) => [n, 2 * n, 5 * n]),
  ...[10, 20, 30],
  ...[1, 2, 5, 10, 20, 30].map((n) => 60 * n),
  ...[1, 2, 5, 10].map((n) => 3600 * n),
  ...[1, 10, 100, 1000].flatMap((n) => [1, 2, 5].map((m) => 86400 * n * m)),
];
function secondsAxis(times) {
  const low = Math.min(...times);
  const high = Math.max(...times);
  const first = Math.max(0, LADDER.findLastIndex((tick) => tick <= low));
  const last = LADDER.findIndex((tick) => tick > high);
  const around = LADDER.slice(first, last < 0 ? LADDER.length : last + 1);
  const step = Math.ceil(around.length / 6);
  const ticks = around.filter((_, i) => i % step === 0);
  return {
    "xaxis.tickvals": ticks,
    "xaxis.ticktext": ticks.map(duration),
    "xaxis.range": [Math.log10(Math.min(low, ticks[0])), Math.log10(Math.max(high, ticks.at(-1)))],
  };
}

function showLink(form) {
  const { up, down, latency, radio } = form.elements;
  if (!up.checkValidity() || !down.checkValidity()) return;
  const link = { up: +up.value, down: +down.value, latency: +latency.value, radio: data.radios[radio.value] };
  for (const output of document.querySelectorAll("output[data-run]"))
    output.textContent = costs(data.runs[output.dataset.run], link)[output.dataset.of];
  const chart = document.getElementById("chart-link");
  const times = chart.data.map(({ meta }) => clock(data.runs[meta], link).filter((_, i) => data.runs[meta].scored[i]));
  Plotly.update(chart, { x: times, customdata: times.map((line) => line.map(duration)) }, secondsAxis(times.flat()));
}

for (const button of document.querySelectorAll("button[data-run]"))
  button.addEventListener("click", () => toggle(+button.dataset.run, button.getAttribute("aria-pressed") !== "true"));

for (const option of document.querySelectorAll("input[name=bytes]"))
  option.addEventListener("change", () => {
    const { x, layout } = data.views[option.value];
    Plotly.update("chart-accuracy", { x }, layout);
  });

// The list of rates fills in both directions; what is typed there is a rate of one's own.
for (const form of document.querySelectorAll("#link")) {
  const { rate, up, down } = form.elements;
  form.addEventListener("input", ({ target }) => {
    if (target === rate && rate.value) up.value = down.value = rate.value;
    if (target === up || target === down) rate.value = "";
    showLink(form);
  });
  showLink(form);
}

// Paper is narrower than most windows.
addEventListener("beforeprint", () => {
  for (const chart of charts()) Plotly.relayout(chart, { width: chart.closest(".pair") ? 320 : 660 });
});
addEventListener("afterprint", () => {
  for (const chart of charts()) Plotly.relayout(chart, { width: null, autosize: true });
});
