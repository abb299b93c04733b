import { defineConfig } from "vite";

// Relative paths, so that any folder of any static server will do.
export default defineConfig({
  base: "./",
  publicDir: "build/public",
  build: { outDir: "build/site", emptyOutDir: true, target: "es2022", assetsInlineLimit: 0 },
  worker: { format: "es" },
});
