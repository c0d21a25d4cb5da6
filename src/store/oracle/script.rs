//! SQL*Plus scripts, taken apart. This module reads one as SQL*Plus does, as far as our own scripts go: units that end
//! in a line of a lone slash, commands that mean nothing here, and substitution variables. It is pure.

use std::collections::BTreeMap;

/// One statement or block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Where it begins in its script, from 1.
    pub line: usize,
    /// What is sent: variables are replaced, and only a block keeps its last semicolon.
    pub text: String,
}

impl Unit {
    /// Its first line, for people.
    pub fn title(&self) -> &str {
        self.text.lines().next().unwrap_or_default().trim()
    }
}

/// Why a text is no script that can be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    #[error(
        "line {line}: the variable {name} has no value; give it one with --define {name}=VALUE"
    )]
    NoValue { line: usize, name: String },
    #[error("line {line}: what begins here is not ended by a line with a slash")]
    Unended { line: usize },
    #[error("{name} has a value that is no name and no word: {value:?}")]
    BadValue { name: String, value: String },
}

/// The words that begin a command of SQL*Plus and no statement.
const COMMANDS: [&str; 18] = [
    "WHENEVER", "PROMPT", "SPOOL", "SHOW", "COLUMN", "ACCEPT", "EXIT", "QUIT", "REM", "REMARK",
    "CONNECT", "UNDEFINE", "TTITLE", "BTITLE", "PAUSE", "HOST", "VARIABLE", "PRINT",
];

/// What stands after SET in a statement; after any other word it is a command.
const SET_STATEMENTS: [&str; 4] = ["ROLE", "TRANSACTION", "CONSTRAINT", "CONSTRAINTS"];

/// Reads a script. `given` are values that come before those of its own `DEFINE` lines.
///
/// # Errors
/// [`ScriptError`] names the line.
pub fn parse(script: &str, given: &BTreeMap<String, String>) -> Result<Vec<Unit>, ScriptError> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in given {
        values.insert(name.to_ascii_lowercase(), checked(name, value)?);
    }
    let given_names: Vec<String> = values.keys().cloned().collect();
    let mut units = Vec::new();
    let mut open: Option<(usize, Vec<String>)> = None;
    for (index, raw) in script.lines().enumerate() {
        let line = index + 1;
        if raw.trim() == "/" {
            if let Some((begin, lines)) = open.take() {
                units.extend(unit(begin, &lines));
            }
            continue;
        }
        if let Some((_, lines)) = &mut open {
            lines.push(replaced(raw, line, &values)?);
        } else {
            let trimmed = raw.trim();
            if trimmed.is_empty() || trimmed.starts_with("--") {
                continue;
            }
            if let Some((name, value)) = definition(trimmed) {
                let name = name.to_ascii_lowercase();
                if !given_names.contains(&name) {
                    let value = checked(&name, value)?;
                    values.insert(name, value);
                }
                continue;
            }
            if is_command(trimmed) {
                continue;
            }
            open = Some((line, vec![replaced(raw, line, &values)?]));
        }
        // A plain statement may also end in a semicolon, as it does for SQL*Plus.
        if let Some((begin, lines)) = &open
            && !is_block(&lines.join("\n"))
            && lines.last().is_some_and(|last| last.trim_end().ends_with(';'))
        {
            units.extend(unit(*begin, lines));
            open = None;
        }
    }
    match open {
        Some((line, lines)) if lines.iter().any(|text| !text.trim().is_empty()) => {
            Err(ScriptError::Unended { line })
        }
        _ => Ok(units),
    }
}

/// A value goes into statements as it is, so it may be a name or a word and nothing else.
fn checked(name: &str, value: &str) -> Result<String, ScriptError> {
    let value = value.trim();
    let is_plain = value.len() <= 128
        && value.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'#' | b'.' | b'-')
        });
    if is_plain {
        Ok(value.to_string())
    } else {
        Err(ScriptError::BadValue { name: name.to_string(), value: value.to_string() })
    }
}

/// `DEFINE name = value`.
fn definition(line: &str) -> Option<(&str, &str)> {
    let (word, rest) = line.split_once(char::is_whitespace)?;
    if !word.eq_ignore_ascii_case("DEFINE") {
        return None;
    }
    let (name, value) = rest.split_once('=')?;
    Some((name.trim(), value.trim()))
}

fn is_command(line: &str) -> bool {
    if line.starts_with('@') {
        return true;
    }
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default().trim_end_matches(';').to_ascii_uppercase();
    if first == "SET" {
        let second = words.next().unwrap_or_default().to_ascii_uppercase();
        return !SET_STATEMENTS.contains(&second.as_str());
    }
    first == "DEFINE" || COMMANDS.contains(&first.as_str())
}

