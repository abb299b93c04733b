/* The page's own parts: the player that compares two sounds, and the play buttons of voice cards. */
"use strict";

const ICON = `<svg class="vcae-icon" viewBox="0 0 16 16" aria-hidden="true"><path class="vcae-play" d="M4 2v12l10-6z"/>
  <path class="vcae-pause" d="M3 2h4v12H3zM9 2h4v12H9z"/></svg>`;

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/* One sound plays at a time: whatever starts stops the others. */
const playing = new Set();
const alone = (audio) => {
  playing.add(audio);
  for (const other of playing) if (other !== audio) other.pause();
};

/* <vcae-player src seconds first second peaks>: a two-channel file, of which one channel is audible at a time.
   Both channels are one stream, so switching between them keeps the place to the sample. */
class Player extends HTMLElement {
  connectedCallback() {
    if (this.audio) return;
    this.seconds = Number(this.getAttribute("seconds"));
    this.peaks = JSON.parse(this.getAttribute("peaks"));
    this.side = 1;
    const names = [this.getAttribute("first"), this.getAttribute("second")];
    const play = this.getAttribute("play"), pause = this.getAttribute("pause");
    this.words = { play, pause };
    this.innerHTML = `<div class="vcae-player-top">
      <button type="button" class="vcae-player-play" aria-label="${play}">${ICON}</button>
      <div class="vcae-sides" role="group"></div>
      <span class="vcae-player-time"></span></div>
      <div class="vcae-wave" role="slider" tabindex="0" aria-valuemin="0"><canvas aria-hidden="true"></canvas>
      <span class="vcae-hover" aria-hidden="true" hidden></span></div>`;
    const sides = this.querySelector(".vcae-sides");
    sides.setAttribute("aria-label", this.getAttribute("which"));
    this.sides = names.map((name, side) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => this.choose(side));
      sides.append(button);
      return button;
    });
    this.audio = new Audio(this.getAttribute("src"));
    this.audio.preload = "metadata";
    this.button = this.querySelector(".vcae-player-play");
    this.wave = this.querySelector(".vcae-wave");
    this.wave.setAttribute("aria-label", this.getAttribute("place"));
    this.wave.setAttribute("aria-valuemax", String(Math.round(this.seconds)));
    this.time = this.querySelector(".vcae-player-time");
    this.button.addEventListener("click", () => this.toggle());
    for (const event of ["play", "pause", "ended", "seeked"]) this.audio.addEventListener(event, () => this.show());
    this.wave.addEventListener("pointerdown", (event) => { this.seek(this.at(event)); this.wave.setPointerCapture(event.pointerId); });
    this.wave.addEventListener("pointermove", (event) => { this.hover(event); if (event.buttons) this.seek(this.at(event)); });
    this.wave.addEventListener("pointerleave", () => { this.querySelector(".vcae-hover").hidden = true; });
    this.wave.addEventListener("keydown", (event) => this.key(event));
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.wave);
    this.choose(1);
    this.reveal();
  }

  disconnectedCallback() {
    this.audio?.pause();
    playing.delete(this.audio);
    this.observer?.disconnect();
    cancelAnimationFrame(this.frame);
    this.context?.close();
  }

  /* The graph is built at the first play, as browsers allow sound only after a click. */
  connect() {
    if (this.context) return;
    this.context = new AudioContext();
    const source = this.context.createMediaElementSource(this.audio);
    const splitter = this.context.createChannelSplitter(2);
    source.connect(splitter);
    this.gains = [0, 1].map((side) => {
      const gain = this.context.createGain();
      gain.gain.value = side === this.side ? 1 : 0;
      splitter.connect(gain, side);
      gain.connect(this.context.destination);
      return gain;
    });
  }

  choose(side) {
    this.side = side;
    this.sides.forEach((button, n) => button.setAttribute("aria-pressed", String(n === side)));
    this.gains?.forEach((gain, n) => gain.gain.setTargetAtTime(n === side ? 1 : 0, this.context.currentTime, 0.005));
    this.draw();
  }

  async toggle() {
    if (!this.audio.paused) { this.audio.pause(); return; }
    this.connect();
    await this.context.resume();
    alone(this.audio);
    await this.audio.play();
  }

  seek(seconds) {
    this.audio.currentTime = Math.max(0, Math.min(this.seconds, seconds));
    this.show();
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -5, PageUp: 5 };
    if (event.key in steps) this.seek(this.audio.currentTime + steps[event.key]);
    else if (event.key === "Home") this.seek(0);
    else if (event.key === "End") this.seek(this.seconds);
    else if (event.key === " ") this.toggle();
    else return;
    event.preventDefault();
  }

  at(event) {
    const box = this.wave.getBoundingClientRect();
    return this.seconds * Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
  }

  hover(event) {
    const shown = this.querySelector(".vcae-hover"), box = this.wave.getBoundingClientRect();
    shown.hidden = false;
    shown.textContent = clock(this.at(event));
    shown.style.left = `${Math.max(0, Math.min(box.width - 40, event.clientX - box.left + 6))}px`;
  }

  show() {
    const at = this.audio.currentTime || 0, paused = this.audio.paused;
    this.time.textContent = `${clock(at)} / ${clock(Math.round(this.seconds))}`;
    this.wave.setAttribute("aria-valuenow", String(Math.round(at)));
    this.wave.setAttribute("aria-valuetext", clock(at));
    this.button.setAttribute("aria-label", paused ? this.words.play : this.words.pause);
    this.button.classList.toggle("vcae-playing", !paused);
    this.draw();
    cancelAnimationFrame(this.frame);
    if (!paused) this.frame = requestAnimationFrame(() => this.show());
  }

  draw() {
    const canvas = this.wave?.firstElementChild;
    if (!canvas || !this.audio) return;
    const box = this.wave.getBoundingClientRect(), scale = devicePixelRatio || 1;
    canvas.width = box.width * scale;
    canvas.height = box.height * scale;
    const draw = canvas.getContext("2d"), style = getComputedStyle(this);
    const peaks = this.peaks[this.side], width = canvas.width / peaks.length, middle = canvas.height / 2;
    const done = (this.audio.currentTime || 0) / this.seconds;
    peaks.forEach((peak, n) => {
      draw.fillStyle = style.getPropertyValue((n + 0.5) / peaks.length < done ? "--vcae-accent" : "--vcae-quiet");
      const height = Math.max(scale, (peak / 100) * middle * 0.95);
      draw.fillRect(n * width, middle - height, Math.max(1, width * 0.65), 2 * height);
    });
    if (!this.time.textContent) this.show();
  }

  /* A result below the window's edge is brought into view. */
  reveal() {
    requestAnimationFrame(() => {
      const card = this.closest(".vcae-result") || this, box = card.getBoundingClientRect();
      if (box.height && box.bottom > innerHeight) card.scrollIntoView({ block: "nearest", behavior: calm() ? "auto" : "smooth" });
    });
  }
}
if (!customElements.get("vcae-player")) customElements.define("vcae-player", Player);

