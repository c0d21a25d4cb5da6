// Reads a script the way SQL*Plus and `sentinel migrate` do: variables, commands, and statements between lines that
// hold only a slash. Everything keeps the line it stands on, so that a complaint can name it.

import fs from 'node:fs';

// What SQL*Plus and SQLcl understand themselves, outside a statement. `sentinel migrate` passes over these lines.
const COMMAND = /^(SET|WHENEVER|PROMPT|DEFINE|SHOW|EXIT|REM)\b/i;
const DEFINE = /^DEFINE ([a-z_]+) = (\S+)$/;
const VARIABLE = /&([A-Za-z_]+)(\.?)/g;

// A piece of a file: `line` is where its first character stands, counted from 1.
export function unit(file, line, text) {
  return { file, line, text };
}

// A statement file of the service: one statement, and no slash.
export function readStatement(file) {
  const raw = fs.readFileSync(file, 'utf8');
  return { file, raw, variables: new Map(), commands: [], units: [unit(file, 1, raw)], complaints: [] };
}

export function readScript(file) {
  const raw = fs.readFileSync(file, 'utf8');
  const script = { file, raw, variables: new Map(), commands: [], units: [], complaints: [] };
  const used = new Set();
  const complain = (line, text) => script.complaints.push({ file, line, text });
  let begun = null;
  raw.split('\n').forEach((original, index) => {
    const number = index + 1;
    const line = original.replace(VARIABLE, (whole, name, dot) => {
      used.add(name);
      if (!script.variables.has(name)) {
        complain(number, `&${name} has no DEFINE line above it`);
      }
      if (dot === '') complain(number, `&${name} needs its full stop: &${name}.`);
      return script.variables.get(name) ?? name;
    });
    const blank = line.trim() === '' || line.trimStart().startsWith('--');
    if (line === '/') {
      if (begun === null) complain(number, 'a slash that ends nothing runs the statement before it once more');
      else script.units.push(unit(file, begun.line, begun.lines.join('\n')));
      begun = null;
    } else if (begun !== null) {
      begun.lines.push(line);
    } else if (COMMAND.test(line)) {
      script.commands.push(line);
      const define = DEFINE.exec(original);
      if (define) script.variables.set(define[1], define[2]);
      else if (/^DEFINE\b/i.test(line)) complain(number, 'a DEFINE line reads: DEFINE name = value');
    } else if (!blank) {
      begun = { line: number, lines: [line] };
    }
  });
  if (begun !== null) complain(begun.line, 'this statement is not ended by a line that holds only a slash');
  for (const name of script.variables.keys()) {
    if (!used.has(name)) complain(1, `DEFINE ${name} is not used`);
  }
  return script;
}

// The text with comments and the insides of literals blanked out, its length and lines kept; and the literals.
export function withoutLiterals(text) {
  const code = [...text];
  const literals = [];
  const comments = [];
  const blank = (from, to) => {
    for (let at = from; at < to; at += 1) if (code[at] !== '\n') code[at] = ' ';
  };
  const closing = { '[': ']', '{': '}', '(': ')', '<': '>' };
  let at = 0;
  while (at < text.length) {
    if (text.startsWith('--', at)) {
      const end = text.indexOf('\n', at);
      const stop = end === -1 ? text.length : end;
      comments.push({ at, text: text.slice(at, stop) });
      blank(at, stop);
      at = stop;
    } else if (text.startsWith('/*', at)) {
      const end = text.indexOf('*/', at + 2);
      const stop = end === -1 ? text.length : end + 2;
      comments.push({ at, text: text.slice(at, stop) });
      blank(at, stop);
      at = stop;
    } else if (/^[qQ]'./.test(text.slice(at, at + 3)) && !/\w/.test(text[at - 1] ?? ' ')) {
      const last = (closing[text[at + 2]] ?? text[at + 2]) + "'";
      const end = text.indexOf(last, at + 3);
      const stop = end === -1 ? text.length : end;
      literals.push({ at: at + 3, text: text.slice(at + 3, stop), quoted: true });
      blank(at + 3, stop);
      at = stop + 2;
    } else if (text[at] === "'") {
      let stop = at + 1;
      while (stop < text.length && (text[stop] !== "'" || text[stop + 1] === "'")) {
        stop += text[stop] === "'" ? 2 : 1;
      }
      literals.push({ at: at + 1, text: text.slice(at + 1, stop), quoted: false });
      blank(at + 1, stop);
      at = stop + 1;
    } else {
      at += 1;
    }
  }
  return { code: code.join(''), literals, comments };
}

export function lineAt(text, at) {
  return text.slice(0, at).split('\n').length;
}

// The statements inside a unit: those in q'[..]' literals, which EXECUTE IMMEDIATE runs. A literal that begins with
// PARTITION BY is what the next CREATE TABLE may end in, so that one is given with it and without it.
export function embedded(piece) {
  const found = [];
  let partitions = null;
  for (const literal of withoutLiterals(piece.text).literals) {
    if (!literal.quoted) continue;
    const lead = literal.text.length - literal.text.trimStart().length;
    const text = literal.text.trim().replaceAll('{local}', '');
    const line = piece.line + lineAt(piece.text, literal.at + lead) - 1;
    if (/^PARTITION\s+BY\b/i.test(text)) {
      partitions = text;
    } else if (/^(CREATE|SELECT|INSERT|UPDATE|DELETE|MERGE|ALTER|DROP|GRANT)\b/i.test(text)) {
      found.push(unit(piece.file, line, text));
      if (partitions !== null && /^CREATE\s+TABLE\b/i.test(text)) {
        found.push(unit(piece.file, line, `${text}\n${partitions}`));
        partitions = null;
      }
    }
  }
  return found;
}
