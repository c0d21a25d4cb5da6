//! Reads JSON text and writes its canonical form. This module is the one pass that all of it takes.
//!
//! It checks the grammar of RFC 8259 as it goes, and calls itself for what is nested, at most [`DEPTH_MAX`] deep.

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::{CanonicalError, DEPTH_MAX, number, utf8};

/// A member of an object that is being written: where it stands in the output.
#[derive(Debug, Clone, Copy)]
struct Placed {
    /// Its opening quote.
    start: usize,
    /// Behind its name's closing quote.
    name_end: usize,
    end: usize,
    /// The name holds a backslash, so that its bytes are not in order as they stand.
    escaped: bool,
}

/// Reads one text and writes its canonical form.
pub(super) struct Writer<'t> {
    text: &'t [u8],
    pub(super) at: usize,
    pub(super) out: Vec<u8>,
    /// Members of all objects that are open, the innermost last.
    members: SmallVec<[Placed; 32]>,
    /// Where the members of an object are put in order.
    scratch: Vec<u8>,
    /// How many arrays and objects are open.
    pub(super) depth: usize,
}

impl<'t> Writer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text: text.as_bytes(),
            at: 0,
            out: Vec::with_capacity(text.len() + 16),
            members: SmallVec::new(),
            scratch: Vec::new(),
            depth: 0,
        }
    }

    /// One value and nothing but blanks around it.
    pub(super) fn document(&mut self) -> Result<(), CanonicalError> {
        self.blanks();
        self.value()?;
        self.end()
    }

    pub(super) fn end(&mut self) -> Result<(), CanonicalError> {
        self.blanks();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.broken("something after the end")),
        }
    }

    pub(super) fn value(&mut self) -> Result<(), CanonicalError> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            Some(_) => Err(self.broken("no value")),
            None => Err(self.broken("the end where a value should be")),
        }
    }

    fn nested(
        &mut self,
        write: fn(&mut Self) -> Result<(), CanonicalError>,
    ) -> Result<(), CanonicalError> {
        if self.depth == DEPTH_MAX {
            return Err(CanonicalError::TooDeep);
        }
        self.depth += 1;
        write(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self) -> Result<(), CanonicalError> {
        self.take();
        self.blanks();
        if self.peek() == Some(b']') {
            self.take();
            return Ok(());
        }
        loop {
            self.blanks();
            self.value()?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.take(),
                Some(b']') => {
                    self.take();
                    return Ok(());
                }
                _ => return Err(self.broken("no ',' or ']' after an element")),
            }
        }
    }

    fn object(&mut self) -> Result<(), CanonicalError> {
        let base = self.members.len();
        let mut sorted = true;
        self.take();
        self.blanks();
        if self.peek() == Some(b'}') {
            self.take();
            return Ok(());
        }
        loop {
            let member = self.member()?;
            if let Some(&before) = self.members[base..].last() {
                match compare(&self.out, before, member) {
                    Ordering::Less => {}
                    Ordering::Equal => return Err(duplicate(&self.out, member)),
                    Ordering::Greater => sorted = false,
                }
            }
            self.members.push(member);
            self.blanks();
            match self.peek() {
                Some(b',') => self.take(),
                Some(b'}') => break,
                _ => return Err(self.broken("no ',' or '}' after a member")),
            }
        }
        if !sorted {
            self.sort(base)?;
        }
        self.members.truncate(base);
        self.take();
        Ok(())
    }

    /// A name, a colon and a value.
    fn member(&mut self) -> Result<Placed, CanonicalError> {
        let (start, name_end, escaped) = self.name()?;
        self.value()?;
        Ok(Placed { start, name_end, end: self.out.len(), escaped })
    }

    /// A name and a colon, with the blanks around them: where the name starts and ends, and whether it is escaped.
    pub(super) fn name(&mut self) -> Result<(usize, usize, bool), CanonicalError> {
        self.blanks();
        if self.peek() != Some(b'"') {
            return Err(self.broken("no member name"));
        }
        let start = self.out.len();
        let escaped = self.string()?;
        let name_end = self.out.len();
        self.blanks();
        if self.peek() != Some(b':') {
            return Err(self.broken("no ':' after a member name"));
        }
        self.take();
        self.blanks();
        Ok((start, name_end, escaped))
    }

    /// Puts the members from `base` on in order, in the output too.
    fn sort(&mut self, base: usize) -> Result<(), CanonicalError> {
        let Self { out, members, scratch, .. } = self;
        let members = &mut members[base..];
        let start = members[0].start;
        members.sort_unstable_by(|a, b| compare(out, *a, *b));
        for pair in members.windows(2) {
            if compare(out, pair[0], pair[1]) == Ordering::Equal {
                return Err(duplicate(out, pair[1]));
            }
        }
        scratch.clear();
        for member in members {
            if !scratch.is_empty() {
                scratch.push(b',');
            }
            scratch.extend_from_slice(&out[member.start..member.end]);
        }
        out.truncate(start);
        out.extend_from_slice(scratch);
        Ok(())
    }

    /// A string. Returns whether it had to be escaped.
    fn string(&mut self) -> Result<bool, CanonicalError> {
        // Nearly every string stands for itself: copied at once, quotes and all.
        let end = self.at + 1 + plain_run(&self.text[self.at + 1..]);
        if self.text.get(end) == Some(&b'"') {
            self.out.extend_from_slice(&self.text[self.at..=end]);
            self.at = end + 1;
            return Ok(false);
        }
        let start = self.out.len();
        self.take();
        loop {
            let run = plain_run(&self.text[self.at..]);
            self.out.extend_from_slice(&self.text[self.at..self.at + run]);
            self.at += run;
            match self.peek() {
                Some(b'"') => {
                    self.take();
                    return Ok(memchr::memchr(b'\\', &self.out[start..]).is_some());
                }
                Some(b'\\') => self.escape()?,
                Some(0) => return Err(CanonicalError::Nul),
                Some(_) => return Err(self.broken("a control character in a string")),
                None => return Err(self.broken("a string without an end")),
            }
        }
    }

    /// An escape sequence, written as the character that it stands for.
    fn escape(&mut self) -> Result<(), CanonicalError> {
        self.at += 1;
        let byte = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.broken("an unknown escape sequence")),
        };
        self.at += 1;
        push_escaped(&mut self.out, byte);
        Ok(())
    }

    fn unicode_escape(&mut self) -> Result<(), CanonicalError> {
        let unit = self.code_unit()?;
        let code = match unit {
            0xd800..=0xdbff => {
                if !self.text[self.at..].starts_with(b"\\u") {
                    return Err(CanonicalError::LoneSurrogate);
                }
                self.at += 1;
                let low = self.code_unit()?;
                if !(0xdc00..=0xdfff).contains(&low) {
                    return Err(CanonicalError::LoneSurrogate);
                }
                0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
            }
            0 => return Err(CanonicalError::Nul),
            _ => unit,
        };
        let character = char::from_u32(code).ok_or(CanonicalError::LoneSurrogate)?;
        match u8::try_from(character) {
            Ok(byte) if byte.is_ascii() => push_escaped(&mut self.out, byte),
            _ => {
                self.out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        Ok(())
    }

    /// The four digits behind `u`.
    fn code_unit(&mut self) -> Result<u32, CanonicalError> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.broken("no four hexadecimal digits after \\u"));
            };
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), CanonicalError> {
        let written =
            number::Written::read(&self.text[self.at..]).map_err(|problem| self.broken(problem))?;
        self.at += written.text.len();
        if written.push(&mut self.out) { Ok(()) } else { Err(CanonicalError::Exponent) }
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), CanonicalError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.broken("no value"));
        }
        self.at += word.len();
        self.out.extend_from_slice(word);
        Ok(())
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Copies the byte at hand.
    fn take(&mut self) {
        self.out.push(self.text[self.at]);
        self.at += 1;
    }

    pub(super) fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    pub(super) fn broken(&self, problem: &'static str) -> CanonicalError {
        CanonicalError::NotJson { at: self.at, problem }
    }
}