/// Whether a text is PL/SQL, whose semicolons are its own.
fn is_block(text: &str) -> bool {
    let mut words = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .flat_map(str::split_whitespace)
        .map(str::to_ascii_uppercase);
    match words.next().as_deref() {
        Some("BEGIN" | "DECLARE" | "<<") => true,
        Some("CREATE") => {
            let kind = words.find(|word| {
                !matches!(word.as_str(), "OR" | "REPLACE" | "EDITIONABLE" | "NONEDITIONABLE")
            });
            matches!(
                kind.as_deref(),
                Some("PACKAGE" | "TYPE" | "FUNCTION" | "PROCEDURE" | "TRIGGER")
            )
        }
        _ => false,
    }
}

fn unit(line: usize, lines: &[String]) -> Option<Unit> {
    let text = lines.join("\n");
    let text = text.trim();
    let text = if is_block(text) { text } else { text.trim_end_matches(';').trim_end() };
    (!text.is_empty()).then(|| Unit { line, text: text.to_string() })
}

/// A line with its variables replaced: `&name`, `&&name`, and a point that ends the name.
fn replaced(
    text: &str,
    line: usize,
    values: &BTreeMap<String, String>,
) -> Result<String, ScriptError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let after = rest[at..].trim_start_matches('&');
        let length = after
            .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .unwrap_or(after.len());
        let (name, after) = after.split_at(length);
        if name.is_empty() {
            out.push('&');
            rest = after;
            continue;
        }
        match values.get(&name.to_ascii_lowercase()) {
            Some(value) => out.push_str(value),
            None => return Err(ScriptError::NoValue { line, name: name.to_string() }),
        }
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "-- Makes things.
DEFINE sentinel_owner = SENTINEL
SET DEFINE ON SQLBLANKLINES ON
WHENEVER SQLERROR EXIT FAILURE

ALTER SESSION SET CURRENT_SCHEMA = &sentinel_owner.
/

-- A block.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE t (x NUMBER)]';

  NULL;
END;
/
CREATE OR REPLACE PACKAGE &sentinel_owner..p AS
  c CONSTANT NUMBER := 1;
END p;
/
GRANT EXECUTE ON p TO &&sentinel_owner;
COMMIT;
SET ROLE NONE;
PROMPT done
";

    fn texts(script: &str) -> Vec<String> {
        parse(script, &BTreeMap::new()).unwrap().into_iter().map(|unit| unit.text).collect()
    }

    #[test]
    fn a_script_falls_into_its_units() {
        let units = texts(SCRIPT);
        assert_eq!(units.len(), 6, "{units:#?}");
        assert_eq!(units[0], "ALTER SESSION SET CURRENT_SCHEMA = SENTINEL");
        assert!(units[1].starts_with("BEGIN") && units[1].ends_with("END;"));
        assert!(units[1].contains("]';\n\n  NULL;"), "empty lines stay within a block");
        assert!(units[2].starts_with("CREATE OR REPLACE PACKAGE SENTINEL.p AS"));
        assert!(units[2].ends_with("END p;"));
        assert_eq!(units[3..], ["GRANT EXECUTE ON p TO SENTINEL", "COMMIT", "SET ROLE NONE"]);
        let lines: Vec<usize> =
            parse(SCRIPT, &BTreeMap::new()).unwrap().iter().map(|unit| unit.line).collect();
        assert_eq!(lines, [6, 10, 17, 21, 22, 23]);
    }

    #[test]
    fn a_value_that_is_given_comes_before_the_scripts_own() {
        let given = BTreeMap::from([("SENTINEL_OWNER".to_string(), "SCRATCH".to_string())]);
        let units = parse(SCRIPT, &given).unwrap();
        assert_eq!(units[0].text, "ALTER SESSION SET CURRENT_SCHEMA = SCRATCH");
        assert!(units[2].title().contains("PACKAGE SCRATCH.p"));
    }

    #[test]
    fn a_variable_without_a_value_and_a_value_that_is_no_word_are_refused() {
        let error = parse("SELECT &nobody FROM dual;\n", &BTreeMap::new()).unwrap_err();
        assert_eq!(error, ScriptError::NoValue { line: 1, name: "nobody".into() });
        for bad in ["A B", "x'y", "x;DROP", "x&y"] {
            let given = BTreeMap::from([("n".to_string(), bad.to_string())]);
            assert!(matches!(parse("", &given), Err(ScriptError::BadValue { .. })), "{bad}");
        }
    }

    #[test]
    fn a_unit_that_does_not_end_is_named() {
        let error = parse("COMMIT;\nBEGIN\n  NULL;\nEND;\n", &BTreeMap::new()).unwrap_err();
        assert_eq!(error, ScriptError::Unended { line: 2 });
    }

    #[test]
    fn an_ampersand_alone_stays() {
        assert_eq!(texts("SELECT 'a & b' FROM dual;\n"), ["SELECT 'a & b' FROM dual"]);
    }
}