/* The time below the pointer in a picture; a click plays from there if the result has a player. */
const timed = (event) => {
  const place = event.target.closest?.(".vcae-timed");
  if (!place) return null;
  const box = place.querySelector("img").getBoundingClientRect(), { left, right, seconds } = place.dataset;
  const share = ((event.clientX - box.left) / box.width - left) / (right - left);
  return share < 0 || share > 1 ? { place } : { place, at: share * seconds, x: event.clientX - box.left };
};
document.addEventListener("pointermove", (event) => {
  const found = timed(event);
  for (const mark of document.querySelectorAll(".vcae-mark")) if (mark.parentElement !== found?.place || found.at === undefined) mark.remove();
  if (found?.at === undefined) return;
  const mark = found.place.querySelector(".vcae-mark") ?? Object.assign(document.createElement("div"), { className: "vcae-mark", innerHTML: "<span></span>" });
  mark.setAttribute("aria-hidden", "true");
  mark.style.left = `${found.x}px`;
  mark.firstElementChild.textContent = Number(found.place.dataset.seconds) < 60 ? `${found.at.toFixed(2)} s` : clock(found.at);
  if (!mark.parentElement) found.place.append(mark);
});
document.addEventListener("click", (event) => {
  const found = timed(event);
  if (found?.at !== undefined) found.place.closest(".vcae-result")?.querySelector("vcae-player")?.seek(found.at);
});

