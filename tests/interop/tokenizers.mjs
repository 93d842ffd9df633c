// node tokenizers.mjs TOOL FOLDER TEXT: ids and texts of the tool against those of Hugging Face's library for JavaScript, for
// every FOLDER/<name>/tokenizer.json, on parts of TEXT and on strings made to be hard. Prints a line for each tokenizer.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

const [tool, folder, textFile] = process.argv.slice(2);
const { Tokenizer } = await import(join(folder, "reference", "tokenizers.mjs"));
const HOSTILE = Number(process.env.HOSTILE ?? 2500), PROSE = 300;

function ask(tokenizer, questions) {
  const input = questions.map((q) => JSON.stringify(q) + "\n").join("");
  const done = spawnSync(tool, [tokenizer], { input, maxBuffer: 2 ** 30, encoding: "utf8" });
  if (done.status !== 0) throw new Error(`${tokenizer}: ${done.stderr}`);
  return done.stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
}

let seed = 12345;
function below(n) {  // xorshift32
  seed ^= seed << 13; seed ^= seed >>> 17; seed ^= seed << 5;
  return (seed >>> 0) % n;
}
const pick = (list) => list[below(list.length)];

// Characters on which both sides agree what they are. JavaScript counts U+FEFF as a space and U+0085 as none, which
// Unicode's White_Space, and so the library that the files are made for, does not; and it does not fold U+017F to s.
function alphabet(unassigned) {
  const ours = new Set();
  for (const [first, last] of unassigned) for (let c = first; c <= last; ++c) ours.add(c);
  const known = new Map();  // plane or block -> characters
  for (let c = 0; c < 0x110000; ++c) {
    if ((c >= 0xd800 && c < 0xe000) || [0x85, 0xfeff, 0x180e, 0x17f].includes(c)) continue;
    if (/\p{Cn}/u.test(String.fromCodePoint(c)) !== ours.has(c)) continue;
    const block = c < 0x3000 ? c >> 7 : 1000 + (c >> 14);
    if (!known.has(block)) known.set(block, []);
    known.get(block).push(c);
  }
  return [...known.values()];
}

const words = ["the", " sea", "Ship's", "I'LL", " we've", "DON'T", " naïve", "e\u0301", "12", "3456789", "3.14e-10", "\n", "\r\n", "\n\n\n",
  "\t", " ", "  ", "     ", "你好", "こんにちは", "カタカナ", "안녕하세요", "שלום", "مرحبا", "हिन्दी", "ภาษาไทย", "👩‍👩‍👧", "🇫🇷", "ﬁ", "①½", "\u00a0",
  "\u3000", "▁", "▁▁", "Ġ", "<", ">", "{", "}", "//", "/*", "!!!", "...", "$", "€", "_", "__init__", "camelCaseWord", "UPPER", "ÀÉ", "ß", "ǅ",
  "İ", "\0", "\x7f", "a\u0300\u0301\u0302", "<0x0A>", "<|im_start|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "[CLS]", "[SEP]", "<bos>",
  "<start_of_turn>", "<think>", "<|begin_of_text|>", "<｜User｜>", "<｜end▁of▁sentence｜>", "<|im_start", "|im_start|>", "<|start|>", "<s", "s>"];

function hostile(blocks) {
  const texts = ["a", " ", "  a", "a  ", "\n", " \n \n", ...words];
  for (const w of words) texts.push(w.repeat(300), "x".repeat(50) + w + "y".repeat(50));
  const character = () => String.fromCodePoint(pick(pick(blocks)));
  while (texts.length < HOSTILE) {
    let text = "";
    const kind = below(4), block = pick(blocks);
    for (let n = 1 + below(24); n > 0; --n)
      text += kind === 0 ? character() : kind === 1 ? String.fromCodePoint(pick(block)) : kind === 2 ? pick(words) :
        pick([character, () => pick(words), () => pick(words).repeat(below(9)), () => " ".repeat(below(5))])();
    texts.push(text);
  }
  const bytes = texts.map((t) => Buffer.from(t));
  for (let i = 0; i < bytes.length; i += 10)  // every tenth is broken
    for (let n = 1 + below(3); n > 0 && i > 5; --n) bytes[i][below(bytes[i].length)] = below(256);
  return bytes;
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
const beyond = /[\u{20000}-\u{2fa1f}]/u;  // ideographs of which the reference's BERT sees half
const usable = (text) => !/[\u0085\ufeff\u180e\u017f]/u.test(text);

function prose(path) {
  const text = readFileSync(path).subarray(0, 400000), parts = [];
  for (let i = 0; i < PROSE; ++i) parts.push(text.subarray((i * 1000) % text.length, ((i * 1000) % text.length) + 1000));
  return parts;
}

function reference(file, config, special) {
  const json = special ? file : { ...file, added_tokens: file.added_tokens.filter((t) => !t.special) };
  const t = new Tokenizer(json, config);
  return (text) => t.encode(text, { add_special_tokens: special }).ids;
}

function compare(name, questions, answers) {
  const at = join(folder, name);
  const file = JSON.parse(readFileSync(join(at, "tokenizer.json")));
  const configFile = join(at, "tokenizer_config.json");
  const config = existsSync(configFile) ? JSON.parse(readFileSync(configFile)) : {};
  const asPrompt = reference(file, config, true), asText = reference(file, config, false);
  const whole = new Tokenizer(file, config);
  const faults = [];
  let tokens = 0, spent = 0, bytes = 0;
  questions.forEach((question, i) => {
    const text = utf8.decode(question), ours = answers[i];
    if (text === "" || !usable(text) || (name === "bert" && beyond.test(text))) return;
    const start = process.cpuUsage();
    const prompt = asPrompt(text);
    const used = process.cpuUsage(start);
    if (i < PROSE) spent += used.user + used.system, bytes += question.length;
    tokens += prompt.length;
    const decoded = prompt.length ? whole.decode(prompt, { skip_special_tokens: true, clean_up_tokenization_spaces: false }) : "";
    const check = (what, wanted, found) => {
      if (JSON.stringify(wanted) !== JSON.stringify(found)) faults.push({ what, text, wanted, found });
    };
    check("prompt", prompt, ours.prompt);
    check("plain", asText(text), ours.plain);
    check("decoded", decoded, utf8.decode(Buffer.from(ours.decoded, "hex")));
  });
  const [{ mb_per_second: speed }] = ask(at, [{ time: textFile }]);
  console.log(`${name}: ${questions.length} texts, ${tokens} tokens, ${faults.length} differences; on prose ${speed.toFixed(1)} MB/s, ` +
    `the reference ${(bytes / spent).toFixed(2)} MB/s`);
  for (const f of faults.slice(0, 5)) console.log("  " + JSON.stringify(f).slice(0, 1500));
  return faults.length;
}

const names = readdirSync(folder).filter((n) => existsSync(join(folder, n, "tokenizer.json"))).sort();
const [unassigned] = ask(join(folder, names[0]), [{ unassigned: true }]);
const questions = [...prose(textFile), ...hostile(alphabet(unassigned))];
const asked = questions.map((q) => ({ hex: q.toString("hex") }));
let faults = 0;
const chosen = process.env.ONLY ? names.filter((n) => n === process.env.ONLY) : names;
for (const name of chosen) faults += compare(name, questions, ask(join(folder, name), asked));
process.exit(faults ? 1 : 0);
