// Dividers over pictures, the order of the index, and its filter. One listener each, so that thousands of pictures
// cost nothing; without scripts the page shows before and after side by side.
"use strict";
document.documentElement.classList.add("js");

function divide(stage, percent) {
  const range = stage.querySelector("input");
  range.value = percent;
  range.setAttribute("aria-valuetext", `${range.value} % original, ${100 - range.value} % cloaked`);
  stage.style.setProperty("--at", `${range.value}%`);
}

function follow(stage, event) {
  const box = stage.getBoundingClientRect();
  divide(stage, (100 * (event.clientX - box.left)) / box.width);
}

document.addEventListener("input", (event) => {
  const stage = event.target.closest(".stage");
  if (stage) divide(stage, event.target.value);
  else if (event.target.id === "filter") filter(event.target.value);
});

document.addEventListener("pointerdown", (event) => {
  const stage = event.target.closest(".stage");
  if (!stage || event.button !== 0) return;
  stage.setPointerCapture(event.pointerId);
  if (event.pointerType !== "touch") follow(stage, event); // a finger may be about to scroll
});

document.addEventListener("pointermove", (event) => {
  const stage = event.target.closest?.(".stage");
  if (stage?.hasPointerCapture(event.pointerId)) follow(stage, event);
});

document.addEventListener("pointerup", (event) => {
  const stage = event.target.closest?.(".stage");
  if (stage && event.pointerType === "touch") follow(stage, event);
});

document.addEventListener("mousedown", (event) => {
  const stage = event.target.closest(".stage");
  if (!stage) return;
  event.preventDefault(); // no selection begins; the arrow keys then go on from where the mouse left off
  stage.querySelector("input").focus({ preventScroll: true });
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.at) divide(button.closest("figure").querySelector(".stage"), button.dataset.at);
  else if (button?.closest("th")) sort(button.closest("th"));
});

function sort(head) {
  const table = head.closest("table");
  const usual = head.dataset.first;
  const other = usual === "ascending" ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === usual ? other : usual;
  for (const each of head.parentElement.children) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const named = head.dataset.kind === "name";
  const rows = [...table.tBodies[0].rows].map((row) => [row.cells[head.cellIndex].dataset.v, row]);
  rows.sort(([a], [b]) => {
    if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1); // what was not measured comes last
    return sign * (named ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function filter(text) {
  const wanted = text.trim().toLowerCase();
  for (const row of document.querySelectorAll(".index tbody tr")) {
    row.hidden = !row.cells[1].dataset.v.toLowerCase().includes(wanted);
    document.getElementById(row.dataset.of).hidden = row.hidden;
  }
}
