//! Cuts SQL into tokens that, put together again, are the same text. This module knows Oracle's literals and comments.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Space,
    Word,
    /// A name in double quotes.
    Quoted,
    Number,
    /// A literal in quotes, `q'[…]'` too; the text is the value.
    Text,
    /// A placeholder; the text is its name in capitals.
    Bind,
    Symbol,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub kind: Kind,
    pub text: String,
}

impl Token {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(crate) fn is(&self, word: &str) -> bool {
        match self.kind {
            Kind::Word => self.text.eq_ignore_ascii_case(word),
            Kind::Symbol => self.text == word,
            Kind::Space | Kind::Quoted | Kind::Number | Kind::Text | Kind::Bind => false,
        }
    }

    /// As it was written.
    pub(crate) fn source(&self) -> String {
        if self.kind == Kind::Bind { format!(":{}", self.text) } else { self.written() }
    }

    /// As PostgreSQL reads it. A placeholder has got its number before.
    pub(crate) fn written(&self) -> String {
        match self.kind {
            Kind::Text => format!("'{}'", self.text.replace('\'', "''")),
            Kind::Quoted => format!("\"{}\"", self.text.to_lowercase()),
            Kind::Space | Kind::Word | Kind::Number | Kind::Bind | Kind::Symbol => {
                self.text.clone()
            }
        }
    }
}

const SYMBOLS: [&str; 10] = ["||", "<=", ">=", "<>", "!=", ":=", "=>", "..", "**", "(+)"];

pub(crate) fn cut(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (token, length) = next(rest, first);
        rest = &rest[length..];
        tokens.push(token);
    }
    tokens
}

fn next(rest: &str, first: char) -> (Token, usize) {
    if first.is_whitespace() {
        return taken(rest, Kind::Space, |letter| letter.is_whitespace());
    }
    if rest.starts_with("--") {
        let end = rest.find('\n').unwrap_or(rest.len());
        return (Token::new(Kind::Space, " "), end);
    }
    if rest.starts_with("/*") {
        let end = rest.find("*/").map_or(rest.len(), |end| end + 2);
        return (Token::new(Kind::Space, " "), end);
    }
    if (first == 'q' || first == 'Q') && rest[1..].starts_with('\'') && rest.len() > 3 {
        let open = rest[2..].chars().next().unwrap_or('[');
        let close = match open {
            '[' => ']',
            '{' => '}',
            '(' => ')',
            '<' => '>',
            other => other,
        };
        let body = &rest[2 + open.len_utf8()..];
        let end = body.find(&format!("{close}'")).unwrap_or(body.len());
        let length = (2 + open.len_utf8() + end + close.len_utf8() + 1).min(rest.len());
        return (Token::new(Kind::Text, &body[..end]), length);
    }
    if first == '\'' {
        let mut value = String::new();
        let mut letters = rest.char_indices().skip(1).peekable();
        while let Some((at, letter)) = letters.next() {
            if letter != '\'' {
                value.push(letter);
            } else if letters.peek().is_some_and(|(_, next)| *next == '\'') {
                letters.next();
                value.push('\'');
            } else {
                return (Token::new(Kind::Text, value), at + 1);
            }
        }
        return (Token::new(Kind::Text, value), rest.len());
    }
    if first == '"' {
        let end = rest[1..].find('"').map_or(rest.len(), |end| end + 2);
        return (Token::new(Kind::Quoted, rest[..end].trim_matches('"')), end);
    }
    if first.is_ascii_digit() {
        return taken(rest, Kind::Number, |letter| letter.is_ascii_digit() || letter == '.');
    }
    if first.is_alphabetic() || first == '_' {
        return taken(rest, Kind::Word, in_a_name);
    }
    if first == ':'
        && rest[1..].starts_with(|letter: char| letter.is_alphanumeric() || letter == '_')
    {
        let (name, length) = taken(&rest[1..], Kind::Bind, in_a_name);
        return (Token::new(Kind::Bind, name.text.to_uppercase()), length + 1);
    }
    if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
        return (Token::new(Kind::Symbol, *symbol), symbol.len());
    }
    (Token::new(Kind::Symbol, first.to_string()), first.len_utf8())
}

fn in_a_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '$' | '#')
}

fn taken(rest: &str, kind: Kind, belongs: impl Fn(char) -> bool) -> (Token, usize) {
    let end = rest.find(|letter| !belongs(letter)).unwrap_or(rest.len());
    (Token::new(kind, &rest[..end]), end)
}

/// Without space and comments.
pub(crate) fn dense(tokens: &[Token]) -> Vec<Token> {
    tokens.iter().filter(|token| token.kind != Kind::Space).cloned().collect()
}

/// As one text, each token apart from the next where they would run together.
pub(crate) fn joined(tokens: &[Token]) -> String {
    let mut text = String::new();
    for (place, token) in tokens.iter().enumerate() {
        let tight = matches!(token.text.as_str(), "." | "," | ")")
            || place == 0
            || tokens[place - 1].text == "."
            || tokens[place - 1].text == "(";
        if !(tight && token.kind != Kind::Text) || text.is_empty() {
            text.push(' ');
        }
        text.push_str(&token.written());
    }
    text.trim().to_owned()
}

/// The place of the parenthesis that closes the one at `open`.
pub(crate) fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (place, token) in tokens.iter().enumerate().skip(open) {
        if token.is("(") {
            depth += 1;
        } else if token.is(")") {
            depth -= 1;
            if depth == 0 {
                return place;
            }
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::{Kind, cut, dense};

    #[test]
    fn literals_comments_and_placeholders_are_told_apart() {
        let tokens = dense(&cut("a.b = 'it''s :no' -- :x\n AND q'[x ':y']' /* z */ = :Name||:1"));
        let kinds: Vec<(Kind, &str)> =
            tokens.iter().map(|token| (token.kind, token.text.as_str())).collect();
        let expected = [
            (Kind::Word, "a"),
            (Kind::Symbol, "."),
            (Kind::Word, "b"),
            (Kind::Symbol, "="),
            (Kind::Text, "it's :no"),
            (Kind::Word, "AND"),
            (Kind::Text, "x ':y'"),
            (Kind::Symbol, "="),
            (Kind::Bind, "NAME"),
            (Kind::Symbol, "||"),
            (Kind::Bind, "1"),
        ];
        assert_eq!(kinds, expected);
    }
}
