"""How the page of a trial looks and how its documents are narrowed down. It needs nothing from elsewhere."""

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --mark: #ffd54a; --bad: #b3261e; --good: #2e7d32 }
@media (prefers-color-scheme: dark) { :root { --mark: #e0a800; --bad: #ff8a80; --good: #81c784 } }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem }
h1 { font-size: 1.35rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92em }
th, td { text-align: left; padding: .2rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
form { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; position: sticky; top: 0; z-index: 1;
  padding: .6rem 0; background: Canvas; border-bottom: 1px solid var(--line) }
input[type=search] { flex: 1 1 14rem }
input, select, button { font: inherit; padding: .2rem .5rem }
details { border-bottom: 1px solid var(--line); padding: .35rem 0 }
summary { cursor: pointer; overflow-wrap: anywhere }
summary .reason { color: var(--bad); font-weight: 600 }
summary .kept { color: var(--good); font-weight: 600 }
summary .begins, .what, .gap { opacity: .72 }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .7rem; margin: .5rem 0;
  font: 13px/1.5 ui-monospace, monospace; max-height: 34rem; overflow: auto }
mark { background: var(--mark); color: #000; border-radius: 2px }
.gap { font-style: italic }
.twins { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: .8rem }
.twins h2 { font-size: .95rem; margin: .5rem 0 0; overflow-wrap: anywhere }
@media (max-width: 50rem) { .twins { grid-template-columns: minmax(0, 1fr) } }
bdi { unicode-bidi: isolate }
"""

SCRIPT = """
const form = document.querySelector("form"), all = [...document.querySelectorAll("details")];
function narrow() {
  const words = form.words.value.toLowerCase().split(/\\s+/), reason = form.reason.value;
  let shown = 0;
  for (const one of all) {
    const said = one.dataset.said;
    one.hidden = !(words.every(word => said.includes(word)) && (reason === "" || one.dataset.reason === reason));
    shown += !one.hidden;
  }
  document.querySelector("output").textContent = shown + " of " + all.length + " documents";
}
form.addEventListener("input", narrow);
form.addEventListener("submit", event => event.preventDefault());
form.open.addEventListener("click", () => {
  const closed = all.filter(one => !one.hidden && !one.open);
  for (const one of all) if (!one.hidden) one.open = closed.length > 0;
});
for (const one of all) one.addEventListener("toggle", () => {
  for (const text of one.open ? one.querySelectorAll("pre") : []) {
    const mark = text.querySelector("mark");
    if (mark) text.scrollTop += mark.getBoundingClientRect().top - text.getBoundingClientRect().top - 60;
  }
});
form.hidden = false;
narrow();
"""
"""Without it the page shows all documents, and no fields to narrow them down."""
