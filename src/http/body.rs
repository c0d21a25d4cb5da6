//! The chunked coding, taken apart byte by byte. This module turns what arrives in any pieces into the body, and
//! refuses every way of writing a chunk that another parser could read differently.

use super::limits::{CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};
use super::parse::Refusal;

/// Digits of a chunk's size: 4 GiB is more than any body may have, and leading zeros are padding, not size.
const SIZE_DIGITS_MAX: usize = 8;

const MALFORMED: Refusal = Refusal { status: 400, detail: "a chunk of the body is malformed" };
const TOO_LARGE: Refusal = Refusal { status: 413, detail: "the body is too large" };
const LONG_TRAILER: Refusal =
    Refusal { status: 431, detail: "the fields after the body are too long" };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the digits of a size, so many of them read.
    Size {
        digits: usize,
    },
    /// In the extensions, which are read over.
    Extension,
    SizeLineFeed,
    Data {
        left: usize,
    },
    DataReturn,
    DataLineFeed,
    /// At the start of a line after the last chunk.
    TrailerStart,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

/// How far the coding of one body has been read.
#[derive(Debug)]
pub struct Chunks {
    state: State,
    size: usize,
    /// Bytes of the current size line, or of all trailer lines.
    line_bytes: usize,
    body_bytes: usize,
    body_bytes_max: usize,
}

impl Chunks {
    /// At the start of a body of `body_bytes_max` at most.
    pub fn new(body_bytes_max: usize) -> Self {
        let state = State::Size { digits: 0 };
        Self { state, size: 0, line_bytes: 0, body_bytes: 0, body_bytes_max }
    }

