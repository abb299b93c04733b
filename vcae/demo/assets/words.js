/* The page in other languages: its English texts are looked up in words.json; {} stands for any text in between. */
"use strict";

const spoken = { language: "en", exact: new Map(), patterns: [] };
const shown = new WeakMap();
const LABELS = ["aria-label", "aria-valuetext", "placeholder", "alt", "title"];
/* Names, and documents in English, stay as they are. */
const KEPT = "[translate=no], .vcae-english, .file-preview .filename, script, style, textarea, #vcae-language option";
const WORDS = /\p{L}{2}/u, UNITS = /\b(Hz|kHz|kB|KB|MB|WAV|MP3|M4A|vcae)\b/g;
const END = { de: ".", zh: "。" };
/* Between these, a text is translated sentence by sentence. */
const SENTENCES = /(?<=[.!?]) (?=[A-Z])/;
const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const tidy = (text) => text.trim().replace(/\s+/g, " ");
/* Texts are the same with and without a capital at the beginning and a full stop at the end. */
const bare = (text) => (text.charAt(0).toLowerCase() + text.slice(1)).replace(/\.$/, "");

/* The translation of a text; null if there is none. */
function found(text) {
  const language = spoken.language, key = bare(text);
  let made = spoken.exact.get(key)?.[language];
  for (const { pattern, to } of made === undefined ? spoken.patterns : []) {
    const parts = key.match(pattern);
    if (!parts) continue;
    let n = 1;
    made = to[language].replace(/\{\}/g, () => translate(parts[n++]));
    break;
  }
  if (made === undefined) return null;
  if (/^[A-Z]/.test(text)) made = made.charAt(0).toUpperCase() + made.slice(1);
  if (/\.$/.test(text) && !/[.!?。]$/.test(made)) made += END[language];
  return made;
}

function translate(text) {
  const whole = tidy(text);
  if (spoken.language === "en" || !whole) return text;
  const sentences = whole.split(SENTENCES);
  const made = found(whole) ?? (sentences.length > 1 ? sentences.map((each) => found(each) ?? each).join(" ") : null);
  return made === null ? text : text.replace(text.trim(), () => made);
}

/* The texts on the page that have words and no translation. */
window.vcaeUntranslated = () => {
  const missing = new Set();
  const look = (element, text) => {
    if (!element || element.closest(KEPT) || !WORDS.test((text ?? "").replace(UNITS, ""))) return;
    const whole = tidy(text);
    for (const each of found(whole) === null ? whole.split(SENTENCES) : []) if (found(each) === null) missing.add(each);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode, known = shown.get(node)?.text;
    if (node.parentElement?.checkVisibility()) look(node.parentElement, known?.made === node.data ? known.source : node.data);
  }
  for (const name of LABELS) for (const element of document.querySelectorAll(`[${name}]`)) {
    const known = shown.get(element)?.[name], now = element.getAttribute(name);
    if (element.checkVisibility()) look(element, known?.made === now ? known.source : now);
  }
  return [...missing];
};

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
    if (!root.parentElement?.closest(KEPT)) render(root, "text", () => root.data, (made) => { root.data = made; });
    return;
  }
  if (root.nodeType !== Node.ELEMENT_NODE) return;
  for (const element of [root, ...root.querySelectorAll("*")]) {
    if (element.matches(".vcae-english")) element.lang = "en";
    // These scroll, so the keyboard must reach them.
    if (element.matches(".vcae-english, .vcae-english pre")) element.tabIndex = 0;
    if (element.closest(KEPT)) continue;
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

function learn(texts) {
  for (const [text, to] of Object.entries(texts)) {
    const key = bare(text);
    if (text.includes("{}")) {
      const pattern = new RegExp(`^${key.split("{}").map(escaped).join("(.+?)")}$`);
      spoken.patterns.push({ length: key.replaceAll("{}", "").length, pattern, to });
    } else spoken.exact.set(key, to);
  }
  // Of several patterns that fit, the one with the most words.
  spoken.patterns.sort((one, other) => other.length - one.length);
}

async function begin() {
  const { languages, texts } = await (await fetch("studio/assets/words.json")).json();
  learn(texts);
  const wanted = localStorage.getItem("vcae-language") ?? (window.vcaeLanguage ?? navigator.language).slice(0, 2);
  new MutationObserver((changes) => {
    for (const change of changes) {
      if (change.type === "childList") change.addedNodes.forEach(renderAll);
      else if (change.type === "attributes" && !change.target.closest(KEPT)) render(change.target, change.attributeName, () => change.target.getAttribute(change.attributeName),
        (made) => change.target.setAttribute(change.attributeName, made));
      else if (change.type === "characterData") renderAll(change.target);
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
