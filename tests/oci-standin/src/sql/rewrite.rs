//! Queries and changes of rows. This module rewrites one statement, token by token.

use super::tokens::{Kind, Token, closing, cut, dense, joined};
use super::{INSERT, MERGE, Prepared, into_of_returning};
use crate::errors::{OraError, Result};

/// What PostgreSQL has not and nothing here replaces.
const REFUSED: [&str; 16] = [
    "CONNECT",
    "PIVOT",
    "UNPIVOT",
    "MODEL",
    "LISTAGG",
    "ROWID",
    "MATCH_RECOGNIZE",
    "XMLTABLE",
    "JSON_TABLE",
    "JSON_SERIALIZE",
    "JSON_OBJECT",
    "DBMS_LOCK",
    "SAMPLE",
    "FLASHBACK",
    "KEEP",
    "(+)",
];

/// Functions that Oracle calls without parentheses.
const FUNCTIONS: [&str; 4] = ["SYSTIMESTAMP", "SYSDATE", "SESSIONTIMEZONE", "DBTIMEZONE"];

pub(crate) fn rewritten(prepared: &Prepared) -> Result<String> {
    let mut tokens = dense(&cut(&prepared.text));
    if tokens.last().is_some_and(|token| token.is(";")) {
        return Err(OraError::new(933, "SQL command not properly ended (stand-in: a semicolon)"));
    }
    if let Some(refused) = tokens.iter().find(|token| REFUSED.iter().any(|word| token.is(word))) {
        return Err(OraError::beyond(format!("{} in {}", refused.text, prepared.text)));
    }
    numbered(&mut tokens);
    if let Some(into) = into_of_returning(&tokens) {
        tokens.truncate(into);
        if let Some(word) = tokens.iter_mut().find(|token| token.is("RETURN")) {
            word.text = "RETURNING".to_owned();
        }
    }
    words(&mut tokens)?;
    types(&mut tokens);
    if prepared.kind == MERGE {
        tokens = merge(tokens)?;
    }
    rows_limit(&mut tokens)?;
    aliases(&mut tokens);
    if prepared.kind == INSERT && tokens.iter().filter(|token| token.is("INTO")).count() > 1 {
        return Err(OraError::beyond("INSERT ALL"));
    }
    Ok(joined(&tokens))
}

/// Every placeholder gets a number of its own, whatever its name.
fn numbered(tokens: &mut [Token]) {
    let binds = tokens.iter_mut().filter(|token| token.kind == Kind::Bind);
    for (number, token) in binds.enumerate() {
        token.text = format!("${}", number + 1);
    }
}

pub(crate) fn words(tokens: &mut Vec<Token>) -> Result<()> {
    let mut place = 0;
    while place < tokens.len() {
        let after_dot = place > 0 && tokens[place - 1].is(".");
        let called = tokens.get(place + 1).is_some_and(|token| token.is("("));
        let token = &mut tokens[place];
        // An empty text is NULL.
        if token.kind == Kind::Text && token.text.is_empty() {
            *token = Token::new(Kind::Word, "NULL");
        } else if !after_dot && !called && FUNCTIONS.iter().any(|name| token.is(name)) {
            token.text.push_str("()");
        } else if token.is("MINUS") {
            "EXCEPT".clone_into(&mut token.text);
        } else if after_dot && (token.is("NEXTVAL") || token.is("CURRVAL")) {
            let call = token.text.to_lowercase();
            let sequence = tokens[place - 2].text.to_lowercase();
            tokens.splice(
                place - 2..=place,
                [Token::new(Kind::Word, format!("{call}('{sequence}')"))],
            );
            place -= 2;
        } else if tokens[place].is("IS") {
            is_json(tokens, place)?;
        }
        place += 1;
    }
    Ok(())
}

/// `column IS [NOT] JSON` becomes a call. PostgreSQL learns it with version 16.
fn is_json(tokens: &mut Vec<Token>, place: usize) -> Result<()> {
    let not = tokens.get(place + 1).is_some_and(|token| token.is("NOT"));
    let json = place + 1 + usize::from(not);
    if !tokens.get(json).is_some_and(|token| token.is("JSON")) {
        return Ok(());
    }
    let column = tokens[place - 1].clone();
    if column.kind != Kind::Word {
        return Err(OraError::beyond("IS JSON of an expression"));
    }
    let call = if not { "NOT is_json" } else { "is_json" };
    let new = [
        Token::new(Kind::Word, call),
        Token::new(Kind::Symbol, "("),
        column,
        Token::new(Kind::Symbol, ")"),
    ];
    tokens.splice(place - 1..=json, new);
    Ok(())
}

