"use strict";
// Without this file the page is complete; with it tables sort, sliders move, and a click enlarges a grid.
document.documentElement.classList.add("scripted");

document.querySelectorAll("table.measures").forEach((table) => {
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.rows[1].cells);
  const value = (row, column) => row.cells[column].dataset.sort;
  const sort = (head, column) => {
    const now = head.getAttribute("aria-sort");
    const first = head.dataset.first || "ascending";
    const order = now ? (now === "ascending" ? "descending" : "ascending") : first;
    const sign = order === "ascending" ? 1 : -1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const compare = (a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      if (x === "" || y === "") return (x === "") - (y === "");
      if (head.dataset.kind === "text") return sign * x.localeCompare(y, undefined, { numeric: true });
      return sign * (Number(x) - Number(y));
    };
    body.append(...Array.from(body.rows).sort(compare));
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head, column));
    head.append(button);
  });
});

document.querySelectorAll("[data-slider]").forEach((section) => {
  const strips = Array.from(section.querySelectorAll(".strip")).filter((strip) => strip.children.length > 1);
  if (!strips.length) return;
  const label = document.createElement("label");
  const input = document.createElement("input");
  const steps = Math.max(...strips.map((strip) => strip.children.length)) - 1;
  Object.assign(input, { type: "range", min: 0, max: steps, step: 1, value: steps });
  label.className = "slider";
  label.append(section.dataset.slider, input);
  const move = () => strips.forEach((strip) => {
    const chosen = Math.round((input.value / steps) * (strip.children.length - 1));
    Array.from(strip.children).forEach((figure, i) => figure.classList.toggle("now", i === chosen));
    if (strip === strips[0]) input.setAttribute("aria-valuetext", strip.children[chosen].innerText);
  });
  input.addEventListener("input", move);
  section.classList.add("sliding");
  section.before(label);
  move();
});

const dialog = document.querySelector("dialog.enlarged");
const grids = Array.from(document.querySelectorAll("[data-enlarge]"));
let shown = 0;
const show = (place) => {
  shown = (place + grids.length) % grids.length;
  const image = grids[shown].querySelector("img").cloneNode();
  const caption = document.createElement("p");
  caption.append(grids[shown].dataset.enlarge);
  const about = grids[shown].querySelector("small");
  if (about) caption.append(" · ", about.textContent);
  const buttons = [["Previous", -1], ["Next", 1], ["Close", 0]].map(([name, step]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(name);
    button.addEventListener("click", () => (step ? show(shown + step) : dialog.close()));
    return button;
  });
  const bar = document.createElement("div");
  bar.append(...buttons);
  const focus = Array.from(dialog.querySelectorAll("button")).indexOf(document.activeElement);
  dialog.replaceChildren(image, caption, bar);
  if (!dialog.open) dialog.showModal();
  buttons[focus < 0 ? 2 : focus].focus();
};
grids.forEach((figure, place) => {
  const image = figure.querySelector("img");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "enlarge";
  button.setAttribute("aria-label", `Enlarge: ${image.alt}`);
  image.replaceWith(button);
  button.append(image);
  button.addEventListener("click", () => show(place));
});
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(shown + 1);
  if (event.key === "ArrowLeft") show(shown - 1);
});
