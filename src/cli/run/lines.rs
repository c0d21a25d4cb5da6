//! Lines out of a stream of bytes. This module cuts whatever a command prints into pieces that a log row can hold.
//!
//! A line ends with a line feed or a carriage return, so a progress bar makes rows too. Empty lines make none. What
//! is no UTF-8, and U+0000, which no log row may hold, becomes the replacement character. Nothing here grows with
//! the length of a line.

/// The longest piece: what every store's log row holds. In bytes, so that a row is never cut a second time.
pub(super) const PIECE_BYTES_MAX: usize = 4_000;

/// With this much of one line at hand there is certainly a full piece in it: a replacement character is at least as
/// long as the bytes it stands for, and three bytes may belong to a character that is not complete yet.
const PENDING_BYTES_MAX: usize = PIECE_BYTES_MAX + 1 + 3;

/// How much of the bytes at hand is to become rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Only pieces of full length: the line goes on.
    Full,
    /// Everything but the beginning of a character: the line makes a pause.
    Pause,
    /// Everything: the line is over.
    End,
}

/// The line at hand.
#[derive(Default)]
pub(super) struct LineSplitter {
    pending: Vec<u8>,
}

impl LineSplitter {
    /// Takes the next bytes and hands on each line that is complete, and each full piece of a longer one.
    pub(super) fn push(&mut self, mut bytes: &[u8], line: &mut dyn FnMut(&str)) {
        while !bytes.is_empty() {
            let end = memchr::memchr2(b'\n', b'\r', bytes);
            let room = PENDING_BYTES_MAX - self.pending.len();
            let taken = end.unwrap_or(bytes.len()).min(room);
            self.pending.extend_from_slice(&bytes[..taken]);
            if end == Some(taken) {
                self.cut(Cut::End, line);
                bytes = &bytes[taken + 1..];
            } else {
                bytes = &bytes[taken..];
                if self.pending.len() == PENDING_BYTES_MAX {
                    self.cut(Cut::Full, line);
                }
            }
        }
    }

    /// Hands on what is there of a line that may go on later.
    pub(super) fn pause(&mut self, line: &mut dyn FnMut(&str)) {
        self.cut(Cut::Pause, line);
    }

    /// Hands on what is left.
    pub(super) fn end(&mut self, line: &mut dyn FnMut(&str)) {
        self.cut(Cut::End, line);
    }

    fn cut(&mut self, cut: Cut, line: &mut dyn FnMut(&str)) {
        let kept = if cut == Cut::End { 0 } else { incomplete_tail(&self.pending) };
        let tail = self.pending.split_off(self.pending.len() - kept);
        let text = String::from_utf8_lossy(&self.pending).replace('\0', "\u{fffd}");
        let mut rest = text.as_str();
        while rest.len() > PIECE_BYTES_MAX {
            let whole = (0..=PIECE_BYTES_MAX).rev().find(|at| rest.is_char_boundary(*at));
            let (piece, after) = rest.split_at(whole.unwrap_or(PIECE_BYTES_MAX));
            line(piece);
            rest = after;
        }
        if cut != Cut::Full && !rest.is_empty() {
            line(rest);
            rest = "";
        }
        // Broken bytes may have grown into replacement characters, three bytes each. What is kept of a line that
        // goes on is no longer than one piece, so there is room again.
        self.pending.clear();
        self.pending.extend_from_slice(rest.as_bytes());
        self.pending.extend_from_slice(&tail);
    }
}

/// How many bytes at the end are the beginning of a character that is not complete.
fn incomplete_tail(bytes: &[u8]) -> usize {
    for (back, byte) in bytes.iter().rev().take(3).enumerate() {
        let needed = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if needed > back + 1 { back + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::default();
        for piece in pieces {
            splitter.push(piece, &mut |line| lines.push(line.to_string()));
            assert!(splitter.pending.len() < PENDING_BYTES_MAX);
        }
        splitter.end(&mut |line| lines.push(line.to_string()));
        lines
    }

    #[test]
    fn lines_end_with_a_line_feed_a_carriage_return_or_both() {
        assert_eq!(
            lines_of(&[b"one\ntwo\r\n\nthr", b"ee\r10%\r20%"]),
            ["one", "two", "three", "10%", "20%"]
        );
    }

    #[test]
    fn a_line_without_an_end_is_cut_into_pieces_that_a_row_holds() {
        let long = format!("x{}", "ä".repeat(PIECE_BYTES_MAX));
        let lines = lines_of(&[long.as_bytes()]);
        let lengths: Vec<usize> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX, 2]);
        assert_eq!(lines.concat(), long);
    }

    #[test]
    fn what_is_no_text_becomes_replacement_characters() {
        assert_eq!(lines_of(&[b"a\xff\0b\n"]), ["a\u{fffd}\u{fffd}b"]);
    }

    #[test]
    fn a_pause_hands_on_what_is_there_but_breaks_no_character() {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::default();
        splitter.push(b"waiting \xe2\x82", &mut |line| lines.push(line.to_string()));
        splitter.pause(&mut |line| lines.push(line.to_string()));
        splitter.pause(&mut |line| lines.push(line.to_string()));
        splitter.push(b"\xac done\n", &mut |line| lines.push(line.to_string()));
        assert_eq!(lines, ["waiting ", "\u{20ac} done"]);
    }

    proptest! {
        #[test]
        fn the_lines_do_not_depend_on_how_the_bytes_arrive(
            bytes in proptest::collection::vec(any::<u8>(), 0..9000), at in 0usize..9000
        ) {
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(lines_of(&[&bytes]), lines_of(&[head, tail]));
        }
    }
}
