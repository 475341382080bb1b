"use strict";
// A click on a heading sorts, a second one the other way, a third one as it was; what is missing stays last.
(() => {
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

  const compared = (column, way) => (a, b) => {
    const [one, other] = [a.cells[column], b.cells[column]];
    const missing = [one, other].map((cell) => "missing" in cell.dataset);
    if (missing[0] || missing[1]) return missing[0] - missing[1];
    const numbers = [one, other].map((cell) => Number(cell.dataset.value));
    const found = numbers.some(Number.isNaN) ? words.compare(one.textContent, other.textContent) : numbers[0] - numbers[1];
    return way === "descending" ? -found : found;
  };

  const sortable = (table) => {
    const body = table.tBodies[0], first = [...body.rows], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const way = NEXT[head.getAttribute("aria-sort")];
        for (const other of heads) other.setAttribute("aria-sort", other === head ? way : "none");
        body.append(...(way === "none" ? first : [...first].sort(compared(column, way))));
      });
    });
  };

  for (const table of document.querySelectorAll("table.sortable")) if (table.tBodies[0]?.rows.length > 1) sortable(table);
})();
