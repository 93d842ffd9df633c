// One thread: several wait for one another by spinning, which takes long on a busy machine.
// Prints, as JSON, what llama.cpp makes of some tokens: the logits after each, and the likeliest continuation.
//   node llama_cpp.mjs FOLDER_WITH_NODE_MODULES MODEL.gguf TOKEN,TOKEN,... CONTINUATION_LENGTH
// With "embed" in the place of a length: the text's embedding.
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";
import path from "node:path";

const [folder, modelPath, list, length] = process.argv.slice(2);
const entry = createRequire(path.join(folder, "package.json")).resolve("node-llama-cpp");
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(entry));
const tokens = list.split(",").map(Number);
const llama = await getLlama({gpu: false, build: "never", progressLogs: false, logLevel: LlamaLogLevel.error, maxThreads: 1});
const model = await llama.loadModel({modelPath, useMmap: true});
if (length === "embed") {
  const embedder = await model.createEmbeddingContext({contextSize: 128, batchSize: 128, threads: 1});
  const {vector} = await embedder.getEmbeddingFor(tokens);
  process.stdout.write(JSON.stringify({embedding: vector}) + "\n");
  process.exit(0);
}
const context = await model.createContext({
  contextSize: 512, batchSize: 512, threads: 1, flashAttention: false,
  experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"
});
const sequence = context.getSequence();

// The logits by token id, of the tokens that ask for them.
async function evaluate(input) {
  const results = await sequence.controlledEvaluate(input.map((t) => [t, {generateNext: {logits: true, options: {temperature: 0}}}]));
  return results.map((r) => {
    const row = [];
    for (const [token, logit] of r.next.logits) row[token] = logit;
    return row;
  });
}
const best = (row) => row.reduce((at, x, i) => (x > row[at] ? i : at), 0);

const logits = await evaluate(tokens);
const continuation = [];
for (let row = logits.at(-1); continuation.length < Number(length); ) {
  continuation.push(best(row));
  [row] = await evaluate([continuation.at(-1)]);
}
process.stdout.write(JSON.stringify({logits, continuation}) + "\n");
await llama.dispose();