/* Samples of voice cards. */
const sample = new Audio();
let sampled = null;
const settle = () => {
  sampled?.setAttribute("aria-pressed", "false");
  sampled = null;
};
for (const event of ["pause", "ended", "error"]) sample.addEventListener(event, settle);
document.addEventListener("click", (event) => {
  const button = event.target.closest?.(".vcae-voice-play");
  if (!button) return;
  event.preventDefault();
  if (sampled === button) { sample.pause(); return; }
  settle();
  sampled = button;
  button.setAttribute("aria-pressed", "true");
  sample.src = button.dataset.src;
  alone(sample);
  sample.play().catch(settle);
});

/* <vcae-shelf chosen>: cards of voices. Gradio reuses elements, whose state a new attribute does not change, so it is set here, again
   when cards arrive later than the attribute. */
class Shelf extends HTMLElement {
  static observedAttributes = ["chosen"];
  connectedCallback() {
    this.arrivals ??= new MutationObserver(() => this.choose());
    this.arrivals.observe(this, { childList: true, subtree: true });
    this.choose();
  }
  disconnectedCallback() { this.arrivals.disconnect(); }
  attributeChangedCallback() { this.choose(); }
  choose() {
    // Until then a reused element may be checked that was another card.
    this.pending = true;
    setTimeout(() => {
      const card = [...this.querySelectorAll("input[type=radio]")].find((input) => input.value === this.getAttribute("chosen"));
      if (!card) return;
      card.checked = true;
      this.pending = false;
    });
  }
}
if (!customElements.get("vcae-shelf")) customElements.define("vcae-shelf", Shelf);

/* The chosen voice card, for what is sent with a click. */
window.vcaeVoice = (place) => {
  const shelf = document.querySelector(`#${place} vcae-shelf`);
  if (shelf?.pending) return shelf.getAttribute("chosen");
  return document.querySelector(`#${place} input[type=radio]:checked`)?.value ?? "";
};
/* An error goes when its cause was changed. */
window.vcaeForgive = (place) => document.querySelectorAll(`#${place} .vcae-error`).forEach((note) => { note.hidden = true; });
document.addEventListener("change", (event) => {
  const shelf = event.target.closest?.(".vcae-shelf");
  if (shelf) window.vcaeForgive(shelf.dataset.status);
});

/* Gradio's names of some buttons leave out the words on them, which is what a visitor would say to press them: the words are the name then.
   Its button to add files holds another, so it is a group. */
const NAMED = ".upload-container, .playback, button[aria-label^='Click to upload']";
function rename() {
  for (const button of document.querySelectorAll(NAMED)) {
    const name = button.getAttribute("aria-label");
    if (!name || !/[\p{L}\d]/u.test(button.textContent)) continue;
    if (button.matches(".playback")) button.title = name;
    button.removeAttribute("aria-label");
  }
  for (const button of document.querySelectorAll("button[aria-label='common.upload']")) {
    button.setAttribute("aria-label", "Add files");
    button.title = "Add files";
    if (button.querySelector("button, input, [tabindex]")) button.setAttribute("role", "group");
  }
}
new MutationObserver(rename).observe(document.documentElement, { subtree: true, childList: true, characterData: true });
