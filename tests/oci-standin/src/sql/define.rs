//! Tables and indexes. This module turns the project's own scripts into PostgreSQL's, so that the twin tables can't drift.
//!
//! What has no twin is left out: partitions, storage, virtual columns' laziness. Types, packages, queues and grants are
//! accepted and do nothing; named calls stand in for them.

use super::rewrite::types;
use super::tokens::{Kind, Token, closing, cut, dense, joined};
use crate::errors::{OraError, Result};

/// What a block that installs something does, each as a statement of its own. None if the block is no such.
pub(crate) fn install(block: &str) -> Result<Option<Vec<String>>> {
    let tokens = dense(&cut(block));
    let has = |word: &str| tokens.iter().any(|token| token.is(word));
    if tokens.iter().any(|token| token.kind == Kind::Bind) {
        return Ok(None);
    }
    let installs = ["IMMEDIATE", "DBMS_AQADM", "RAISE_APPLICATION_ERROR", "DBMS_RLS", "DBMS_STATS"];
    if !installs.iter().any(|word| has(word)) {
        return Ok(None);
    }
    let mut statements = Vec::new();
    for token in tokens.iter().filter(|token| token.kind == Kind::Text) {
        let text = token.text.replace("{local}", "");
        let inner = dense(&cut(&text));
        if inner.first().is_some_and(|first| first.is("CREATE") || first.is("DROP")) {
            statements.extend(table_or_index(&text)?);
        }
    }
    // The one fact that a script writes: the twin has no partitions.
    let decides =
        tokens.iter().any(|token| token.kind == Kind::Text && token.text == "partitioning");
    if decides && has("INSERT") {
        statements.push(
            "INSERT INTO sentinel_setting (name, value) VALUES ('partitioning', 'OFF') ON CONFLICT (name) DO NOTHING"
                .to_owned(),
        );
    }
    Ok(Some(statements))
}

/// The statements that make the twin of a table or an index; none for what needs no twin.
pub(crate) fn table_or_index(text: &str) -> Result<Vec<String>> {
    let tokens = dense(&cut(text));
    let word =
        |place: usize| tokens.get(place).map(|token| token.text.to_uppercase()).unwrap_or_default();
    match (word(0).as_str(), word(1).as_str(), word(2).as_str()) {
        ("CREATE", "TABLE", _) => table(&tokens, 2),
        ("CREATE", "GLOBAL", "TEMPORARY") => Err(OraError::beyond("a temporary table")),
        ("CREATE", "INDEX", _) => index(&tokens),
        ("CREATE", "UNIQUE", "INDEX") => index(&tokens),
        ("CREATE", "SEQUENCE", _) => {
            Ok(vec![format!("CREATE SEQUENCE {}", word(2).to_lowercase())])
        }
        ("CREATE", "VIEW", _) | ("CREATE", "OR", _) if word(1) == "VIEW" || word(3) == "VIEW" => {
            let mut tokens = tokens;
            types(&mut tokens);
            Ok(vec![joined(&tokens)])
        }
        (
            "CREATE",
            "TYPE" | "PACKAGE" | "CONTEXT" | "SYNONYM" | "TRIGGER" | "PUBLIC" | "OR" | "USER"
            | "ROLE",
            _,
        ) => Ok(Vec::new()),
        ("DROP", "TABLE" | "INDEX" | "SEQUENCE" | "VIEW", _) => {
            let end = tokens.iter().position(|token| token.is("PURGE") || token.is("CASCADE"));
            Ok(vec![joined(&tokens[..end.unwrap_or(tokens.len())])])
        }
        ("DROP", _, _)
        | ("ALTER", "PACKAGE" | "TYPE" | "INDEX", _)
        | ("GRANT" | "REVOKE" | "COMMENT", _, _) => Ok(Vec::new()),
        ("TRUNCATE", "TABLE", _) => Ok(vec![joined(&tokens)]),
        _ => Err(OraError::beyond(text)),
    }
}

fn table(tokens: &[Token], name: usize) -> Result<Vec<String>> {
    let Some(open) = tokens.iter().position(|token| token.is("(")) else {
        return Err(OraError::beyond("a table without columns"));
    };
    let end = closing(tokens, open);
    let table = joined(&tokens[name..open]).to_lowercase();
    let mut statements = Vec::new();
    let mut parts = Vec::new();
    for part in apart(&tokens[open + 1..end]) {
        let mut part = part.to_vec();
        if let Some(place) = part.iter().position(|token| token.is("IDENTITY")) {
            identity(&table, &mut part, place, &mut statements);
        }
        if let Some(using) = part.iter().position(|token| token.is("USING")) {
            part.truncate(using);
        }
        for token in &mut part {
            // PostgreSQL keeps what Oracle computes.
            if token.is("VIRTUAL") {
                "STORED".clone_into(&mut token.text);
            }
        }
        part.retain(|token| !["ENABLE", "VISIBLE", "INVISIBLE"].iter().any(|word| token.is(word)));
        if let Some(on) =
            part.windows(3).position(|three| three[0].is("DEFAULT") && three[1].is("ON"))
        {
            part.drain(on + 1..=on + 2);
        }
        super::rewrite::words(&mut part)?;
        types(&mut part);
        parts.push(joined(&part));
    }
    statements.push(format!("CREATE TABLE {table} ({})", parts.join(", ")));
    Ok(statements)
}

