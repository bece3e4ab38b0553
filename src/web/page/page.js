// Lets the page follow: asks for it once a second and puts in place what has changed. The page is whole without this.
"use strict";

(() => {
  const EVERY = 1000;
  const PATIENCE = 4000;
  const root = document.documentElement;
  const live = () => document.querySelectorAll("[data-live]");
  const served = new Map([...live()].map((part) => [part.id, part.outerHTML]));
  const lost = document.getElementById("lost");
  const said = document.getElementById("said");
  // How far the app's clock is ahead of this one.
  let ahead = Date.parse(document.body.dataset.now) - Date.now();
  let headline = document.querySelector("#headline h1").textContent;
  let answered = Date.now();

  // As src/web/page/html.rs words it.
  const duration = (seconds) => {
    if (seconds < 10) return `${Math.max(seconds, 0).toFixed(1)} s`;
    if (seconds < 120) return `${Math.floor(seconds)} s`;
    if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
    return `${Math.floor(seconds / 86400)} days`;
  };

  const count = () => {
    const now = Date.now() + ahead;
    for (const age of document.querySelectorAll("[data-at]")) {
      const words = `${duration((now - Date.parse(age.dataset.at)) / 1000)} ago`;
      if (age.textContent !== words) age.textContent = words;
    }
  };

  const replace = (part, fresh) => {
    const known = new Set([...part.querySelectorAll("[data-id]")].map((event) => event.dataset.id));
    const open = part.querySelector("details")?.open;
    const made = document.importNode(fresh, true);
    for (const event of made.querySelectorAll("[data-id]")) {
      if (!known.has(event.dataset.id)) event.classList.add("fresh");
    }
    if (open) made.querySelector("details").open = true;
    part.replaceWith(made);
  };

  const show = (text) => {
    const page = new DOMParser().parseFromString(text, "text/html");
    if (!page.body.dataset.now) throw new Error("not the page");
    ahead = Date.parse(page.body.dataset.now) - Date.now();
    for (const part of live()) {
      const fresh = page.getElementById(part.id);
      // Compared with what was served last, since the ages in the page itself have been counted on.
      if (fresh && fresh.outerHTML !== served.get(part.id)) {
        served.set(part.id, fresh.outerHTML);
        replace(part, fresh);
      }
    }
    document.title = page.title;
    const title = page.querySelector("#headline h1").textContent;
    if (title !== headline) {
      headline = title;
      said.textContent = `${title}. ${page.querySelector("#headline p").textContent}`;
    }
  };

  const look = async () => {
    try {
      const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      show(await answer.text());
      answered = Date.now();
      lost.hidden = true;
      root.classList.remove("is-lost");
    } catch (error) {
      lost.textContent = `The app has not answered for ${duration((Date.now() - answered) / 1000)}. What you see is old.`;
      lost.hidden = false;
      root.classList.add("is-lost");
      document.title = "✕ No answer · Understudy";
    }
  };

  const follow = async () => {
    if (!document.hidden) await look();
    count();
    setTimeout(follow, EVERY);
  };

  root.classList.add("follows");
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look().then(count); });
  setInterval(count, 500);
  setTimeout(follow, EVERY);
})();
