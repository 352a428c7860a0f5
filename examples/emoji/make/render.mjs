// Renders SVGs to square premultiplied RGBA frames: node render.mjs jobs.json frames.bin size first node_modules
// Frames are appended one by one, so that the caller can see which drawing crashed the renderer and go on after it.
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const [jobsPath, framesPath, sizeArgument, firstArgument, modules] = process.argv.slice(2);
const { Resvg } = createRequire(path.resolve(modules, "render.js"))("@resvg/resvg-js");
const size = Number(sizeArgument);

function render({ svg, width, height }) {
  const fitTo = { mode: width >= height ? "width" : "height", value: size };
  const image = new Resvg(svg, { fitTo, font: { loadSystemFonts: false } }).render();
  const frame = Buffer.alloc(size * size * 4);
  const left = (size - image.width) >> 1;
  const top = (size - image.height) >> 1;
  for (let row = 0; row < image.height; row++) {
    const start = row * image.width * 4;
    frame.set(image.pixels.subarray(start, start + image.width * 4), ((row + top) * size + left) * 4);
  }
  return frame;
}

const frames = fs.openSync(framesPath, "a");
for (const job of JSON.parse(fs.readFileSync(jobsPath, "utf8")).slice(Number(firstArgument))) {
  fs.writeSync(frames, render(job));
}
