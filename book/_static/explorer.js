// The component explorer: one model and one component at a time, from files that the chapters made.
const explorer = {
  models: window.explorerModels ?? [], // name, title and page of each
  galleries: {}, // those loaded so far
  sheets: {}, // their pictures
  waiting: {},

  // What the files of data call.
  receive(gallery) {
    explorer.galleries[gallery.name] = gallery;
    explorer.waiting[gallery.name]?.();
  },

  // A script, because pages read from disk may not fetch files.
  load(name) {
    if (explorer.galleries[name]) return Promise.resolve(explorer.galleries[name]);
    return new Promise((resolve, reject) => {
      explorer.waiting[name] = () => resolve(explorer.galleries[name]);
      const script = document.createElement("script");
      script.src = `../_static/explorer/${name}.js`;
      script.onerror = () => reject(new Error(`The data of ${name} could not be read.`));
      document.head.append(script);
    });
  },

  picture(gallery, sheet) {
    const key = `${gallery.name}/${sheet.heading}`;
    explorer.sheets[key] ??= new Promise((resolve) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.src = `data:image/png;base64,${sheet.png}`;
    });
    return explorer.sheets[key];
  },
};

document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("explorer");
  if (!root || !explorer.models.length) return;
  root.innerHTML = `
    <form class="controls">
      <label>Model <select name="model"></select></label>
      <label>Component <input name="component" type="number" min="1" value="1" inputmode="numeric"></label>
      <button type="button" name="previous" aria-label="Previous component">←</button>
      <button type="button" name="next" aria-label="Next component">→</button>
    </form>
    <p class="told" role="status" aria-live="polite"></p>
    <div class="sheets"></div>
    <div class="charts"></div>
    <div class="near"></div>`;
  const form = root.querySelector("form");
  const { model: select, component: number } = form.elements;
  for (const model of explorer.models) select.add(new Option(model.title, model.name));

  const shown = { model: null, component: 1 };

  function asked() {
    const hash = new URLSearchParams(location.hash.slice(1));
    const known = explorer.models.some((model) => model.name === hash.get("model"));
    const name = known ? hash.get("model") : explorer.models[0].name;
    return [name, Number.parseInt(hash.get("component"), 10) || 1];
  }

  function go(model, component) {
    location.hash = `model=${model}&component=${component}`;
  }

  async function show() {
    const [name, wanted] = asked();
    let gallery;
    try {
      gallery = await explorer.load(name);
    } catch (error) {
      root.querySelector(".told").textContent = error.message;
      return;
    }
    if (asked()[0] !== name) return; // something else was asked for meanwhile
    const count = gallery.weights.length;
    const component = Math.min(Math.max(wanted, 1), count);
    Object.assign(shown, { model: name, component, count });
    select.value = name;
    number.value = component;
    number.max = count;
    const page = explorer.models.find((model) => model.name === name).page;
    const weight = `weight ${gallery.weights[component - 1].toFixed(3)}`;
    root.querySelector(".told").innerHTML =
      `Component ${component} of ${count}, ${weight}, from <a href="${page}.html">this chapter</a>`;
    await Promise.all([drawSheets(gallery, component - 1), drawCharts(gallery, component - 1)]);
    drawNear(gallery, component - 1);
    root.dataset.ready = `${name}/${component}`; // for tests
  }

  async function canvas(gallery, sheet, row, columns = sheet.columns) {
    const image = await explorer.picture(gallery, sheet);
    const target = document.createElement("canvas");
    target.width = columns * (sheet.width + 1) - 1;
    target.height = sheet.height;
    target.style.aspectRatio = `${target.width} / ${target.height}`;
    target.style.maxWidth = `min(100%, ${columns * 6}rem)`;
    target.setAttribute("role", "img");
    target.setAttribute("aria-label", `${sheet.heading} of component ${row + 1}`);
    const context = target.getContext("2d");
    for (let column = 0; column < columns; column++) {
      const from = [column * sheet.width, row * sheet.height, sheet.width, sheet.height];
      context.drawImage(image, ...from, column * (sheet.width + 1), 0, sheet.width, sheet.height);
    }
    return target;
  }

  async function drawSheets(gallery, row) {
    const figures = gallery.sheets.map(async (sheet) => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = sheet.heading;
      figure.append(await canvas(gallery, sheet, row), caption);
      return figure;
    });
    root.querySelector(".sheets").replaceChildren(...(await Promise.all(figures)));
  }

  async function drawCharts(gallery, row) {
    const charts = root.querySelector(".charts");
    const ink = getComputedStyle(root).color;
    const plots = [];
    if (gallery.profile) {
      const { x, y } = gallery.profile;
      const trace = { x, y: y[row], mode: "lines", line: { color: ink } };
      plots.push(["profile", trace, "cycles per pixel", "log power"]);
    }
    if (gallery.classes) {
      const y = gallery.classes[row];
      const trace = { x: y.map((_, digit) => String(digit)), y, type: "bar", marker: { color: ink } };
      plots.push(["digits won", trace, "digit", "test digits"]);
    }
    charts.replaceChildren();
    const areas = plots.map(([name, trace]) => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      const area = document.createElement("div");
      area.setAttribute("role", "img");
      area.setAttribute("aria-label", `${name} of component ${row + 1}: ${trace.y.join(", ")}`);
      caption.textContent = name;
      figure.append(area, caption);
      charts.append(figure);
      return area;
    });
    // Only now that all have their places do they know how wide they are.
    for (const [n, [, trace, xlabel, ylabel]] of plots.entries()) {
      const axis = { color: ink, gridcolor: "rgb(128 128 128 / 30%)", zeroline: false, fixedrange: true };
      axis.automargin = true; // numbers are as wide as the fonts of the machine make them
      const layout = {
        xaxis: { ...axis, title: { text: xlabel }, type: trace.type === "bar" ? "category" : "linear" },
        yaxis: { ...axis, title: { text: ylabel } },
        font: { color: ink },
        margin: { l: 60, r: 10, t: 10, b: 45 },
        height: 220,
        paper_bgcolor: "rgb(0 0 0 / 0%)",
        plot_bgcolor: "rgb(0 0 0 / 0%)",
      };
      await Plotly.newPlot(areas[n], [trace], layout, { staticPlot: true, responsive: true });
    }
  }

  async function drawNear(gallery, row) {
    const near = root.querySelector(".near");
    near.replaceChildren();
    if (!gallery.near) return;
    const heading = document.createElement("p");
    heading.textContent = "nearest, by overlap of filters";
    const list = document.createElement("ol");
    const sheet = gallery.sheets.at(-1);
    for (const [other, overlap] of gallery.near[row]) {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = `#model=${gallery.name}&component=${other + 1}`;
      link.append(await canvas(gallery, sheet, other, 1), `${other + 1}: ${overlap.toFixed(3)}`);
      item.append(link);
      list.append(item);
    }
    near.append(heading, list);
  }

  function step(by) {
    go(shown.model, ((shown.component - 1 + by + shown.count) % shown.count) + 1);
  }

  function stepModel(by) {
    const at = explorer.models.findIndex((model) => model.name === shown.model);
    go(explorer.models.at((at + by) % explorer.models.length).name, 1);
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  select.addEventListener("change", () => go(select.value, 1));
  number.addEventListener("change", () => go(shown.model, number.value));
  form.elements.previous.addEventListener("click", () => step(-1));
  form.elements.next.addEventListener("click", () => step(1));
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea, [contenteditable]")) return;
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const moves = {
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
      m: () => stepModel(1),
      M: () => stepModel(-1),
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  });
  window.addEventListener("hashchange", show);
  // Charts take the colour of the text, which the theme changes.
  new MutationObserver(show).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  show();
});
