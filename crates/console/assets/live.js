// What changes while somebody looks. A page without scripts is complete, and stays as it is.
"use strict";
(() => {
  const bar = document.querySelector("[data-live-url]");
  if (!bar || !window.EventSource) return;
  const body = document.querySelector("tbody");
  // Rows that have come and are not shown yet, the newest first, and how many came altogether.
  const MOST_ROWS = 50;
  let rows = [];
  let news = 0;
  let from = bar.dataset.from;
  let source = null;
  let watchdog = 0;
  let again = 0;
  // Why there is no stream: nobody wants one, nobody sees it, others have it, or it has ended.
  let isPaused = false;
  let isElsewhere = false;
  let hasEnded = false;
  const known = new Set([...document.querySelectorAll("tr[data-key]")].map((row) => row.dataset.key));

  const make = (name, text) => {
    const element = document.createElement(name);
    element.textContent = text;
    return element;
  };
  const state = make("span", "");
  state.setAttribute("role", "status");
  const show = make("button", "");
  const pause = make("button", "Pause");
  show.hidden = true;
  show.type = pause.type = "button";
  bar.append(state, pause, show);
  bar.hidden = false;

  const say = (words) => {
    if (state.textContent !== words) state.textContent = words;
  };
  const close = () => {
    clearTimeout(watchdog);
    clearTimeout(again);
    source?.close();
    source = null;
  };
  const lost = () => {
    close();
    say("The connection is lost. Trying again.");
    again = setTimeout(open, 3000);
  };
  // An answer that is no stream: whoever is signed out is sent to sign in, others have to wait.
  const refused = async () => {
    close();
    const page = await fetch(location.href, { redirect: "manual", cache: "no-store" }).catch(() => null);
    if (page?.type === "opaqueredirect") {
      hasEnded = true;
      say("You are signed out. Nothing changes here any more.");
    } else if (page?.ok) {
      say("Too many pages are live already. Trying again in a minute.");
      again = setTimeout(open, 60000);
    } else {
      lost();
    }
  };
  // A beat comes every 5 seconds. A connection that brings none is gone, though nobody said so.
  const alive = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(lost, 20000);
  };

  function open() {
    close();
    if (isPaused || isElsewhere || hasEnded || document.hidden) return;
    const url = new URL(bar.dataset.liveUrl, location.href);
    url.searchParams.set("from", from);
    source = new EventSource(url);
    const on = (name, work) =>
      source.addEventListener(name, (event) => {
        alive();
        if (event.lastEventId) from = event.lastEventId;
        work(event.data ? JSON.parse(event.data) : {});
      });
    on("hello", () => say("Live."));
    on("beat", () => say("Live."));
    on("rows", add);
    on("overview", overview);
    on("behind", () => {
      rows = [];
      news = Infinity;
      offer();
    });
    on("end", () => {
      hasEnded = true;
      close();
      say("You are signed out. Nothing changes here any more.");
    });
    const opened = source;
    source.addEventListener("error", () => (opened.readyState === EventSource.CLOSED ? refused() : lost()));
    alive();
  }
  // Opens it for somebody who looks here. A stream that only comes back is no news for other tabs.
  function openForSomebody() {
    open();
    if (source) tabs?.postMessage(tab);
  }

  function add(told) {
    const fresh = told.rows.filter((row) => !known.has(row.key));
    for (const row of fresh) known.add(row.key);
    news += told.count - (told.rows.length - fresh.length);
    rows = [...fresh, ...rows].slice(0, MOST_ROWS);
    if (known.size > 5000) known.clear();
    offer();
  }
  function offer() {
    show.hidden = news === 0;
    show.textContent = news === Infinity ? "Many new: show" : `${news} new: show`;
  }
  show.addEventListener("click", () => {
    // Without all of them there would be a gap.
    if (!body || bar.dataset.first !== location.pathname + location.search || news > rows.length) {
      location.assign(bar.dataset.first);
      return;
    }
    const made = document.createElement("template");
    made.innerHTML = `<table><tbody>${rows.map((row) => row.html).join("")}</tbody></table>`;
    body.prepend(...made.content.querySelectorAll("tr"));
    for (const old of [...body.children].slice(200)) old.remove();
    const caption = body.parentElement.caption;
    if (caption) caption.textContent = caption.textContent.replace(/^\d+ (\w+?)s?$/, `${body.children.length} $1s`);
    rows = [];
    news = 0;
    offer();
    document.dispatchEvent(new CustomEvent("console:shown"));
    body.querySelector("a")?.focus();
  });

  // Parts of the overview. One in which somebody is, by keyboard, is changed when that one leaves.
  const waiting = new Map();
  const shape = { known: null };
  function overview(told) {
    shape.known ??= told.shape;
    if (shape.known !== told.shape) {
      shape.known = told.shape;
      news = Infinity;
      offer();
      show.textContent = "Rows came or went: show";
    }
    for (const [name, html] of Object.entries(told.parts)) waiting.set(name, html);
    place();
  }
  function place() {
    for (const part of document.querySelectorAll("[data-live]")) {
      const html = waiting.get(part.dataset.live);
      if (html === undefined || part.contains(document.activeElement)) continue;
      waiting.delete(part.dataset.live);
      const made = document.createElement("template");
      made.innerHTML = html;
      part.replaceChildren(made.content);
    }
    document.dispatchEvent(new CustomEvent("console:shown"));
  }
  document.addEventListener("focusout", () => setTimeout(place, 0));

  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    isElsewhere = false;
    pause.textContent = isPaused ? "Go on" : "Pause";
    if (isPaused) {
      close();
      say("Paused.");
    } else {
      say("");
      newer.clear();
      openForSomebody();
    }
  });

  // A browser opens six connections to one place. So only the last two tabs that somebody looked at
  // have one, and the others leave theirs for pages.
  const tabs = window.BroadcastChannel ? new BroadcastChannel("fluent-console-live") : null;
  const tab = `${Date.now()}-${Math.random()}`;
  const newer = new Set();
  tabs?.addEventListener("message", (event) => {
    newer.add(event.data);
    if (newer.size < 2 || isElsewhere || isPaused || hasEnded || document.hidden) return;
    isElsewhere = true;
    close();
    say("Other tabs are live. Click here to go on.");
  });
  const back = () => {
    if (source || document.hidden) return;
    isElsewhere = false;
    newer.clear();
    openForSomebody();
  };
  window.addEventListener("focus", back);
  document.addEventListener("pointerdown", () => isElsewhere && back());
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else back();
  });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", (event) => event.persisted && back());
  openForSomebody();
})();
