"use strict";
// Without this file the page is complete; with it the table sorts by a click, and previews follow one slider.
document.documentElement.classList.add("scripted");

const table = document.getElementById("measures");
if (table) {
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
}

document.querySelectorAll("[data-slider]").forEach((section) => {
  const strips = Array.from(section.querySelectorAll(".strip")).filter((strip) => strip.children.length > 1);
  if (!strips.length) return;
  const label = document.createElement("label");
  const input = document.createElement("input");
  Object.assign(input, { type: "range", min: 0, max: 100, step: 1, value: 100 });
  label.className = "slider";
  label.append(section.dataset.slider, input);
  const move = () => strips.forEach((strip) => {
    const chosen = Math.round((input.value / 100) * (strip.children.length - 1));
    Array.from(strip.children).forEach((figure, i) => figure.classList.toggle("now", i === chosen));
  });
  input.addEventListener("input", move);
  section.classList.add("sliding");
  section.before(label);
  move();
});
