// Views of pre-training: choose a cell of view 1 by mouse, touch or arrow keys to see its partners in view 2.
(() => {
  const root = document.getElementById("views");
  const data = JSON.parse(document.getElementById("views-data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  const make = (name, kind, values) => {
    const element = document.createElementNS(SVG, name);
    if (kind) element.setAttribute("class", kind);
    for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
    return element;
  };

  for (const svg of root.querySelectorAll("[data-pair]")) {
    const [run, image] = svg.dataset.pair.split("-");
    const { cells, pairs } = data[run][image];
    if (!pairs) continue;
    const squares = [...svg.querySelectorAll(".cell")]; // of view 1, then of view 2
    const group = svg.querySelector(".pairs");
    const caption = svg.closest("figure").querySelector("figcaption");
    const number = (square, key) => Number(square.getAttribute(key));
    let shown = false; // whether a cell was chosen
    let chosen = Math.floor(cells / 2) * (cells + 1);

    const end = (square) => make("rect", "end", Object.fromEntries(["x", "y", "width", "height"].map((key) => [key, square.getAttribute(key)])));
    const line = (one, other, kind) => {
      const middle = (square) => [number(square, "x") + number(square, "width") / 2, number(square, "y") + number(square, "height") / 2];
      const [[x1, y1], [x2, y2]] = [middle(one), middle(other)];
      return make("line", kind, { x1, y1, x2, y2 });
    };
    const words = (cell) => `row ${Math.floor(cell / cells) + 1}, column ${(cell % cells) + 1}`;

    const show = () => {
      shown = true;
      const partners = pairs.filter(([one]) => one === chosen).map(([, other]) => other);
      const from = squares[chosen];
      const to = partners.map((cell) => squares[cells * cells + cell]);
      group.replaceChildren(
        end(from),
        ...to.map(end),
        ...to.map((square) => line(from, square, "under")),
        ...to.map((square) => line(from, square, "")),
      );
      caption.textContent = `Cell ${words(chosen)} of view 1: ` + (partners.length ? `positive pairs with ${partners.map(words).join("; ")} of view 2` : "no positive pair");
    };

    const name = svg.parentElement.ariaLabel; // it names the run and the image
    document.addEventListener("keep", ({ detail }) => {
      if (shown) detail[name] = chosen;
    });
    document.addEventListener("restore", ({ detail }) => {
      if (!(detail[name] < cells * cells)) return;
      chosen = detail[name];
      show();
    });

    svg.setAttribute("tabindex", "0");
    svg.setAttribute("role", "application");
    svg.setAttribute("aria-roledescription", "choice of a cell of view 1 by arrow keys");
    squares.slice(0, cells * cells).forEach((square, cell) => {
      square.classList.add("choice");
      square.addEventListener("click", () => {
        chosen = cell;
        show();
      });
    });
    svg.addEventListener("keydown", (event) => {
      const move = MOVES[event.key];
      if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const inside = (at) => Math.max(0, Math.min(cells - 1, at));
      chosen = inside(Math.floor(chosen / cells) + move[1]) * cells + inside((chosen % cells) + move[0]);
      show();
    });
  }
})();
