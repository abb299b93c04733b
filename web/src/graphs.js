// The graphs of `vcae export onnx`, run by onnxruntime-web in this thread.

// Read a file that may be compressed: its first bytes say so.
async function unpacked(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} could not be loaded (${response.status}); load the page again`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export class Graphs {
  // `gpu` asks for WebGPU.
  static async load(base, gpu, progress) {
    const made = new Graphs();
    made.base = base;
    const settings = await fetch(`${base}models/vcae.json`);
    made.settings = await settings.json();
    made.device = gpu ? "gpu" : "cpu";
    made.ort = gpu ? await import("onnxruntime-web/webgpu") : await import("onnxruntime-web/wasm");
    const wasm = made.ort.env.wasm;
    wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency ?? 1) : 1;
    wasm.wasmBinary = (await unpacked(`${base}models/${made.device}.wasm.packed`)).buffer;
    made.threads = wasm.numThreads;
    made.sessions = {};
    const names = ["mel", "f0", "content", "speaker", "reference", "decoder", "correction", "vocoder", "watermark"];
    for (const [n, name] of names.entries()) {
      await made.session(name);
      progress((n + 1) / names.length);
    }
    return made;
  }

  async session(name) {
    if (!this.sessions[name]) {
      const heavy = ["content", "decoder", "vocoder"].includes(name);
      const executionProviders = this.device === "gpu" && heavy ? ["webgpu", "wasm"] : ["wasm"];
      const bytes = await unpacked(`${this.base}models/${name}.onnx.packed`);
      this.sessions[name] = await this.ort.InferenceSession.create(bytes, { executionProviders, logSeverityLevel: 3 });
    }
    return this.sessions[name];
  }

  // Inputs are pairs of values and shape; outputs are typed arrays.
  async run(name, inputs) {
    const session = await this.session(name);
    const feeds = {};
    for (const [key, [values, shape]] of Object.entries(inputs)) {
      const kind = values instanceof BigInt64Array ? "int64" : "float32";
      feeds[key] = new this.ort.Tensor(kind, values, shape);
    }
    const made = await session.run(feeds);
    return session.outputNames.map((key) => made[key].data);
  }
}

export const whole = (n) => [BigInt64Array.of(BigInt(n)), [1]];
export const number = (value) => [Float32Array.of(value), [1]];