/// A number that the table gives by itself: from a sequence, because PostgreSQL's identities are no NUMBER.
fn identity(table: &str, part: &mut Vec<Token>, place: usize, statements: &mut Vec<String>) {
    let start = part.iter().position(|token| token.is("GENERATED")).unwrap_or(place);
    let mut end = place + 1;
    if part.get(end).is_some_and(|token| token.is("(")) {
        // An instance of Oracle keeps one cache for all its sessions, so numbers rise whoever asks. PostgreSQL would give
        // each session a cache of its own: here there is none.
        end = closing(part, end) + 1;
    }
    let column = part[0].text.to_lowercase();
    let sequence = format!("{table}_{column}_seq");
    statements.push(format!("CREATE SEQUENCE {sequence}"));
    let default = Token::new(Kind::Word, format!("DEFAULT nextval('{sequence}')"));
    part.splice(start..end.min(part.len()), [default]);
}

fn index(tokens: &[Token]) -> Result<Vec<String>> {
    let Some(open) = tokens.iter().position(|token| token.is("(")) else {
        return Err(OraError::beyond("an index without columns"));
    };
    let end = closing(tokens, open);
    let mut elements = Vec::new();
    for element in apart(&tokens[open + 1..end]) {
        let (element, order) = match element {
            [rest @ .., last] if last.is("DESC") || last.is("ASC") => (rest, last.text.as_str()),
            all => (all, ""),
        };
        let mut element = element.to_vec();
        super::rewrite::words(&mut element)?;
        let text = joined(&element);
        let plain = element.len() == 1;
        elements.push(if plain { format!("{text} {order}") } else { format!("({text}) {order}") });
    }
    let elements: Vec<&str> = elements.iter().map(|element| element.trim()).collect();
    Ok(vec![format!("{} ({})", joined(&tokens[..open]), elements.join(", "))])
}

/// Cut at the commas that are in no parentheses.
fn apart(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0_i32;
    tokens
        .split(|token| {
            depth += i32::from(token.is("(")) - i32::from(token.is(")"));
            depth == 0 && token.is(",")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{install, table_or_index};

    #[test]
    fn a_table_becomes_its_twin() {
        let text = "CREATE TABLE t (id NUMBER(19) GENERATED ALWAYS AS IDENTITY (CACHE 100) NOT NULL, \
            u RAW(16) GENERATED ALWAYS AS (HEXTORAW(a)) VIRTUAL, a VARCHAR2(50 CHAR) DEFAULT 'x' NOT NULL, \
            b TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP), c CLOB, p NUMBER(5,2), \
            CONSTRAINT t_pk PRIMARY KEY (id) USING INDEX LOCAL, CONSTRAINT t_c CHECK (c IS JSON)) \
            PARTITION BY RANGE (b) INTERVAL (NUMTODSINTERVAL(1, 'DAY')) (PARTITION p0 VALUES LESS THAN (1))";
        let expected = "CREATE TABLE t (id numeric (19) DEFAULT nextval('t_id_seq') NOT NULL, \
            u bytea GENERATED ALWAYS AS (HEXTORAW (a)) STORED, a varchar (50) DEFAULT 'x' NOT NULL, \
            b TIMESTAMP (6) DEFAULT SYS_EXTRACT_UTC (SYSTIMESTAMP()), c text, p numeric (5, 2), \
            CONSTRAINT t_pk PRIMARY KEY (id), CONSTRAINT t_c CHECK (is_json (c)))";
        assert_eq!(table_or_index(text).unwrap(), ["CREATE SEQUENCE t_id_seq", expected]);
    }

    #[test]
    fn an_index_on_an_expression_has_it_in_parentheses() {
        let text = "CREATE INDEX i ON t (a, CASE WHEN b = 'X' THEN c END, d DESC) LOCAL";
        let expected = "CREATE INDEX i ON t (a, (CASE WHEN b = 'X' THEN c END), d DESC)";
        assert_eq!(table_or_index(text).unwrap(), [expected]);
    }

    #[test]
    fn a_block_that_installs_is_told_from_one_that_calls() {
        let block = "BEGIN EXECUTE IMMEDIATE q'[CREATE TABLE t (a NUMBER)]'; EXCEPTION WHEN OTHERS THEN \
            IF SQLCODE != -955 THEN RAISE; END IF; END;";
        assert_eq!(install(block).unwrap().unwrap(), ["CREATE TABLE t (a numeric)"]);
        assert_eq!(install("BEGIN x.y(:a); END;").unwrap(), None);
    }
}
