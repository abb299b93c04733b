// Computes in a thread of its own, so that the page stays responsive. One message, one answer; progress in between.
import { convert, measureVoice } from "./convert.js";
import { Graphs } from "./graphs.js";

let graphs;

const work = {
  async load({ base, gpu }, progress) {
    try {
      graphs = await Graphs.load(base, gpu, progress);
    } catch (error) {
      if (!gpu) throw error;
      // A GPU that the runtime cannot use: the processor computes instead.
      graphs = await Graphs.load(base, false, progress);
    }
    const { settings, device, threads } = graphs;
    return { sampleRate: settings.mel.sample_rate, origin: settings.origin, device, threads };
  },
  async convert({ wav, clip, name, pitch }, progress) {
    const started = performance.now();
    const voice = await measureVoice(graphs, clip, name);
    const measured = performance.now();
    const made = await convert(graphs, wav, voice, { pitch }, progress);
    const seconds = wav.length / graphs.settings.mel.sample_rate;
    const spent = { voiceS: (measured - started) / 1000, convertS: (performance.now() - measured) / 1000 };
    return { ...made, ...spent, rtf: spent.convertS / seconds, speechS: voice.speechS, voiceDenoised: voice.denoised };
  },
};

self.onmessage = async ({ data: { id, what, given } }) => {
  try {
    const result = await work[what](given, (share) => self.postMessage({ id, share }));
    self.postMessage({ id, result });
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
};
