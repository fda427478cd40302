// Ask the server now and then whether the report has changed, and load it again without losing the reader's place.
(() => {
  const EVERY_MS = 10000;
  const version = document.querySelector('meta[name="version"]').content;
  const name = (element) => (element.closest("[id]")?.id || "") + "/" + (element.ariaLabel || element.textContent);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const filters = () => all(".filter input").map((input) => [input.closest(".filter").nextElementSibling, input]);

  const focusable = () => all("a[href], button, input, select, summary, [tabindex]");
  const key = (element) => element.dataset.part || element.tagName + name(element);
  const alike = (wanted) => focusable().filter((element) => key(element) === wanted);

  const keep = () => {
    const chosen = {}; // what other scripts want to keep
    document.dispatchEvent(new CustomEvent("keep", { detail: chosen }));
    const focus = document.activeElement;
    const top = all("section").filter((section) => section.getBoundingClientRect().top < innerHeight / 2).pop();
    const state = {
      section: top?.id,
      offset: top?.getBoundingClientRect().top,
      heights: all(".plot").map((plot) => [plot.parentElement.id, plot.offsetHeight]),
      open: all("details[open] > summary").map(name),
      words: filters().map(([region, input]) => [name(region), input.value]),
      chosen,
      focus: focus === document.body ? null : [key(focus), alike(key(focus)).indexOf(focus)],
      sorted: all("th[aria-sort]").map((head) => [name(head.closest(".scroll")), head.cellIndex, head.ariaSort]),
    };
    sessionStorage.setItem("place", JSON.stringify(state));
  };

  const restore = (state) => {
    for (const [id, height] of state.heights) document.getElementById(id)?.querySelector(".plot").style.setProperty("min-height", height + "px");
    for (const summary of all("details > summary")) summary.parentElement.open = state.open.includes(name(summary));
    for (const [region, input] of filters()) {
      input.value = state.words.find(([other]) => other === name(region))?.[1] || "";
      input.dispatchEvent(new Event("input"));
    }
    for (const [region, place, order] of state.sorted) {
      const table = all(".scroll").find((other) => name(other) === region)?.querySelector("table");
      const head = table && [...table.tHead.rows].pop().cells[place];
      for (let click = 0; head && click < 2 && head.ariaSort !== order; click++) head.querySelector("button").click();
    }
    document.dispatchEvent(new CustomEvent("restore", { detail: state.chosen }));
    if (state.focus) alike(state.focus[0])[state.focus[1]]?.focus({ preventScroll: true });
    const top = document.getElementById(state.section);
    const place = () => top && scrollBy(0, top.getBoundingClientRect().top - state.offset);
    place();
    document.addEventListener("charts-drawn", place, { once: true }); // before, the page may have been too short
    for (const moved of ["wheel", "touchmove", "keydown", "mousedown"])
      addEventListener(moved, () => document.removeEventListener("charts-drawn", place), { once: true });
  };

  const kept = sessionStorage.getItem("place");
  sessionStorage.removeItem("place");
  if (kept) restore(JSON.parse(kept));
  setInterval(async () => {
    if (document.hidden) return;
    const answer = await fetch("/", { method: "HEAD" }).catch(() => null); // the server may have ended
    if (!answer?.ok || answer.headers.get("ETag") === `"${version}"`) return;
    keep();
    location.reload();
  }, EVERY_MS);
})();
