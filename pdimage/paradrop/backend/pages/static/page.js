// Saves reloading: what changes by itself is asked for again every few seconds. Everything works without.
"use strict";

const PAUSE = 3000;

function keepFresh(place) {
  let shown = null;
  const timer = setInterval(async () => {
    if (document.hidden || place.contains(document.activeElement)) return;
    try {
      const answer = await fetch(`${location.pathname}?part=1`, { headers: { Accept: "text/html" } });
      if (answer.redirected) {
        clearInterval(timer);
        location.reload();
        return;
      }
      if (!answer.ok) return;
      const html = await answer.text();
      if (html === shown) return;
      const ends = (log) => !log || log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
      const follows = ends(place.querySelector("pre"));
      if (shown !== null || html.trim() !== place.innerHTML.trim()) place.innerHTML = html;
      shown = html;
      const log = place.querySelector("pre");
      if (log && follows) log.scrollTop = log.scrollHeight;
    } catch {
      // the router may be away for a moment, as in an upgrade
    }
  }, PAUSE);
}

const place = document.querySelector("[data-refresh]");
if (place) {
  const log = place.querySelector("pre");
  if (log) log.scrollTop = log.scrollHeight;
  keepFresh(place);
}
