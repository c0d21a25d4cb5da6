//! The few shapes of Oracle's SQL that the project's statements have, as PostgreSQL's. This module says what kind of
//! statement a text is, which placeholders it has and how PostgreSQL writes it; what it does not know is refused.

pub(crate) mod calls;
mod define;
mod rewrite;
mod tokens;

pub(crate) use calls::call;
pub(crate) use define::{install, table_or_index};
pub(crate) use rewrite::rewritten;
pub(crate) use tokens::{Kind, Token, cut, dense};

use crate::errors::{OraError, Result};

/// OCI's numbers of kinds of statements.
pub(crate) const SELECT: u16 = 1;
pub(crate) const UPDATE: u16 = 2;
pub(crate) const DELETE: u16 = 3;
pub(crate) const INSERT: u16 = 4;
pub(crate) const CREATE: u16 = 5;
pub(crate) const DROP: u16 = 6;
pub(crate) const ALTER: u16 = 7;
pub(crate) const BEGIN: u16 = 8;
pub(crate) const DECLARE: u16 = 9;
pub(crate) const CALL: u16 = 10;
pub(crate) const MERGE: u16 = 16;

/// A text as far as it is known when it is prepared: OCI says nothing wrong before it is executed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Prepared {
    pub text: String,
    pub kind: u16,
    /// The names of all placeholders in order; in PL/SQL each name once, as OCI counts them there.
    pub names: Vec<String>,
    /// How many of them, at the end, take what the rows return.
    pub returning: usize,
}

impl Prepared {
    /// OCI's number of the command. The crate forgets the object types that it knows when one changes.
    pub(crate) fn function_code(&self) -> u16 {
        let second = dense(&cut(&self.text)).get(1).map(|token| token.text.to_uppercase());
        match (self.kind, second.as_deref()) {
            (INSERT, _) => 3,
            (SELECT, _) => 4,
            (UPDATE, _) => 5,
            (DELETE, _) => 9,
            (CREATE, Some("TABLE")) => 1,
            (CREATE, Some("TYPE" | "OR")) => 77,
            (DROP, Some("TYPE")) => 78,
            (ALTER, Some("TYPE")) => 80,
            _ => 0,
        }
    }
}

pub(crate) fn prepared(text: &str) -> Prepared {
    let tokens = dense(&cut(text));
    let first = tokens.first().map(|token| token.text.to_uppercase()).unwrap_or_default();
    let kind = match first.as_str() {
        "SELECT" | "WITH" | "(" => SELECT,
        "UPDATE" => UPDATE,
        "DELETE" => DELETE,
        "INSERT" => INSERT,
        "CREATE" => CREATE,
        "DROP" => DROP,
        "ALTER" => ALTER,
        "BEGIN" => BEGIN,
        "DECLARE" => DECLARE,
        "CALL" => CALL,
        "MERGE" => MERGE,
        _ => 0,
    };
    let binds = |tokens: &[Token]| -> Vec<String> {
        let binds = tokens.iter().filter(|token| token.kind == Kind::Bind);
        binds.map(|token| token.text.clone()).collect()
    };
    let mut names = Vec::new();
    let mut returning = 0;
    match kind {
        BEGIN | DECLARE | CALL => {
            for name in binds(&tokens) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        // A name in the definition of a trigger is no placeholder.
        CREATE | DROP | ALTER | 0 => {}
        _ => {
            names = binds(&tokens);
            if let Some(into) = into_of_returning(&tokens) {
                returning = binds(&tokens[into..]).len();
            }
        }
    }
    Prepared { text: text.to_owned(), kind, names, returning }
}

/// Where the INTO of a RETURNING stands.
fn into_of_returning(tokens: &[Token]) -> Option<usize> {
    let returning = tokens.iter().position(|token| token.is("RETURNING") || token.is("RETURN"))?;
    let into = tokens[returning..].iter().position(|token| token.is("INTO"))?;
    Some(returning + into)
}

/// A text as it is compared with what is known: its words without the blanks between them.
pub(crate) fn words_of(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// What an ALTER SESSION may set here: the project sets these, and PostgreSQL does them by itself or has them not.
const SESSION_SETTINGS: [&str; 12] = [
    "TIME_ZONE",
    "CURRENT_SCHEMA",
    "NLS_DATE_FORMAT",
    "NLS_TIMESTAMP_FORMAT",
    "NLS_TIMESTAMP_TZ_FORMAT",
    "NLS_NUMERIC_CHARACTERS",
    "NLS_LENGTH_SEMANTICS",
    "NLS_SORT",
    "NLS_COMP",
    "DDL_LOCK_TIMEOUT",
    "PLSQL_WARNINGS",
    "RESUMABLE_TIMEOUT",
];

pub(crate) fn alter_session(text: &str) -> Result<()> {
    let tokens = dense(&cut(text));
    let upper: Vec<String> = tokens.iter().map(|token| token.text.to_uppercase()).collect();
    let words: Vec<&str> = upper.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["ALTER", "SESSION", "SET", rest @ ..] => {
            for pair in rest.chunks(3) {
                let known =
                    pair.len() == 3 && pair[1] == "=" && SESSION_SETTINGS.contains(&pair[0]);
                if !known {
                    return Err(OraError::beyond(format!("setting {}", pair.join(" "))));
                }
            }
            Ok(())
        }
        ["ALTER", "SESSION", "ENABLE" | "DISABLE", "PARALLEL" | "RESUMABLE", ..] => Ok(()),
        _ => Err(OraError::beyond(text)),
    }
}
