// A WAV file, 16 bits, with a comment that says where it comes from.
export function wavBlob(samples, sampleRate, comment) {
  const text = new TextEncoder().encode(`${comment}\0`.padEnd(Math.ceil((comment.length + 1) / 2) * 2, "\0"));
  const note = 12 + 8 + text.length;
  const view = new DataView(new ArrayBuffer(44 + note + samples.length * 2));
  const word = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, view.byteLength - 8, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, sampleRate * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "LIST");
  view.setUint32(40, note - 8, true);
  word(44, "INFOICMT");
  view.setUint32(52, text.length, true);
  text.forEach((byte, i) => view.setUint8(56 + i, byte));
  const data = 36 + note;
  word(data, "data");
  view.setUint32(data + 4, samples.length * 2, true);
  samples.forEach((value, n) => view.setInt16(data + 8 + n * 2, Math.round(Math.min(Math.max(value, -1), 1) * 32767), true));
  return new Blob([view], { type: "audio/wav" });
}
