// Saves reloading: shows at once what is wrong with a choice, and keeps what is under way up to date.
"use strict";

const PAUSE = 2000;

async function part(address) {
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.text();
}

function checkAsYouChoose(form) {
  const verdict = document.getElementById("verdict");
  let latest = 0;
  form.addEventListener("change", async () => {
    const mine = ++latest;
    const fields = new URLSearchParams(new FormData(form));
    fields.delete("defaults");
    fields.set("part", "verdict");
    try {
      const html = await part(`${form.dataset.check}?${fields}`);
      if (mine === latest) verdict.innerHTML = html;
    } catch {
      // the button "Check" still says it
    }
  });
}

function keepUpToDate(place) {
  const address = new URL(location);
  address.searchParams.set("part", "progress");
  const timer = setInterval(async () => {
    if (place.contains(document.activeElement)) return;
    try {
      const html = await part(address);
      const log = place.querySelector("pre");
      const follows = !log || log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
      if (html.trim() !== place.dataset.shown) {
        place.innerHTML = html;
        place.dataset.shown = html.trim();
        const now = place.querySelector("pre");
        if (now && follows) now.scrollTop = now.scrollHeight;
      }
      if (!("always" in place.dataset) && !place.querySelector('[aria-current="step"]')) {
        clearInterval(timer);
        if ("reload" in place.dataset) location.reload();
      }
    } catch {
      // the server may be away for a moment
    }
  }, PAUSE);
}

const form = document.querySelector("form[data-check]");
if (form) checkAsYouChoose(form);
const place = document.querySelector("[data-refresh]");
if (place) keepUpToDate(place);