    /// Whether the whole body has been read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Appends what `input` holds of the body to `body` and returns how many bytes of `input` belong to it.
    ///
    /// # Errors
    /// When the coding is malformed (400), the body too large (413) or what follows it too long (431).
    pub fn decode(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                let taken = left.min(input.len() - at);
                body.extend_from_slice(&input[at..at + taken]);
                at += taken;
                let left = left - taken;
                self.state = if left == 0 { State::DataReturn } else { State::Data { left } };
            } else {
                self.state = self.step(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// Takes one byte that is no data.
    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        self.line_bytes += 1;
        match (self.state, byte) {
            (State::Size { digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(MALFORMED);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.size = self.size << 4 | usize::try_from(digit).unwrap_or(0);
                Ok(State::Size { digits: digits + 1 })
            }
            (State::Size { digits: 1.. }, b';') => Ok(State::Extension),
            (State::Size { digits: 1.. }, b'\r') => Ok(State::SizeLineFeed),
            (State::Extension, b'\r') => Ok(State::SizeLineFeed),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                if self.line_bytes > CHUNK_LINE_BYTES_MAX {
                    return Err(MALFORMED);
                }
                Ok(State::Extension)
            }
            (State::SizeLineFeed, b'\n') => self.size_known(),
            (State::DataReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => {
                self.line_bytes = 0;
                self.size = 0;
                Ok(State::Size { digits: 0 })
            }
            (State::TrailerStart, b'\r') => Ok(State::LastLineFeed),
            (State::Trailer, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerStart | State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => {
                if self.line_bytes > TRAILER_BYTES_MAX {
                    return Err(LONG_TRAILER);
                }
                Ok(State::Trailer)
            }
            (State::TrailerLineFeed, b'\n') => Ok(State::TrailerStart),
            (State::LastLineFeed, b'\n') => Ok(State::Done),
            _ => Err(MALFORMED),
        }
    }

    fn size_known(&mut self) -> Result<State, Refusal> {
        self.line_bytes = 0;
        if self.size == 0 {
            return Ok(State::TrailerStart);
        }
        // Compared before anything is read, so that a size alone can't make us take memory.
        if self.size > self.body_bytes_max - self.body_bytes {
            return Err(TOO_LARGE);
        }
        self.body_bytes += self.size;
        Ok(State::Data { left: self.size })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body and how many bytes it took, or the status; `input` arrives in pieces of `piece` bytes.
    fn decode(input: &[u8], piece: usize, max: usize) -> Result<(Vec<u8>, usize, bool), u16> {
        let mut chunks = Chunks::new(max);
        let (mut body, mut used) = (Vec::new(), 0);
        for part in input.chunks(piece) {
            let taken = chunks.decode(part, &mut body).map_err(|refusal| refusal.status)?;
            used += taken;
            if taken < part.len() {
                break;
            }
        }
        Ok((body, used, chunks.is_done()))
    }

    #[test]
    fn every_bad_chunk_has_its_answer() {
        let long_extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(300));
        let long_trailer = format!("0\r\nX: {}\r\n\r\n", "x".repeat(5000));
        let many_trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(1000));
        let table: &[(&str, &[u8], u16)] = &[
            ("a negative size", b"-1\r\n", 400),
            ("a signed size", b"+3\r\nabc\r\n", 400),
            ("a size with 0x", b"0x3\r\nabc\r\n", 400),
            ("an overflowing size", b"FFFFFFFFFFFFFFFFF\r\n", 400),
            ("a huge size", b"FFFFFFFF\r\n", 413),
            ("nine digits", b"000000003\r\nabc\r\n", 400),
            ("no size", b"\r\nabc\r\n", 400),
            ("no size but an extension", b";a=b\r\n", 400),
            ("a space before the size", b" 3\r\nabc\r\n", 400),
            ("a space after the size", b"3 \r\nabc\r\n", 400),
            ("a bare line feed after the size", b"3\nabc\r\n", 400),
            ("a bare carriage return after the size", b"3\rabc\r\n", 400),
            ("a line feed in an extension", b"3;a\nabc\r\n", 400),
            ("NUL in an extension", b"3;\0\r\nabc\r\n", 400),
            ("a long extension", long_extension.as_bytes(), 400),
            ("data longer than its size", b"3\r\nabcd\r\n", 400),
            ("a bare line feed after the data", b"3\r\nabc\n", 400),
            ("a bare line feed at the end", b"0\r\n\n", 400),
            ("a bare line feed in a trailer", b"0\r\nX: y\n\r\n", 400),
            ("a long trailer", long_trailer.as_bytes(), 431),
            ("many trailers", many_trailers.as_bytes(), 431),
            ("a chunk over the bound", b"65\r\n", 413),
            ("the second chunk over the bound", b"3\r\nabc\r\n62\r\n", 413),
        ];
        for (name, input, status) in table {
            for piece in [1, 7, input.len()] {
                assert_eq!(decode(input, piece, 100), Err(*status), "{name} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn extensions_and_trailers_are_read_over() {
        let input = b"3;a=\"b\"\r\nabc\r\n000A\r\n0123456789\r\n0;x\r\nX: y\r\nZ: \r\n\r\nGET /";
        let whole = decode(input, input.len(), 13).unwrap();
        assert_eq!(whole, (b"abc0123456789".to_vec(), input.len() - 5, true));
    }

    proptest! {
        #[test]
        fn a_body_survives_any_chunks_and_any_pieces(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..20),
            piece in 1_usize..64,
        ) {
            let mut input = Vec::new();
            for part in &parts {
                input.extend_from_slice(format!("{:X}\r\n", part.len()).as_bytes());
                input.extend_from_slice(part);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\n");
            let length = input.len();
            input.extend_from_slice(b"rest");
            let body = parts.concat();
            prop_assert_eq!(decode(&input, piece, body.len()).unwrap(), (body, length, true));
        }

        #[test]
        fn no_bytes_at_all_make_it_panic_or_exceed_its_bound(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'3'), Just(b';'), Just(b'0'), any::<u8>()], 0..200),
            piece in 1_usize..64,
        ) {
            if let Ok((body, used, _)) = decode(&input, piece, 40) {
                prop_assert!(body.len() <= 40 && used <= input.len());
            }
        }
    }
}
