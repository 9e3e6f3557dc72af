// Elements without markup: text stays text, whatever a provider wrote into it.

/** An element. Properties that begin with "on" are listeners, "text" is its text; false, null and undefined are left out. */
export function h(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "text") made.textContent = value;
    else if (name === "value") made.value = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Show `nodes` in a part of the page. What was open stays open, what had the focus gets it back. */
export function show(name, ...nodes) {
  const part = document.querySelector(`[data-part="${name}"]`);
  const open = new Set([...part.querySelectorAll("details[open][data-key]")].map((one) => one.dataset.key));
  const shut = new Set([...part.querySelectorAll("details:not([open])[data-key]")].map((one) => one.dataset.key));
  const focused = part.contains(document.activeElement) ? document.activeElement.closest("[data-key]")?.dataset.key : null;
  const filled = new Map([...part.querySelectorAll("[data-keep]")].map((one) => [one.dataset.keep, one.value]));
  part.replaceChildren(...nodes.flat().filter(Boolean));
  for (const one of part.querySelectorAll("details[data-key]")) {
    if (open.has(one.dataset.key)) one.open = true;
    else if (shut.has(one.dataset.key)) one.open = false;
  }
  for (const one of part.querySelectorAll("[data-keep]")) {
    if (filled.get(one.dataset.keep)) one.value = filled.get(one.dataset.keep);
  }
  if (focused) focusOn(part, focused);
}

/** Focus what bears the key, or its first control. */
export function focusOn(part, key) {
  const found = part.querySelector(`[data-key="${CSS.escape(key)}"]`);
  const control = found?.matches("button,input,select,textarea,summary,a")
    ? found
    : found?.querySelector("summary,button,input,select,textarea");
  control?.focus();
}

/** A word with a sign before it, so that nothing is told by colour alone. */
export function badge(kind, text) {
  const signs = { good: "✓", warn: "!", bad: "✕", idle: "○" };
  return h("span", { class: `badge ${kind}` }, h("span", { "aria-hidden": "true", text: signs[kind] }), ` ${text}`);
}

/** A line of "name: value" for a description list. */
export function row(name, ...value) {
  return h("div", { class: "row" }, h("dt", { text: name }), h("dd", {}, ...value));
}

let numbered = 0;

/** A label with its control below it; `more` is a hint that the control is described by. */
export function field(label, control, more = "") {
  numbered += 1;
  control.id = `field-${numbered}`;
  const hint = more ? h("p", { class: "hint", id: `hint-${numbered}`, text: more }) : null;
  if (hint) control.setAttribute("aria-describedby", hint.id);
  return h("div", { class: "field" }, h("label", { for: control.id, text: label }), control, hint);
}

const toast = document.getElementById("toast");
const said = document.getElementById("said");
let hushing = 0;

/** Tell the outcome of an action: seen at the foot of the page, read out by screen readers. Failures stay until closed. */
export function say(text, kind = "good") {
  clearTimeout(hushing);
  toast.hidden = false;
  toast.className = `toast ${kind}`;
  said.setAttribute("aria-live", kind === "bad" ? "assertive" : "polite");
  said.textContent = text;
  if (kind !== "bad") hushing = setTimeout(hush, 8000);
}

export function hush() {
  toast.hidden = true;
  said.textContent = "";
}

/** Run an action from a button: the button waits, a failure is told. Whether it went well. */
export async function act(button, work) {
  if (button?.getAttribute("aria-busy") === "true") return false;
  button?.setAttribute("aria-busy", "true");
  try {
    await work();
    return true;
  } catch (error) {
    say(error.message, "bad");
    return false;
  } finally {
    button?.removeAttribute("aria-busy");
  }
}
