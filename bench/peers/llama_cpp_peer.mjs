// llama.cpp as a peer of `sennit bench --model FILE.gguf --peers`: node llama_cpp_peer.mjs FILE.gguf THREADS
// Answers "prompt N" and "decode PROMPT N" with the seconds that reading the prompt, or choosing N tokens after it, took.
// npm's node-llama-cpp is fetched into the user's cache the first time.
import {pathToFileURL} from "node:url";

import {answer, fetched, now} from "./npm.mjs";

const [modelPath, threads] = process.argv.slice(2);
const require = fetched(["node-llama-cpp", "@node-llama-cpp/linux-x64"]);
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(require.resolve("node-llama-cpp")));
const llama = await getLlama({gpu: false, build: "never", progressLogs: false, logLevel: LlamaLogLevel.error, maxThreads: Number(threads)});
const model = await llama.loadModel({modelPath, useMmap: true});

// The whole prompt in one batch, with flash attention or without.
const contexts = new Map();
async function sequenceFor(tokens, flashAttention) {
  const key = `${tokens} ${flashAttention}`;
  if (!contexts.has(key)) {
    const context = await model.createContext({contextSize: tokens + 8, batchSize: tokens, threads: Number(threads), flashAttention});
    contexts.set(key, context.getSequence());
  }
  const sequence = contexts.get(key);
  await sequence.clearHistory();
  return sequence;
}

const prompt = (n) => Array.from({length: n}, (_, i) => (37 * i * i + 11 * i + 5) % 256 + 3);

const kinds = {
  async prompt(flash, n) {
    const sequence = await sequenceFor(n, flash);
    const start = now();
    await sequence.controlledEvaluate(prompt(n).map((t, i) => (i + 1 < n ? t : [t, {generateNext: {token: true, options: {temperature: 0}}}])));
    return now() - start;
  },
  async decode(flash, read, n) {
    const sequence = await sequenceFor(read + n, flash);
    let chosen = 0, start = 0;
    for await (const token of sequence.evaluate(prompt(read), {temperature: 0, yieldEogToken: true})) {
      if (chosen === 0) start = now();  // the first comes with the prompt
      if (chosen++ === n) break;
    }
    return chosen > n ? now() - start : NaN;
  }
};

// Its best setting: the first time a thing is asked for, both are tried and the faster one is kept.
const flashIsFaster = new Map();
async function seconds(name) {
  const [kind, ...sizes] = name.split(" ");
  if (!kinds[kind]) return "none";
  const run = (flash) => kinds[kind](flash, ...sizes.map(Number));
  if (!flashIsFaster.has(name)) {
    const off = await run(false), on = await run(true);
    flashIsFaster.set(name, on <= off);
    return Math.min(on, off);
  }
  return run(flashIsFaster.get(name));
}

await answer(seconds);
await llama.dispose();
