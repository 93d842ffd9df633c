// ONNX Runtime as a peer of `sennit bench --peer onnxruntime`: node onnxruntime_peer.mjs THREADS
// Products in f32 (MatMul), and with weights of 4 bits (MatMulNBits in blocks of 32) for q4_0.
// npm's onnxruntime-node is fetched into the user's cache the first time.
import {answer, fetched, now} from "./npm.mjs";

const threads = Number(process.argv[2]);
const ort = fetched(["onnxruntime-node"])("onnxruntime-node");

// Protocol buffers, as far as onnx.proto needs them here.
const varint = (n) => {
  const bytes = [];
  for (; n > 127; n = Math.floor(n / 128)) bytes.push((n % 128) | 128);
  return Buffer.from([...bytes, n]);
};
const number = (field, n) => Buffer.concat([varint(field * 8), varint(n)]);
const bytes = (field, content) => {
  const body = Buffer.isBuffer(content) ? content : Buffer.from(content);
  return Buffer.concat([varint(field * 8 + 2), varint(body.length), body]);
};
const FLOAT = 1, UINT8 = 2;
const tensor = (name, type, dims, data) => Buffer.concat(
    [...dims.map((d) => number(1, d)), number(2, type), bytes(8, name),
     bytes(9, Buffer.from(data.buffer, data.byteOffset, data.byteLength))]);
const input = (name, dims) => {
  const shape = bytes(2, Buffer.concat(dims.map((d) => bytes(1, number(1, d)))));
  return Buffer.concat([bytes(1, name), bytes(2, bytes(1, Buffer.concat([number(1, FLOAT), shape])))]);
};
const attribute = (name, n) => bytes(5, Buffer.concat([bytes(1, name), number(3, n), number(20, 2)]));

function modelOf(format, m, k, n) {
  const floats = (count, scale) => Float32Array.from({length: count}, (_, i) => scale * Math.sin(1 + i));
  let node, weights;
  if (format === "f32") {
    node = ["x", "w"].map((name) => bytes(1, name)).concat([bytes(2, "y"), bytes(4, "MatMul")]);
    weights = [tensor("w", FLOAT, [k, n], floats(k * n, 0.1))];
  } else if (format === "q4_0") {
    const codes = Uint8Array.from({length: n * k / 2}, (_, i) => (i * 37) & 255);
    node = ["x", "w", "scales"].map((name) => bytes(1, name)).concat(
        [bytes(2, "y"), bytes(4, "MatMulNBits"), attribute("K", k), attribute("N", n), attribute("bits", 4),
         attribute("block_size", 32), attribute("accuracy_level", 4), bytes(7, "com.microsoft")]);
    weights = [tensor("w", UINT8, [n, k / 32, 16], codes), tensor("scales", FLOAT, [n * k / 32], floats(n * k / 32, 0.01))];
  } else {
    return null;
  }
  const graph = Buffer.concat([bytes(1, Buffer.concat(node)), bytes(2, "product"), ...weights.map((w) => bytes(5, w)),
                               bytes(11, input("x", [m, k])), bytes(12, input("y", [m, n]))]);
  const opsets = [["", 17], ["com.microsoft", 1]].map(([domain, version]) =>
      bytes(8, Buffer.concat([bytes(1, domain), number(2, version)])));
  return Buffer.concat([number(1, 8), bytes(7, graph), ...opsets]);
}

async function prepare(name) {
  const [kind, format, ...sizes] = name.split(" ");
  if (kind !== "product") return null;
  const [m, k, n] = sizes.map(Number), model = modelOf(format, m, k, n);
  if (!model) return null;
  const session = await ort.InferenceSession.create(model, {intraOpNumThreads: threads, graphOptimizationLevel: "all"});
  const x = new ort.Tensor("float32", Float32Array.from({length: m * k}, (_, i) => Math.cos(i)), [m, k]);
  return () => session.run({x});
}

const prepared = new Map();
await answer(async (name) => {
  if (!prepared.has(name)) {
    prepared.set(name, await prepare(name));
    await prepared.get(name)?.();  // once unmeasured
  }
  const run = prepared.get(name);
  if (!run) return "none";
  const start = now();
  await run();
  return now() - start;
});
