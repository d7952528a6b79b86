"use strict";
(() => {
  const copyText = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* not allowed: select and copy */ }
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };
  for (const button of document.querySelectorAll("button.copy")) {
    const name = button.textContent;
    button.hidden = false;
    button.addEventListener("click", async () => {
      const done = await copyText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = done ? "Copied" : "Not copied: select the text below";
      button.focus();
      setTimeout(() => { button.textContent = name; }, 2000);
    });
  }

  const form = document.getElementById("filters");
  if (!form) return;
  form.hidden = false;
  const cards = [...document.querySelectorAll(".card")], rows = [...document.querySelectorAll(".row")];
  const count = document.getElementById("filter-count");
  const rules = {
    equals: (held, asked) => held === asked,
    word: (held, asked) => held.split(" ").includes(asked),
    contains: (held, asked) => held.toLowerCase().includes(asked.toLowerCase()),
    least: (held, asked) => Number(held) >= Number(asked),
    most: (held, asked) => Number(held) <= Number(asked),
  };
  const controls = [...form.elements].filter((control) => control.dataset.fields);
  const toggle = document.getElementById("toggle-maps");
  const filter = () => {
    const asked = controls.filter((control) => control.value !== "");
    for (const card of cards) {
      card.hidden = !asked.every((control) => control.dataset.fields.split(" ").some(
        (field) => rules[control.dataset.rule || "equals"](card.dataset[field], control.value)));
    }
    for (const row of rows) row.hidden = !row.querySelector(".card:not([hidden])");
    const shown = cards.filter((card) => !card.hidden).length;
    count.textContent = `${shown} of ${cards.length} images shown. Keys: / search, left and right arrow next image, Enter enlarge, ${toggle ? "m maps, " : ""}Escape clear.`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());

  const toggleMaps = () => {
    const hidden = document.body.classList.toggle("no-maps");
    toggle.textContent = hidden ? "Maps hidden" : "Maps shown";
    toggle.setAttribute("aria-pressed", String(!hidden));
  };
  if (toggle) toggle.addEventListener("click", toggleMaps);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "Escape") {
      const open = document.querySelector(".zoom[open]");
      if (open) open.open = false;
      else { form.reset(); if (typing) typing.blur(); }
    } else if (typing) {
      return;
    } else if (event.key === "/") {
      event.preventDefault();
      form.elements.text.focus();
    } else if (event.key === "m" && toggle) {
      toggleMaps();
    } else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      if (event.target.closest(".scroll, pre")) return;
      const stops = cards.filter((card) => !card.hidden).map((card) => card.querySelector("summary"));
      const at = stops.indexOf(document.activeElement), step = event.key === "ArrowRight" ? 1 : -1;
      const next = stops[at < 0 ? 0 : at + step];
      if (!next) return;
      event.preventDefault();
      const open = document.querySelector(".zoom[open]");
      if (open) { open.open = false; next.parentElement.open = true; }
      next.focus();
      next.scrollIntoView({ block: "nearest" });
    }
  });
  filter();
})();
