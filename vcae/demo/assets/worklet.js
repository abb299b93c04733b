/* Between microphone and loudspeaker: collects blocks for the server, and plays what comes back. */
"use strict";

class Live extends AudioWorkletProcessor {
  constructor(options) {
    super();
    /* After a block arrives, playing begins `slack` samples later, so that one that comes late is not missed. */
    const { block, slack } = options.processorOptions;
    Object.assign(this, { block, slack, filled: 0, taken: 0, played: 0, lost: 0, waited: 0, started: false, over: false });
    this.next = new Float32Array(block);
    this.queue = [];
    this.queued = 0;
    this.at = 0;
    this.power = [0, 0];
    this.port.onmessage = ({ data }) => {
      if (data === "stop") { this.over = true; return; }
      if (data.skipped) { this.played += data.skipped; this.lost++; return; }
      this.queue.push(data);
      this.queued += data.length;
    };
  }

  process([input], [output]) {
    const given = input[0], out = output[0];
    for (let n = 0; n < out.length; n++) {
      this.collect(given ? given[n] : 0);
      out[n] = this.take();
    }
    for (let n = 1; n < output.length; n++) output[n].set(out);
    return !this.over;
  }

  collect(sample) {
    this.next[this.filled++] = sample;
    this.taken++;
    this.power[0] += sample * sample;
    if (this.filled < this.block) return;
    /* Output samples are numbered like the input samples that they come from, so this difference is the delay. */
    const delay = this.started ? this.taken - this.played : 0;
    const levels = this.power.map((power) => Math.sqrt(power / this.block));
    this.port.postMessage({ wav: this.next, delay, lost: this.lost, levels }, [this.next.buffer]);
    this.next = new Float32Array(this.block);
    this.filled = 0;
    this.power = [0, 0];
  }

  take() {
    if (!this.queued) {
      if (this.started) this.lost++;
      this.started = false;
      this.waited = 0;
      return 0;
    }
    if (!this.started && this.waited++ < this.slack) return 0;
    this.started = true;
    /* After a stall more is waiting than is needed: the oldest part is left out. */
    while (this.queued > this.slack + 2 * this.block) this.pop();
    const sample = this.pop();
    this.power[1] += sample * sample;
    return sample;
  }

  pop() {
    const sample = this.queue[0][this.at++];
    this.queued--;
    this.played++;
    if (this.at === this.queue[0].length) { this.queue.shift(); this.at = 0; }
    return sample;
  }
}
registerProcessor("vcae-live", Live);
