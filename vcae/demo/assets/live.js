/* <vcae-live session rate block latency>: converts the microphone live while it is on the page. */
"use strict";

/* Time for a block to come late, and blocks that may be on their way; more are left out, so that the delay does not grow. */
const SLACK_S = 0.03, MOST_PENDING = 4;

class LiveCard extends HTMLElement {
  async connectedCallback() {
    if (this.begun) return;
    this.begun = true;
    this.innerHTML = `<p class="vcae-note vcae-live-told" role="status">${this.getAttribute("starting")}</p>
      <div class="vcae-levels">${["input", "output"].map((end) => `<div><span>${this.getAttribute(end)}</span>
      <div role="meter" aria-label="${this.getAttribute(end)}" aria-valuemin="-60" aria-valuemax="0" aria-valuenow="-60"><div></div></div></div>`).join("")}</div>`;
    this.told = this.querySelector(".vcae-live-told");
    this.meters = [...this.querySelectorAll("[role=meter]")];
    try {
      await this.start();
    } catch (error) {
      this.say(`${this.getAttribute("refused")} (${error.message})`, true);
      this.stop();
    }
  }

  async start() {
    const rate = Number(this.getAttribute("rate")), block = Number(this.getAttribute("block"));
    const chosen = document.querySelector("#live-devices select[name=microphone]")?.value;
    const wanted = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    if (chosen) wanted.deviceId = { exact: chosen };
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    if (!this.isConnected) { this.stop(); return; }
    this.context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
    const sink = document.querySelector("#live-devices select[name=loudspeaker]")?.value;
    if (sink && this.context.setSinkId) await this.context.setSinkId(sink);
    await this.context.audioWorklet.addModule("studio/assets/worklet.js");
    const options = { block, slack: Math.round(SLACK_S * rate) };
    this.node = new AudioWorkletNode(this.context, "vcae-live", { processorOptions: options, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => this.send(data);
    this.context.createMediaStreamSource(this.stream).connect(this.node).connect(this.context.destination);
    await this.context.resume();
    listDevices();
  }

  send({ wav, delay, lost, levels }) {
    levels.forEach((level, n) => this.show(n, Math.max(-60, Math.round(20 * Math.log10(level + 1e-6)))));
    if ((this.pending ?? 0) >= MOST_PENDING) { this.node.port.postMessage({ skipped: wav.length }); return; }
    this.pending = (this.pending ?? 0) + 1;
    const body = Int16Array.from(wav, (sample) => Math.max(-32768, Math.min(32767, Math.round(sample * 32767))));
    /* Blocks are sent one after the other, as each continues the one before it. */
    this.chain = (this.chain ?? Promise.resolve()).then(async () => {
      if (this.ended) return;
      const answer = await fetch(`studio/live/${this.getAttribute("session")}`, { method: "POST", body });
      if (!answer.ok) throw new Error(await answer.text());
      const made = new Int16Array(await answer.arrayBuffer());
      if (made.length) this.node.port.postMessage(Float32Array.from(made, (sample) => sample / 32767));
      this.pending--;
    }).catch((error) => { if (!this.ended) this.say(error.message, true); this.stop(); });
    if (delay) {
      const extra = (this.context.baseLatency || 0) + (this.context.outputLatency || 0);
      const ms = Math.round(1000 * (delay / this.context.sampleRate + extra));
      this.say(this.getAttribute("running").replace("{ms}", ms).replace("{lost}", lost));
    }
  }

  show(n, decibels) {
    this.meters[n].setAttribute("aria-valuenow", String(decibels));
    this.meters[n].firstElementChild.style.width = `${(100 * (decibels + 60)) / 60}%`;
  }

  say(text, wrong = false) {
    this.told.textContent = text;
    this.told.classList.toggle("vcae-error", wrong);
  }

  stop() {
    if (this.ended) return;
    this.ended = true;
    this.node?.port.postMessage("stop");
    this.stream?.getTracks().forEach((track) => track.stop());
    this.context?.close();
    /* After the block that is on its way. */
    const end = () => fetch(`studio/live/${this.getAttribute("session")}`, { method: "DELETE" }).catch(() => {});
    (this.chain ?? Promise.resolve()).then(end, end);
  }

  disconnectedCallback() { this.stop(); }
}
if (!customElements.get("vcae-live")) customElements.define("vcae-live", LiveCard);

/* The browser names devices once the microphone was allowed. */
async function listDevices() {
  const places = document.querySelectorAll("#live-devices select");
  if (!places.length || !navigator.mediaDevices?.enumerateDevices) return;
  const devices = await navigator.mediaDevices.enumerateDevices();
  for (const place of places) {
    const kind = place.name === "microphone" ? "audioinput" : "audiooutput", before = place.value;
    const found = devices.filter((device) => device.kind === kind && device.deviceId && device.deviceId !== "default");
    place.replaceChildren(new Option(place.dataset.usual, ""), ...found.map((device) => new Option(device.label || kind, device.deviceId)));
    place.value = found.some((device) => device.deviceId === before) ? before : "";
  }
}
navigator.mediaDevices?.addEventListener?.("devicechange", listDevices);
