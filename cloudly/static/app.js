// Keeps "12 s ago" true between two events, and says whether the page is live. The page works without it.
(() => {
  const skew = Number(document.documentElement.dataset.now) - Date.now();
  const ago = (ms) => {
    const s = Math.floor((Date.now() + skew - ms) / 1000);
    if (s < 0) return "in the future";
    if (s < 60) return `${s} s ago`;
    if (s < 3600) return `${Math.floor(s / 60)} min ago`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
    return `${Math.floor(s / 86400)} d ago`;
  };
  setInterval(() => {
    for (const time of document.querySelectorAll("time[data-ms]")) {
      time.textContent = ago(Number(time.dataset.ms));
    }
  }, 1000);

  const says = { live: "live", lost: "reconnecting" };
  const show = (state) => {
    const light = document.getElementById("live");
    light.dataset.state = state;
    light.textContent = says[state];
  };
  document.addEventListener("htmx:sse:after:connection", () => show("live"));
  document.addEventListener("htmx:sse:error", () => show("lost"));
  document.addEventListener("htmx:sse:close", () => show("lost"));
})();
