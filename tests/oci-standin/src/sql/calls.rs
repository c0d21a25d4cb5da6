//! PL/SQL that only calls something. This module reads `BEGIN package.procedure(:a, p => :b); … END;` and nothing more.

use super::tokens::{Kind, Token, closing, cut, dense};
use super::{Prepared, prepared};
use crate::errors::{OraError, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Argument {
    /// The placeholder with this index.
    Bind(usize),
    Literal(Option<String>),
}

#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// `package.procedure` in lower case, without the owner, and its arguments; a name where one was given.
    Procedure {
        name: String,
        arguments: Vec<(Option<String>, Argument)>,
    },
    /// `OPEN :cursor FOR SELECT …`, with the placeholders of the query by index.
    Open {
        cursor: usize,
        query: Prepared,
        binds: Vec<usize>,
    },
    Commit,
    Rollback,
}

/// All calls of a block.
pub(crate) fn call(block: &Prepared) -> Result<Vec<Call>> {
    let tokens = dense(&cut(&block.text));
    let unknown = || {
        OraError::new(
            6550,
            format!("PL/SQL that the stand-in (not Oracle) does not know: {}", block.text),
        )
    };
    let body = match tokens.first() {
        Some(first) if first.is("BEGIN") => {
            let end = tokens.iter().rposition(|token| token.is("END")).ok_or_else(unknown)?;
            &tokens[1..end]
        }
        Some(first) if first.is("CALL") => &tokens[1..],
        _ => return Err(unknown()),
    };
    let mut calls = Vec::new();
    for statement in body.split(|token| token.is(";")) {
        match statement {
            [] => {}
            [one] if one.is("NULL") => {}
            [one] if one.is("COMMIT") => calls.push(Call::Commit),
            [one] if one.is("ROLLBACK") => calls.push(Call::Rollback),
            [open, cursor, as_for, query @ ..] if open.is("OPEN") && as_for.is("FOR") => {
                let text: Vec<String> = query.iter().map(Token::source).collect();
                let query = prepared(&text.join(" "));
                let binds = query.names.iter().map(|name| index(block, name)).collect();
                calls.push(Call::Open { cursor: index(block, &cursor.text), query, binds });
            }
            _ => calls.push(procedure(block, statement).ok_or_else(unknown)?),
        }
    }
    Ok(calls)
}

fn index(block: &Prepared, name: &str) -> usize {
    block.names.iter().position(|known| known == name).unwrap_or(usize::MAX)
}

fn procedure(block: &Prepared, tokens: &[Token]) -> Option<Call> {
    let open = tokens.iter().position(|token| token.is("(")).unwrap_or(tokens.len());
    // Names with a dot between each two.
    if tokens[..open].iter().enumerate().any(|(place, token)| (place % 2 == 1) != token.is(".")) {
        return None;
    }
    let words: Vec<String> =
        tokens[..open].iter().step_by(2).map(|token| token.text.to_lowercase()).collect();
    let [.., package, name] = words.as_slice() else { return None };
    let name = format!("{package}.{name}");
    let mut arguments = Vec::new();
    if open < tokens.len() {
        let end = closing(tokens, open);
        if end + 1 != tokens.len() {
            return None;
        }
        for argument in tokens[open + 1..end].split(|token| token.is(",")) {
            let (named, value) = match argument {
                [named, arrow, value @ ..] if arrow.is("=>") => {
                    (Some(named.text.to_lowercase()), value)
                }
                value => (None, value),
            };
            let value = match value {
                [one] if one.kind == Kind::Bind => Argument::Bind(index(block, &one.text)),
                [one] if one.is("NULL") => Argument::Literal(None),
                [one] if matches!(one.kind, Kind::Text | Kind::Number) => {
                    Argument::Literal(Some(one.text.clone()))
                }
                [one] if one.is("TRUE") || one.is("FALSE") => {
                    Argument::Literal(Some(one.text.clone()))
                }
                _ => return None,
            };
            arguments.push((named, value));
        }
    }
    Some(Call::Procedure { name, arguments })
}

#[cfg(test)]
mod tests {
    use super::super::prepared;
    use super::{Argument, Call, call};

    #[test]
    fn arguments_come_by_place_and_by_name() {
        let calls = call(&prepared(
            "BEGIN sentinel.Sentinel_Svc.dequeue_batch(:max, p_wait => :wait_s, p_cur => :cur); END;",
        ));
        let calls = calls.unwrap();
        let [Call::Procedure { name, arguments }] = calls.as_slice() else { panic!("{calls:?}") };
        assert_eq!(name, "sentinel_svc.dequeue_batch");
        let expected = [
            (None, Argument::Bind(0)),
            (Some("p_wait".to_owned()), Argument::Bind(1)),
            (Some("p_cur".to_owned()), Argument::Bind(2)),
        ];
        assert_eq!(arguments.as_slice(), expected);
    }

    #[test]
    fn a_cursor_may_be_opened_behind_a_call() {
        let block = prepared(
            "BEGIN sentinel_svc.set_tenant(:t); OPEN :c FOR SELECT a FROM t WHERE b = :t; END;",
        );
        let calls = call(&block).unwrap();
        let [_, Call::Open { cursor, query, binds }] = calls.as_slice() else {
            panic!("{calls:?}")
        };
        assert_eq!(
            (*cursor, query.text.as_str(), binds.as_slice()),
            (1, "SELECT a FROM t WHERE b = :T", [0].as_slice())
        );
    }

    #[test]
    fn any_other_block_is_refused() {
        for text in
            ["BEGIN IF 1 = 1 THEN x.y; END IF; END;", "DECLARE a NUMBER; BEGIN a := 1; END;"]
        {
            assert_eq!(call(&prepared(text)).unwrap_err().code, 6550, "{text}");
        }
    }
}
