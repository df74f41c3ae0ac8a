// Comfort for those who let scripts run. Every page does its work without it.
"use strict";
(() => {
  // Each time also in the viewer's own zone.
  const zone = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
  const name = () => {
    for (const element of document.querySelectorAll("time[datetime]:not([title])")) {
      const at = new Date(element.dateTime);
      if (!Number.isNaN(at.getTime())) element.title = zone.format(at);
    }
  };
  name();
  document.addEventListener("console:shown", name);
  // One box for a whole list.
  for (const all of document.querySelectorAll("input[data-all]")) {
    all.hidden = false;
    all.addEventListener("change", () => {
      for (const box of all.form.querySelectorAll("input[name=id]")) box.checked = all.checked;
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