/// Names of types, wherever they stand: no column of the project has such a name.
pub(crate) fn types(tokens: &mut Vec<Token>) {
    let mut place = 0;
    while place < tokens.len() {
        let token = &tokens[place];
        let sized = tokens.get(place + 1).is_some_and(|token| token.is("("));
        let name = match token.text.to_uppercase().as_str() {
            _ if token.kind != Kind::Word => None,
            "VARCHAR2" | "NVARCHAR2" => Some("varchar"),
            "NUMBER" => Some("numeric"),
            "CLOB" | "NCLOB" => Some("text"),
            "BLOB" => Some("bytea"),
            "RAW" if sized => Some("bytea"),
            "DATE" if !tokens.get(place + 1).is_some_and(|token| token.kind == Kind::Text) => {
                Some("timestamp(0)")
            }
            _ => None,
        };
        if let Some(name) = name {
            tokens[place].text = name.to_owned();
            if sized {
                let end = closing(tokens, place + 1);
                if name == "bytea" {
                    tokens.drain(place + 1..=end);
                } else {
                    // VARCHAR2(50 CHAR): PostgreSQL counts letters anyway.
                    let mut inner = place + 2;
                    while inner < closing(tokens, place + 1) {
                        if tokens[inner].is("CHAR") || tokens[inner].is("BYTE") {
                            tokens.remove(inner);
                        } else {
                            inner += 1;
                        }
                    }
                }
            }
        }
        place += 1;
    }
}

/// `[AND] ROWNUM <= n` becomes the LIMIT of its query; in an UPDATE or DELETE it chooses and locks the rows first.
fn rows_limit(tokens: &mut Vec<Token>) -> Result<()> {
    while let Some(place) = tokens.iter().position(|token| token.is("ROWNUM")) {
        let compared = tokens.get(place + 1).is_some_and(|token| token.is("<=") || token.is("<"));
        let Some(limit) = tokens.get(place + 2).cloned().filter(|_| compared) else {
            return Err(OraError::beyond("ROWNUM but in ROWNUM <= n"));
        };
        let less = tokens[place + 1].is("<");
        let limit = if less { format!("({} - 1)", limit.written()) } else { limit.written() };
        if place == 0 || !(tokens[place - 1].is("AND") || tokens[place - 1].is("WHERE")) {
            return Err(OraError::beyond("ROWNUM but at the end of a WHERE"));
        }
        let and_follows = tokens.get(place + 3).is_some_and(|token| token.is("AND"));
        if tokens[place - 1].is("WHERE") && !and_follows {
            tokens.drain(place - 1..=place + 2);
        } else if and_follows {
            tokens.drain(place..=place + 3);
        } else {
            tokens.drain(place - 1..=place + 2);
        }
        let start = block_start(tokens, place - 1);
        let end = block_end(tokens, place - 1);
        if tokens[start].is("UPDATE") || tokens[start].is("DELETE") {
            limited_change(tokens, start, end, &limit)?;
        } else {
            let ends = ["FOR"];
            let end = (place - 1..end)
                .find(|at| {
                    depth_between(tokens, place - 1, *at) == 0
                        && ends.iter().any(|word| tokens[*at].is(word))
                })
                .unwrap_or(end);
            tokens
                .splice(end..end, [Token::new(Kind::Word, "LIMIT"), Token::new(Kind::Word, limit)]);
        }
    }
    Ok(())
}

fn depth_between(tokens: &[Token], from: usize, to: usize) -> i32 {
    tokens[from..to].iter().fold(0, |depth, token| match token.text.as_str() {
        "(" => depth + 1,
        ")" => depth - 1,
        _ => depth,
    })
}

fn block_start(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0;
    for place in (0..from).rev() {
        if tokens[place].is(")") {
            depth += 1;
        } else if tokens[place].is("(") {
            if depth == 0 {
                return place + 1;
            }
            depth -= 1;
        }
    }
    0
}

fn block_end(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0;
    for (place, token) in tokens.iter().enumerate().skip(from) {
        if token.is("(") {
            depth += 1;
        } else if token.is(")") {
            if depth == 0 {
                return place;
            }
            depth -= 1;
        }
    }
    tokens.len()
}