/// Compares two names by their UTF-16 code units, as RFC 8785 wants it.
fn compare(out: &[u8], a: Placed, b: Placed) -> Ordering {
    let a_name = &out[a.start + 1..a.name_end - 1];
    let b_name = &out[b.start + 1..b.name_end - 1];
    if a.escaped || b.escaped {
        return unescaped(a_name).map(weight).cmp(unescaped(b_name).map(weight));
    }
    match a_name.iter().zip(b_name).find(|(x, y)| x != y) {
        Some((&x, &y)) => weight(x).cmp(&weight(y)),
        None => a_name.len().cmp(&b_name.len()),
    }
}

/// The bytes of UTF-8 sort as code points do. As UTF-16 code units, characters beyond U+FFFF (first byte F0 and up)
/// are surrogates and come before U+E000 to U+FFFF (first byte EE and EF).
fn weight(byte: u8) -> u16 {
    match byte {
        0xee | 0xef => u16::from(byte) + 0x100,
        _ => u16::from(byte),
    }
}

/// The bytes of a name as it is written here: canonical, without its quotes.
fn unescaped(name: &[u8]) -> impl Iterator<Item = u8> {
    let mut bytes = name.iter().copied();
    std::iter::from_fn(move || match bytes.next()? {
        b'\\' => match bytes.next()? {
            b'b' => Some(0x08),
            b't' => Some(b'\t'),
            b'n' => Some(b'\n'),
            b'f' => Some(0x0c),
            b'r' => Some(b'\r'),
            b'u' => {
                let code = bytes.by_ref().take(4).fold(0, |code, digit| {
                    code * 16 + char::from(digit).to_digit(16).unwrap_or_default()
                });
                u8::try_from(code).ok()
            }
            byte => Some(byte),
        },
        byte => Some(byte),
    })
}

