// Draw the charts: those in sight first, the others when the browser has time, so that printing finds all of them.
(() => {
  const config = JSON.parse(document.getElementById("chart-config").textContent);
  const options = { config, renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip: { theme: "page" } };
  const waiting = new Set(document.querySelectorAll("figure.chart"));
  const draw = async (figure) => {
    if (!waiting.delete(figure)) return;
    await vegaEmbed(figure.querySelector(".plot"), JSON.parse(figure.querySelector("script").textContent), options);
    figure.dataset.drawn = "yes";
  };
  const later = window.requestIdleCallback || ((run) => setTimeout(run, 50));
  const rest = async () => {
    const [figure] = waiting;
    if (!figure) return;
    await draw(figure);
    later(rest);
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  });
  for (const figure of waiting) seen.observe(figure);
  later(rest);
})();