fn limited_change(tokens: &mut Vec<Token>, start: usize, end: usize, limit: &str) -> Result<()> {
    let table = match (tokens[start].is("UPDATE"), tokens.get(start + 1), tokens.get(start + 2)) {
        (true, Some(table), _) => start + 1 + usize::from(table.is("FROM")),
        (false, Some(from), Some(_)) if from.is("FROM") => start + 2,
        (false, Some(_), _) => start + 1,
        _ => return Err(OraError::beyond("this change with ROWNUM")),
    };
    let top = |word: &str| {
        (start..end).find(|at| tokens[*at].is(word) && depth_between(tokens, start, *at) == 0)
    };
    let returning = top("RETURNING").unwrap_or(end);
    let filter = top("WHERE").map_or(returning, |place| place + 1);
    let mut target = vec![tokens[table].clone()];
    let mut next = table + 1;
    while tokens.get(next).is_some_and(|token| token.is(".")) {
        target.extend_from_slice(&tokens[next..=next + 1]);
        next += 2;
    }
    if tokens
        .get(next)
        .is_some_and(|token| token.kind == Kind::Word && !token.is("SET") && !token.is("WHERE"))
    {
        target.push(tokens[next].clone());
    }
    let condition = joined(&tokens[filter..returning]);
    let condition = if condition.is_empty() { "true".to_owned() } else { condition };
    let target = joined(&target);
    let chosen = format!(
        "ctid = ANY(ARRAY(SELECT ctid FROM {target} WHERE {condition} LIMIT {limit} FOR UPDATE))"
    );
    let word = Token::new(Kind::Word, "WHERE");
    let from = if filter == returning && top("WHERE").is_none() { returning } else { filter - 1 };
    tokens.splice(from..returning, [word, Token::new(Kind::Word, chosen)]);
    Ok(())
}

/// A query in FROM needs a name here.
fn aliases(tokens: &mut Vec<Token>) {
    let mut place = 0;
    let mut number = 0;
    while place + 2 < tokens.len() {
        let opens = tokens[place + 1].is("(")
            && (tokens[place + 2].is("SELECT") || tokens[place + 2].is("WITH"));
        if opens && (tokens[place].is("FROM") || tokens[place].is("JOIN")) {
            let end = closing(tokens, place + 1);
            let named = tokens.get(end + 1).is_some_and(|token| {
                let clause = [
                    "WHERE", "ORDER", "GROUP", "FETCH", "OFFSET", "FOR", "JOIN", "LEFT", "LIMIT",
                    "UNION", "ON",
                ];
                token.kind == Kind::Quoted
                    || (token.kind == Kind::Word && !clause.iter().any(|word| token.is(word)))
            });
            if !named && end < tokens.len() {
                number += 1;
                tokens.insert(end + 1, Token::new(Kind::Word, format!("standin_q{number}")));
            }
        }
        place += 1;
    }
}

/// Oracle's MERGE: names of columns without the table, conditions in front.
fn merge(mut tokens: Vec<Token>) -> Result<Vec<Token>> {
    let at_top = |tokens: &[Token], word: &str, from: usize| {
        (from..tokens.len()).find(|at| tokens[*at].is(word) && depth_between(tokens, 0, *at) == 0)
    };
    let mut from = 0;
    while let Some(when) = at_top(&tokens, "WHEN", from) {
        let next = at_top(&tokens, "WHEN", when + 1).unwrap_or(tokens.len());
        let Some(then) = at_top(&tokens, "THEN", when).filter(|then| *then < next) else {
            return Err(OraError::beyond("a MERGE without THEN"));
        };
        if (then..next).any(|at| tokens[at].is("DELETE") && depth_between(&tokens, then, at) == 0) {
            return Err(OraError::beyond("DELETE in MERGE"));
        }
        let mut branch: Vec<Token> = tokens[when..next].to_vec();
        let then = then - when;
        if let Some(condition) = (then..branch.len())
            .find(|at| branch[*at].is("WHERE") && depth_between(&branch, 0, *at) == 0)
        {
            let mut moved = branch.split_off(condition);
            moved.splice(0..1, [Token::new(Kind::Word, "AND"), Token::new(Kind::Symbol, "(")]);
            moved.push(Token::new(Kind::Symbol, ")"));
            branch.splice(then..then, moved);
        }
        unqualified(&mut branch);
        let length = branch.len();
        tokens.splice(when..next, branch);
        from = when + length;
    }
    Ok(tokens)
}