fn duplicate(out: &[u8], member: Placed) -> CanonicalError {
    let name = unescaped(&out[member.start + 1..member.name_end - 1]).collect();
    CanonicalError::DuplicateMember(utf8(name))
}

/// Writes `text` as a JSON string, quoted and escaped as RFC 8785 has it.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let run = plain_run(rest);
        out.extend_from_slice(&rest[..run]);
        let Some(&byte) = rest.get(run) else { break };
        push_escaped(out, byte);
        rest = &rest[run + 1..];
    }
    out.push(b'"');
}

/// Writes one ASCII character inside a string, escaped if it must be.
fn push_escaped(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let letter = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        0..0x20 => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
            return;
        }
        _ => return out.push(byte),
    };
    out.extend_from_slice(&[b'\\', letter]);
}

/// How many bytes at the start of `bytes` stand for themselves within a string: up to a quote, a backslash or a
/// control character. Looks at eight bytes at a time, because payloads are mostly made of such runs.
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut run = 0;
    while let Some(eight) = bytes[run..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        // Each term sets the high bit of a byte that is meant; the lowest bit set is exact, those above it may not be.
        let quotes = (word ^ (ONES * 0x22)).wrapping_sub(ONES) & !(word ^ (ONES * 0x22));
        let slashes = (word ^ (ONES * 0x5c)).wrapping_sub(ONES) & !(word ^ (ONES * 0x5c));
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (quotes | slashes | controls) & HIGHS;
        if found != 0 {
            return run + usize::try_from(found.trailing_zeros() / 8).expect("eight at most");
        }
        run += 8;
    }
    let rest = &bytes[run..];
    run + rest.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\').unwrap_or(rest.len())
}
