// What the peers from npm share: packages in the user's cache, fetched the first time, and the answers.
import {execFileSync} from "node:child_process";
import {existsSync, mkdirSync, writeFileSync} from "node:fs";
import {createRequire} from "node:module";
import {homedir} from "node:os";
import path from "node:path";
import readline from "node:readline";

const folder = path.join(process.env.XDG_CACHE_HOME ?? path.join(homedir(), ".cache"), "sennit", "peers");

// A `require` that finds the packages.
export function fetched(packages) {
  const manifest = path.join(folder, "package.json");
  if (!packages.every((name) => existsSync(path.join(folder, "node_modules", name, "package.json")))) {
    mkdirSync(folder, {recursive: true});
    if (!existsSync(manifest)) writeFileSync(manifest, '{"private": true}\n');
    execFileSync("npm", ["install", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", ...packages],
                 {cwd: folder, stdio: ["ignore", "ignore", "inherit"]});
  }
  return createRequire(manifest);
}

export const now = () => Number(process.hrtime.bigint()) * 1e-9;

// Answers each line of standard input, a case's name, with what seconds(name) gives: a number or "none".
export async function answer(seconds) {
  console.log("ready");
  for await (const line of readline.createInterface({input: process.stdin})) console.log(await seconds(line.trim()));
}