/// `SET d.a = …, d.b = …` and `INSERT (d.a, …)` lose the alias in front of the columns that are written.
fn unqualified(branch: &mut Vec<Token>) {
    let Some(start) = branch.iter().position(|token| token.is("SET") || token.is("INSERT")) else {
        return;
    };
    let insert = branch[start].is("INSERT");
    let mut place = start + 1;
    let end_of_columns =
        |branch: &[Token]| if insert { closing(branch, start + 1) } else { branch.len() };
    let mut depth = 0;
    while place < end_of_columns(branch) {
        let opens = branch[place].is("(");
        depth += i32::from(opens) - i32::from(branch[place].is(")"));
        let target = match insert {
            true => depth == 1 && (opens || branch[place].is(",")),
            false => depth == 0 && (place == start + 1 || branch[place].is(",")),
        };
        let column = if insert || branch[place].is(",") { place + 1 } else { place };
        if target && branch.get(column + 1).is_some_and(|token| token.is(".")) {
            branch.drain(column..=column + 1);
        }
        place += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::prepared;
    use super::rewritten;

    fn text(oracle: &str) -> String {
        rewritten(&prepared(oracle)).unwrap()
    }

    #[test]
    fn each_placeholder_has_a_number() {
        assert_eq!(
            text("SELECT :a, :b FROM dual WHERE x = :a"),
            "SELECT $1, $2 FROM dual WHERE x = $3"
        );
    }

    #[test]
    fn what_rows_return_is_no_part_of_the_statement() {
        let prepared = prepared("UPDATE t SET n = n + :1 WHERE k = :2 RETURNING n INTO :3");
        assert_eq!((prepared.names.len(), prepared.returning), (3, 1));
        assert_eq!(
            rewritten(&prepared).unwrap(),
            "UPDATE t SET n = n + $1 WHERE k = $2 RETURNING n"
        );
    }

    #[test]
    fn a_limit_by_row_numbers_is_a_limit() {
        assert_eq!(
            text("SELECT a FROM t WHERE b = 1 AND ROWNUM <= :n"),
            "SELECT a FROM t WHERE b = 1 LIMIT $1"
        );
        assert_eq!(
            text("SELECT * FROM (SELECT a FROM t ORDER BY a) WHERE ROWNUM <= 5"),
            "SELECT * FROM (SELECT a FROM t ORDER BY a) standin_q1 LIMIT 5"
        );
        assert_eq!(
            text("DELETE FROM t WHERE a < :x AND ROWNUM <= 5000"),
            "DELETE FROM t WHERE ctid = ANY(ARRAY(SELECT ctid FROM t WHERE a < $1 LIMIT 5000 FOR UPDATE))"
        );
        assert_eq!(
            text("UPDATE t d SET a = 1 WHERE b = 2 AND ROWNUM <= 3 RETURNING a INTO :a"),
            "UPDATE t d SET a = 1 WHERE ctid = ANY(ARRAY(SELECT ctid FROM t d WHERE b = 2 LIMIT 3 FOR UPDATE)) RETURNING a"
        );
    }

    #[test]
    fn a_merge_has_its_conditions_in_front() {
        assert_eq!(
            text(
                "MERGE INTO t d USING (SELECT :1 k, :2 v FROM dual) s ON (d.k = s.k) WHEN MATCHED THEN UPDATE SET \
                 d.v = s.v, d.w = 1 WHERE d.v < s.v WHEN NOT MATCHED THEN INSERT (d.k, d.v) VALUES (s.k, s.v)"
            ),
            "MERGE INTO t d USING (SELECT $1 k, $2 v FROM dual) s ON (d.k = s.k) WHEN MATCHED AND (d.v < s.v) THEN \
             UPDATE SET v = s.v, w = 1 WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v)"
        );
    }

    #[test]
    fn an_empty_text_is_null_and_times_are_calls() {
        assert_eq!(
            text("SELECT NVL(a, '') FROM t WHERE b < SYS_EXTRACT_UTC(SYSTIMESTAMP) AND CAST(:x AS TIMESTAMP(6)) > c"),
            "SELECT NVL (a, NULL) FROM t WHERE b < SYS_EXTRACT_UTC (SYSTIMESTAMP()) AND CAST (CAST_X) > c"
                .replace("CAST_X", "$1 AS TIMESTAMP (6)")
        );
    }

    #[test]
    fn what_is_unknown_is_refused() {
        let refused = rewritten(&prepared("SELECT rowid FROM t")).unwrap_err();
        assert!(refused.message().contains("stand-in"), "{refused:?}");
    }
}
