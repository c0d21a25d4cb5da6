// The grammar gate. Parses every statement of sql/oracle and applies the house rules, then sees to it that each stored
// bad sample is still refused, for the reason it is stored for.
//
//   node check.mjs            everything; exit 1 and file:line of each complaint if there is one
//   node check.mjs FILE...    these files only

import fs from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { parse } from './grammar.mjs';
import { checkBodies, checkLines, checkScript, checkUnit } from './rules.mjs';
import { embedded, readScript, readStatement } from './script.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, '../..');

function sqlFiles(folder) {
  if (!fs.existsSync(folder)) return [];
  return fs.readdirSync(folder).filter((name) => name.endsWith('.sql')).sort().map((name) => path.join(folder, name));
}

const isStatement = (file) => path.basename(path.dirname(file)) === 'statements';

let parsed = 0;

function complaintsOf(file) {
  const script = isStatement(file) ? readStatement(file) : readScript(file);
  const complaints = [...script.complaints, ...checkLines(file, script.raw).filter(({ text }) => !isStatement(file) || !text.includes('SQL*Plus'))];
  if (!isStatement(file)) complaints.push(...checkScript(script), ...checkBodies(script));
  for (const piece of script.units) {
    for (const one of [piece, ...embedded(piece)]) {
      parsed += 1;
      complaints.push(...parse(one), ...checkUnit(one));
    }
  }
  const said = new Set();
  return complaints
    .map(({ file: of, line, text }) => `${path.relative(root, of)}:${line}: ${text}`)
    .filter((text) => !said.has(text) && said.add(text));
}

const begun = Date.now();
const asked = process.argv.slice(2).map((file) => path.resolve(file));
const files = asked.length > 0 ? asked
  : [...sqlFiles(path.join(root, 'sql/oracle')), ...sqlFiles(path.join(root, 'sql/oracle/statements'))];
let failures = 0;

for (const file of files) {
  const complaints = complaintsOf(file);
  failures += complaints.length;
  for (const complaint of complaints) console.log(complaint);
}

// A sample says in its first line what it is refused for.
const samples = asked.length > 0 ? [] : sqlFiles(path.join(here, 'bad'));
for (const file of samples) {
  const wanted = /^-- refused: (.+)$/m.exec(fs.readFileSync(file, 'utf8'))?.[1];
  const complaints = complaintsOf(file);
  if (wanted === undefined || !complaints.some((complaint) => complaint.includes(wanted))) {
    failures += 1;
    console.log(`${path.relative(root, file)}:1: not refused for: ${wanted}; but: ${complaints.join(' | ') || 'nothing'}`);
  }
}

const seconds = ((Date.now() - begun) / 1000).toFixed(1);
console.log(`${files.length} files and ${samples.length} bad samples, ${parsed} statements parsed in ${seconds} s, ${failures} complaints`);
if (asked.length === 0 && (files.length < 7 || samples.length < 10)) {
  console.log('too few files: where are sql/oracle and its bad samples?');
  failures += 1;
}
process.exitCode = failures === 0 ? 0 : 1;
