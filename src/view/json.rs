//! Writes JSON straight into an arena. This module exists because answers are small, many and known in shape.
//!
//! Building a tree of values first would cost more than the store's answer itself. Escaping is that of `serde_json`.

use std::io::Write;

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

use crate::domain::time::{TEXT_BYTES, Timestamp};

/// A JSON text under construction. Commas are placed by the writer.
pub struct Json<'a> {
    out: ArenaVec<'a, u8>,
    /// The next thing written in the current object or array needs a comma before it.
    comma: bool,
}

impl<'a> Json<'a> {
    pub fn new(arena: &'a Bump) -> Self {
        Self { out: ArenaVec::with_capacity_in(512, arena), comma: false }
    }

    /// The finished text.
    pub fn finish(self) -> &'a [u8] {
        self.out.into_bump_slice()
    }

    /// How many bytes there are so far.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }

    /// `{…}`: `members` writes them.
    pub fn object(&mut self, members: impl FnOnce(&mut Self)) {
        self.separate();
        self.out.push(b'{');
        self.comma = false;
        members(self);
        self.out.push(b'}');
        self.comma = true;
    }

    /// `[…]`: `elements` writes them.
    pub fn array(&mut self, elements: impl FnOnce(&mut Self)) {
        self.separate();
        self.out.push(b'[');
        self.comma = false;
        elements(self);
        self.out.push(b']');
        self.comma = true;
    }

    /// Starts a member; the next thing written is its value. `name` needs no escaping.
    pub fn member(&mut self, name: &'static str) -> &mut Self {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice_copy(name.as_bytes());
        self.out.extend_from_slice_copy(b"\":");
        self.comma = false;
        self
    }

    /// Starts a member whose name is foreign text.
    pub fn named(&mut self, name: &str) -> &mut Self {
        self.text(name);
        self.out.push(b':');
        self.comma = false;
        self
    }

    /// Writes the value with a closure.
    pub fn with(&mut self, value: impl FnOnce(&mut Self)) {
        value(self);
        self.comma = true;
    }

    pub fn text(&mut self, text: &str) {
        self.separate();
        // Writing into memory cannot fail.
        let _ = serde_json::to_writer(&mut self.out, text);
    }

    /// Text that people read in a terminal: escaped is also what JSON lets through and a terminal obeys, which is DEL and
    /// the control characters beyond ASCII.
    pub fn printable(&mut self, text: &str) {
        if !text.contains(is_terminal_control) {
            return self.text(text);
        }
        self.separate();
        self.out.push(b'"');
        for part in text.split_inclusive(is_terminal_control) {
            let plain = part.trim_end_matches(is_terminal_control);
            let start = self.out.len();
            let _ = serde_json::to_writer(&mut self.out, plain);
            // Only what stands between its quotes belongs here.
            self.out.remove(start);
            self.out.pop();
            for control in part[plain.len()..].chars() {
                let _ = write!(self.out, "\\u{:04x}", u32::from(control));
            }
        }
        self.out.push(b'"');
    }

    /// One string made of parts that need no escaping.
    pub fn text_parts(&mut self, parts: &[&str]) {
        self.separate();
        self.out.push(b'"');
        for part in parts {
            self.out.extend_from_slice_copy(part.as_bytes());
        }
        self.out.push(b'"');
    }

    pub fn number(&mut self, number: u64) {
        self.separate();
        let _ = write!(self.out, "{number}");
    }

    pub fn float(&mut self, number: f64) {
        self.separate();
        let _ = serde_json::to_writer(&mut self.out, &number);
    }

    pub fn boolean(&mut self, value: bool) {
        self.raw(if value { "true" } else { "false" });
    }

    pub fn null(&mut self) {
        self.raw("null");
    }

    pub fn time(&mut self, time: Timestamp) {
        match time.print(&mut [0; TEXT_BYTES]) {
            Some(text) => self.text_parts(&[text]),
            None => self.text(&time.to_string()),
        }
    }

    /// JSON text, as it is.
    pub fn raw(&mut self, json: &str) {
        self.separate();
        self.out.extend_from_slice_copy(json.as_bytes());
    }

    /// Any value that serde knows.
    pub fn value(&mut self, value: &impl serde::Serialize) {
        self.separate();
        let _ = serde_json::to_writer(&mut self.out, value);
    }

    /// A member with text, or with null.
    pub fn text_or_null(&mut self, name: &'static str, text: Option<&str>) {
        let json = self.member(name);
        match text {
            Some(text) => json.text(text),
            None => json.null(),
        }
    }

    /// A member with a time, or with null.
    pub fn time_or_null(&mut self, name: &'static str, time: Option<Timestamp>) {
        let json = self.member(name);
        match time {
            Some(time) => json.time(time),
            None => json.null(),
        }
    }

    /// Ends a line of NDJSON.
    pub fn line(&mut self) {
        self.out.push(b'\n');
        self.comma = false;
    }
}

/// Control characters that JSON takes as they are.
fn is_terminal_control(letter: char) -> bool {
    matches!(letter, '\u{7f}'..='\u{9f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_holds_nothing_that_a_terminal_obeys_and_reads_back_the_same() {
        for text in ["plain ä ✓", "", "a\u{1b}[2J\n", "\u{9b}31mred\u{7f}\u{80}\u{85} \"end\u{9f}"]
        {
            let arena = Bump::new();
            let mut json = Json::new(&arena);
            json.array(|json| {
                json.printable(text);
                json.printable("next");
            });
            let written = std::str::from_utf8(json.finish()).unwrap();
            assert!(!written.contains(char::is_control), "{written:?}");
            let read: Vec<String> = serde_json::from_str(written).unwrap();
            assert_eq!(read, [text, "next"]);
        }
    }

    #[test]
    fn places_commas_and_escapes_foreign_text() {
        let arena = Bump::new();
        let mut json = Json::new(&arena);
        json.object(|json| {
            json.member("a").number(1);
            json.member("b").array(|json| {
                json.text("x\u{1b}\"\n");
                json.null();
                json.object(|_| {});
            });
            json.member("c").float(40.0);
            json.text_or_null("d", None);
            json.member("e").time(Timestamp::from_micros(1));
        });
        let text = std::str::from_utf8(json.finish()).unwrap();
        assert_eq!(
            text,
            "{\"a\":1,\"b\":[\"x\\u001b\\\"\\n\",null,{}],\"c\":40.0,\"d\":null,\"e\":\"1970-01-01T00:00:00.000001Z\"}"
        );
    }

    #[test]
    fn lines_stand_alone() {
        let arena = Bump::new();
        let mut json = Json::new(&arena);
        for n in 1..=2 {
            json.object(|json| json.member("n").number(n));
            json.line();
        }
        assert_eq!(json.finish(), b"{\"n\":1}\n{\"n\":2}\n");
    }
}
