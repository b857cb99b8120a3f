"use strict";
// Filters of the worst cases, copying, and what is printed. Without this the page is whole: it then
// shows all cases.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const form = document.querySelector("#filters");
const cases = all(".case");
// What is searched: what was asked, expected and written; not the figures of every token.
const said = new Map(cases.map(item =>
  [item, all("h3, pre, li.fault", item).map(e => e.textContent).join("\n").toLowerCase()]));

function filter() {
  const want = Object.fromEntries(new FormData(form));
  const text = want.text.trim().toLowerCase();
  let count = 0;
  for (const item of cases) {
    const has = item.dataset;
    const fits = (!want.state || has.state === want.state)
      && (!want.fault || has.faults.split(" ").includes(want.fault))
      && (!want.kind || has.kind === want.kind)
      && (!want.recovered || has.recovered === want.recovered)
      && said.get(item).includes(text);
    item.hidden = !fits;
    count += fits;
  }
  document.querySelector("#count").textContent = `${count} of ${cases.length} cases`;
}

if (form) {
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter)); // after the fields are empty
  form.addEventListener("submit", event => event.preventDefault());
  document.querySelector("#open").addEventListener("click", event => {
    const open = event.target.getAttribute("aria-pressed") !== "true";
    event.target.setAttribute("aria-pressed", open);
    for (const item of cases) item.open = open;
  });
  filter();
}

for (const button of all("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.previousElementSibling, status = button.nextElementSibling;
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
      status.textContent = "Copied";
    } catch {
      status.textContent = "Selected"; // where the page may not write, the keyboard may
    }
    setTimeout(() => { status.textContent = ""; }, 3000);
  });
}

let closed = [];
addEventListener("beforeprint", () => {
  closed = all("details:not([open])");
  for (const item of closed) item.open = true;
});
addEventListener("afterprint", () => {
  for (const item of closed) item.open = false;
});
