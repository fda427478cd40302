// Draw the charts: those in sight first, then the others, so that printing finds them; what is folded waits until it is opened.
(() => {
  const config = JSON.parse(document.getElementById("chart-config").textContent);
  const options = { config, renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip: { theme: "page" } };
  const waiting = new Set(document.querySelectorAll("figure.chart"));
  const next = () => [...waiting].find((figure) => !figure.parentElement.closest("details:not([open])"));
  const drawn = [];
  const draw = (figure) => {
    if (!waiting.delete(figure)) return;
    const spec = JSON.parse(figure.querySelector("script").textContent);
    drawn.push(vegaEmbed(figure.querySelector(".plot > div"), spec, options));
  };
  const later = window.requestIdleCallback || ((run) => setTimeout(run, 50));
  const rest = async () => {
    const figure = next();
    if (figure) draw(figure);
    await Promise.all(drawn);
    if (figure) later(rest);
    else {
      document.documentElement.dataset.charts = "drawn";
      document.dispatchEvent(new Event("charts-drawn"));
    }
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  });
  for (const figure of waiting) seen.observe(figure);
  later(rest);
})();
