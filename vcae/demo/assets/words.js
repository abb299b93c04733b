/* The page in other languages: its English texts are looked up in words.json; {} stands for any text in between. */
"use strict";

const spoken = { language: "en", exact: new Map(), patterns: [] };
const shown = new WeakMap();
const LABELS = ["aria-label", "placeholder"];
const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

function translate(text) {
  if (spoken.language === "en") return text;
  const key = text.trim().replace(/\s+/g, " ");
  const found = spoken.exact.get(key)?.[spoken.language];
  if (found) return text.replace(text.trim(), found);
  for (const { pattern, to } of spoken.patterns) {
    const parts = key.match(pattern);
    if (!parts) continue;
    let n = 1;
    return to[spoken.language].replace(/\{\}/g, () => translate(parts[n++]));
  }
  return text;
}

/* What is shown is kept beside what it was made from, so that another language starts from the English text. */
function render(node, name, read, write) {
  const known = shown.get(node) ?? {}, now = read();
  if (now === null || now === undefined || !now.trim()) return;
  const source = known[name] && known[name].made === now ? known[name].source : now;
  const made = translate(source);
  shown.set(node, { ...known, [name]: { source, made } });
  if (made !== now) write(made);
}

function renderAll(root) {
  if (root.nodeType === Node.TEXT_NODE) {
    if (!root.parentElement?.closest("script, style, textarea")) render(root, "text", () => root.data, (made) => { root.data = made; });
    return;
  }
  if (root.nodeType !== Node.ELEMENT_NODE) return;
  for (const element of [root, ...root.querySelectorAll("*")]) {
    for (const name of LABELS) render(element, name, () => element.getAttribute(name), (made) => element.setAttribute(name, made));
  }
  const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) renderAll(texts.currentNode);
}

function speak(language) {
  spoken.language = language;
  document.documentElement.lang = language;
  renderAll(document.body);
  const chooser = document.getElementById("vcae-language");
  if (chooser) chooser.value = language;
}

async function begin() {
  const { languages, texts } = await (await fetch("studio/assets/words.json")).json();
  for (const [text, to] of Object.entries(texts)) {
    if (text.includes("{}")) spoken.patterns.push({ pattern: new RegExp(`^${text.split("{}").map(escaped).join("(.+?)")}$`), to });
    else spoken.exact.set(text, to);
  }
  const wanted = localStorage.getItem("vcae-language") ?? navigator.language.slice(0, 2);
  new MutationObserver((changes) => {
    for (const change of changes) {
      if (change.type === "childList") change.addedNodes.forEach(renderAll);
      else if (change.type === "attributes") render(change.target, change.attributeName, () => change.target.getAttribute(change.attributeName),
        (made) => change.target.setAttribute(change.attributeName, made));
      else renderAll(change.target);
      const chooser = document.getElementById("vcae-language");
      if (chooser && chooser.value !== spoken.language) chooser.value = spoken.language;
    }
  }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: LABELS });
  document.addEventListener("change", (event) => {
    if (event.target.id !== "vcae-language") return;
    localStorage.setItem("vcae-language", event.target.value);
    speak(event.target.value);
  });
  speak(wanted in languages ? wanted : "en");
}
begin();
