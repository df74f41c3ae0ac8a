// Comfort for those who let scripts run. Every page does its work without it.
"use strict";
(() => {
  // Each time in the viewer's own zone, with UTC beside it.
  const named = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
  const local = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
  const zone = (at) =>
    new Intl.DateTimeFormat("en", { timeZoneName: "short" }).formatToParts(at).find((part) => part.type === "timeZoneName").value;
  const tell = () => {
    for (const element of document.querySelectorAll("time[datetime]:not([title])")) {
      const at = new Date(element.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      element.title = named.format(at);
      if (at.getTimezoneOffset() === 0) continue;
      const utc = document.createElement("span");
      utc.className = "utc";
      utc.textContent = ` ${at.toISOString().slice(11, 19)} UTC`;
      element.replaceChildren(`${local.format(at)} ${zone(at)}`, utc);
    }
  };
  tell();
  document.addEventListener("console:shown", tell);
  const footer = document.querySelector("footer [data-zone]");
  if (footer && new Date().getTimezoneOffset() !== 0) {
    footer.textContent = `times are ${Intl.DateTimeFormat().resolvedOptions().timeZone}, with UTC beside`;
  }
  // One box for a whole list.
  for (const all of document.querySelectorAll("input[data-all]")) {
    all.hidden = false;
    all.addEventListener("change", () => {
      // A form's elements may be elsewhere on the page.
      const boxes = [...all.form.elements].filter((element) => element.type === "checkbox" && element.name === "id");
      for (const box of boxes) box.checked = all.checked;
    });
  }
  // `/` goes to the search, j and k to the next and the previous row of a list.
  const links = () => [...document.querySelectorAll("tbody tr")].map((row) => row.querySelector("a")).filter(Boolean);
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, textarea, select");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      const box = document.getElementById("q");
      if (box) {
        event.preventDefault();
        box.focus();
        box.select();
      }
    }
    const step = { j: 1, k: -1 }[event.key];
    const rows = step ? links() : [];
    if (rows.length) {
      const here = rows.indexOf(document.activeElement);
      rows[Math.min(rows.length - 1, Math.max(0, here + step))].focus();
    }
  });
})();
