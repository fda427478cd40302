// Tables whose headings sort them, and which can be filtered by what is typed above them.
(() => {
  const text = (row, place) => row.cells[place].textContent.trim();
  const number = (words) => parseFloat(words.replace("−", "-").match(/^-?\d[\d.]*(e[+-]?\d+)?(?=[\s%]|$)/)?.[0]);

  const compare = (place, sign) => (one, other) => {
    const [a, b] = [text(one, place), text(other, place)];
    const [x, y] = [number(a), number(b)];
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1; // what has no number stays below
    return sign * (isNaN(x) ? a.localeCompare(b, undefined, { numeric: true }) : x - y);
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const rows = [...body.rows];
        const numbers = rows.some((row) => !isNaN(number(text(row, place))));
        const first = numbers ? "descending" : "ascending";
        const second = numbers ? "ascending" : "descending";
        const order = head.ariaSort === first ? second : first;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.ariaSort = order;
        body.append(...rows.sort(compare(place, order === "ascending" ? 1 : -1)));
      });
    });
  };

  const filterable = (table) => {
    const field = table.parentElement.previousElementSibling;
    const [input, count] = [field.querySelector("input"), field.querySelector("output")];
    const rows = [...table.tBodies[0].rows];
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/);
      let shown = 0;
      for (const row of rows) {
        row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
        shown += !row.hidden;
      }
      count.textContent = `${shown} of ${rows.length} rows`;
    };
    field.hidden = false;
    input.addEventListener("input", apply);
    apply();
  };

  for (const table of document.querySelectorAll("table.sortable")) sortable(table);
  for (const table of document.querySelectorAll("table.filterable")) filterable(table);
})();
