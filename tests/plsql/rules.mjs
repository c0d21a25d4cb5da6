// The house rules: mistakes that the grammar lets pass, each of which some version of Oracle, SQL*Plus or the crate
// would punish. A rule looks at the code alone (comments and literals blanked out) unless it says otherwise.

import { lineAt, withoutLiterals } from './script.mjs';

// Nowhere, in no statement.
const NEVER = [
  [/::/, ':: is PostgreSQL; write CAST'],
  [/\bON\s+CONFLICT\b/i, 'ON CONFLICT is PostgreSQL; write MERGE'],
  [/\bIF\s+(NOT\s+)?EXISTS\s+\w/i, 'IF (NOT) EXISTS needs 23ai; make it in a block and pass over -955'],
  [/\bUSING\s+OSON\b/i, 'USING OSON is no syntax of any version'],
  [/\bPARTITION\s+BY\s+LIST\b[^;]*\bAUTOMATIC\b/i, 'automatic lists make a partition, by DDL, for each new tenant'],
  [/\bGLOBAL\s+TEMPORARY\b/i, 'rows of a temporary table are seen by one session only'],
  [/\bCREATE\s+OR\s+REPLACE\s+TYPE\b/i, 'a type that a queue table uses cannot be replaced (ORA-02303)'],
  [/\b(COMPRESS\s+HIGH|DISABLE\s+STORAGE\s+IN\s+ROW|PCTUSED|CLM_DATA)\b/i, 'storage that needs a licence, does harm or may not exist'],
  [/\bDBMS_AQADM\s*\.\s*GRANT_QUEUE_PRIVILEGE\b/i, 'nobody gets rights on the queue itself: sentinel_pkg and sentinel_svc hold them'],
  // How old a transaction is can only be said by the clock and the zone that V$TRANSACTION goes by.
  [/\b(SYSDATE(?!\s*-\s*\w+\.start_date\b)|CURRENT_TIMESTAMP|LOCALTIMESTAMP|CURRENT_DATE)\b/i, 'times are UTC: SYS_EXTRACT_UTC(SYSTIMESTAMP)'],
  [/(?<!SYS_EXTRACT_UTC\(\s*)\bSYSTIMESTAMP\b/i, 'times are UTC: SYS_EXTRACT_UTC(SYSTIMESTAMP)'],
  [/(?<!RAWTOHEX\(\s*)\bSYS_GUID\b/i, 'SYS_GUID() is RAW: RAWTOHEX(SYS_GUID())'],
  [/\bNVARCHAR2\b/i, 'an NVARCHAR2 beside a VARCHAR2 column disables its indexes'],
  [/\bTIMESTAMP\s*(\(\d\))?\s+WITH\s+(LOCAL\s+)?TIME\s+ZONE\b/i, 'times are TIMESTAMP(6) in UTC, without a zone'],
  [/\bSELECT\s+\*/i, 'SELECT * means another thing after the next column'],
  [/\bDBMS_LOCK\s*\.\s*SLEEP\b/i, 'nothing waits in the database'],
  [/(?<!BULK\s+COLLECT\s+INTO\s+[\w.]+\s+)\bLIMIT\b/i, 'LIMIT is not Oracle; write FETCH FIRST n ROWS ONLY'],
];

// With literals, since these are about what stands in them.
const NEVER_WITH_LITERALS = [
  [/\bINTERVAL\s+'[^']*[A-Za-z][^']*'/i, "INTERVAL '30 seconds' is PostgreSQL; write NUMTODSINTERVAL(30, 'SECOND')"],
  [/\bLOB\s*\(\s*PAYLOAD\s*\)/i, 'the payload of a queue table is USER_DATA.PAYLOAD'],
];

// In what a table or a type is made of.
const COLUMNS = [
  [/\bVARCHAR2\s*\(\s*\d+\s*(BYTE\s*)?\)/i, 'columns count characters: VARCHAR2(n CHAR)'],
  [/\bVARCHAR\s*\(/i, 'VARCHAR2, not VARCHAR'],
  [/^\s*\w+\s+JSON\b/im, '19c knows no JSON type and the crate cannot fetch it: CLOB CHECK (column IS JSON)'],
  [/^\s*\w+\s+BOOLEAN\b/im, 'a BOOLEAN column needs 23ai: NUMBER(1)'],
  [/\bTIMESTAMP\b(?!\s*\(6\))(?!\s*')/i, 'times have six digits: TIMESTAMP(6)'],
  [/\bDATE\b/i, 'a DATE has no fractions and no zone: TIMESTAMP(6)'],
  [/\bAS\s+IDENTITY\b(?!\s*\(\s*CACHE\b)/i, 'an identity without (CACHE n) takes a lock for every twenty rows'],
  [/\bREFERENCES\b/i, 'events come out of order, so a parent may be missing: no foreign keys'],
];

// What SQL*Plus does with a line before the database sees it.
const LINES = [
  [/[^\x20-\x7e]/, 'only printable ASCII: SQL*Plus reads a script in the character set of its user'],
  [/^(?!\s*--).*-$/, 'SQL*Plus joins a line that ends in - with the next one'],
  [/--.*;\s*$/, 'SQL*Plus takes a ; at the end of a comment for the end of the statement'],
  [/\/\*/, 'a comment is --: SQL*Plus runs the last statement again at a line that begins with a slash'],
  [/\s$/, 'blanks at the end of the line'],
];

function matches(file, first, text, rules) {
  const found = [];
  for (const [pattern, complaint] of rules) {
    const global = new RegExp(pattern.source, `${pattern.flags.replace('g', '')}g`);
    for (const match of text.matchAll(global)) {
      // The line of the first word, not of the line break before it.
      const at = match.index + match[0].length - match[0].trimStart().length;
      found.push({ file, line: first + lineAt(text, at) - 1, text: complaint });
    }
  }
  return found;
}

export function checkLines(file, raw) {
  return raw.split('\n').flatMap((line, index) =>
    LINES.filter(([pattern]) => pattern.test(line)).map(([, text]) => ({ file, line: index + 1, text })));
}

export function checkUnit(piece) {
  const { code, comments } = withoutLiterals(piece.text);
  const complaints = matches(piece.file, piece.line, code, NEVER);
  let uncommented = piece.text;
  for (const { at, text } of comments) {
    uncommented = uncommented.slice(0, at) + ' '.repeat(text.length) + uncommented.slice(at + text.length);
  }
  complaints.push(...matches(piece.file, piece.line, uncommented, NEVER_WITH_LITERALS));
  if (/^\s*CREATE\s+(TABLE|TYPE)\b/i.test(code)) complaints.push(...matches(piece.file, piece.line, code, COLUMNS));
  if (/^\s*CREATE\s+(OR\s+REPLACE\s+)?(PACKAGE(?!\s+BODY)|FUNCTION|PROCEDURE)\b/i.test(code) && !/\bAUTHID\b/i.test(code)) {
    complaints.push({ file: piece.file, line: piece.line, text: 'say with whose rights it runs: AUTHID DEFINER' });
  }
  complaints.push(...checkEnds(piece, code), ...checkState(piece, code), ...checkCommits(piece, code));
  return complaints;
}

// The subprograms of a unit in the order they end: name, where it begins and ends, and its head up to IS.
function subprograms(code) {
  const found = [];
  const open = [];
  const complaints = [];
  const token = /\b(PROCEDURE|FUNCTION)\s+([\w.$]+)|\bPACKAGE\s+BODY\s+([\w.$]+)|\bPACKAGE\s+(\w+)\s+(?=AUTHID\b|AS\b|IS\b)|\bEND\s+(?!(?:IF|LOOP|CASE)\b)(\w+)\s*;/gi;
  for (const match of code.matchAll(token)) {
    const [, kind, subprogram, body, spec, ended] = match;
    if (kind) {
      // A declaration ends in a semicolon before any IS or AS; a grant or ACCESSIBLE BY is no declaration at all.
      const rest = code.slice(match.index);
      const head = /^[^;]*?(?=;|\b(?:IS|AS)\b)/i.exec(rest);
      const declared = head === null || rest[head[0].length] === ';';
      const entry = { name: subprogram.split('.').pop(), at: match.index, head: head?.[0] ?? '', declared };
      if (declared) found.push(entry);
      else open.push(entry);
    } else if (body ?? spec) {
      open.push({ name: (body ?? spec).split('.').pop(), at: match.index, head: '', package: true });
    } else {
      const last = open.pop();
      if (last === undefined || last.name.toLowerCase() !== ended.toLowerCase()) {
        const text = `END ${ended} ends ${last === undefined ? 'nothing' : last.name}`;
        complaints.push({ at: match.index, text });
        if (last !== undefined) open.push(last);
      } else {
        found.push({ ...last, end: match.index, depth: open.length, text: code.slice(last.at, match.index) });
      }
    }
  }
  for (const left of open) complaints.push({ at: left.at, text: `${left.name} does not end in END ${left.name}` });
  return { found, complaints };
}

function checkEnds(piece, code) {
  return subprograms(code).complaints.map(({ at, text }) => (
    { file: piece.file, line: piece.line + lineAt(code, at) - 1, text }));
}

// A package that callers hold open has no state, or replacing it would raise ORA-04068 in their sessions.
// sentinel_state is where state lives.
function checkState(piece, code) {
  const head = /^\s*CREATE\s+OR\s+REPLACE\s+PACKAGE\s+(?:BODY\s+)?(\w+)/i.exec(code);
  if (head === null || head[1].toLowerCase() === 'sentinel_state') return [];
  const allowed = /^ {2}(c_\w+\s+CONSTANT\s+\w+(\([^)]*\))?\s*:=|TYPE\b|PRAGMA\b|PROCEDURE\b|FUNCTION\b|BEGIN\b|EXCEPTION\b|END\b|\)|e_\w+\s+EXCEPTION;)/;
  const complaints = [];
  code.split('\n').forEach((line, index) => {
    if (/^ {2}\S/.test(line) && !allowed.test(line)) {
      complaints.push({ file: piece.file, line: piece.line + index, text: 'a package keeps no state: only constants, types and subprograms' });
    }
  });
  for (const match of code.matchAll(/^ {2}c_\w+\s+CONSTANT\s+[^:]*:=\s*([^;]*);/gm)) {
    if (!/^('\s*'|\d+|TRUE|FALSE)$/.test(match[1].trim())) {
      complaints.push({ file: piece.file, line: piece.line + lineAt(code, match.index) - 1, text: 'a constant that is no literal is state' });
    }
  }
  return complaints;
}

// A package never ends its caller's transaction.
function checkCommits(piece, code) {
  if (!/^\s*CREATE\s+OR\s+REPLACE\s+PACKAGE\s+BODY\b/i.test(code)) return [];
  const { found } = subprograms(code);
  return found
    .filter((one) => !one.package && !one.declared && /\b(COMMIT|ROLLBACK)\b/i.test(one.text))
    .filter((one) => !/PRAGMA\s+AUTONOMOUS_TRANSACTION/i.test(one.text))
    .map((one) => ({
      file: piece.file, line: piece.line + lineAt(code, one.at) - 1,
      text: `${one.name} ends a transaction and is not autonomous`,
    }));
}

function shape(head) {
  return head.replace(/\s+/g, ' ').replace(/\s*([(),])\s*/g, '$1').replace(/ AUTHID \w+/i, '').trim().toLowerCase();
}

// Each subprogram that a package declares has a body with the same parameters.
export function checkBodies(script) {
  const specs = new Map();
  const bodies = new Map();
  for (const piece of script.units) {
    const { code } = withoutLiterals(piece.text);
    const head = /^\s*CREATE\s+OR\s+REPLACE\s+PACKAGE\s+(BODY\s+)?(\w+)/i.exec(code);
    if (head === null) continue;
    const all = subprograms(code).found.filter((one) => !one.package);
    (head[1] ? bodies : specs).set(head[2].toLowerCase(), { piece, code, all });
  }
  const complaints = [];
  for (const [name, { piece, code, all }] of specs) {
    const body = bodies.get(name);
    for (const one of all) {
      const twin = body?.all.find((other) => !other.declared && other.name.toLowerCase() === one.name.toLowerCase());
      const line = piece.line + lineAt(code, one.at) - 1;
      const whole = `${name}.${one.name}`;
      if (twin === undefined) complaints.push({ file: piece.file, line, text: `${whole} has no body (PLS-00323)` });
      else if (shape(twin.head) !== shape(one.head)) {
        complaints.push({ file: piece.file, line, text: `${whole} has other parameters in its body` });
      }
    }
  }
  return complaints;
}

// What a script of its own begins with, so that an error stops it.
export function checkScript(script) {
  const complaints = [];
  for (const wanted of ['WHENEVER OSERROR EXIT FAILURE', 'WHENEVER SQLERROR EXIT FAILURE ROLLBACK']) {
    if (!script.commands.includes(wanted)) complaints.push({ file: script.file, line: 1, text: `says nowhere: ${wanted}` });
  }
  if (!script.commands.some((command) => /^SET\b.*\bDEFINE ON\b.*\bSQLBLANKLINES ON\b/.test(command))) {
    complaints.push({ file: script.file, line: 1, text: 'says nowhere: SET DEFINE ON SQLBLANKLINES ON' });
  }
  const creates = script.units.some((piece) => /^CREATE\s+(OR\s+REPLACE\s+)?(PACKAGE|TYPE|FUNCTION)\b/im.test(piece.text));
  if (creates && !/(all|dba)_errors/.test(script.raw)) {
    complaints.push({ file: script.file, line: 1, text: 'compile errors are warnings: look into all_errors and raise' });
  }
  return complaints;
}
