//! A reply to bytes: head and body in one buffer, for one write. This module frames whole replies, the heads of
//! streamed ones and their pieces; a reply says exactly how long it is and whether the connection ends with it.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tiny_http::StatusCode;

use super::Reply;

/// What framing a reply needs to know of its request.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The request was HEAD: no body follows, whatever the reply's length.
    pub head_only: bool,
    /// The peer understands the chunked coding (HTTP/1.1).
    pub chunks: bool,
    /// The connection may be used again, as far as the peer and the request go.
    pub keep: bool,
    /// When the request was complete.
    pub complete_at: Instant,
}

/// The `Date` field's text, made anew once a second.
#[derive(Debug)]
pub struct Date {
    second: Duration,
    text: String,
}

impl Date {
    /// The text for `now`.
    pub fn new(now: SystemTime) -> Self {
        let mut date = Self { second: Duration::MAX, text: String::new() };
        date.turn_to(now);
        date
    }

    /// Makes the text say `now`.
    pub fn turn_to(&mut self, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = Duration::from_secs(since.as_secs());
        if second != self.second {
            self.second = second;
            self.text = httpdate::fmt_http_date(now);
        }
    }

    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Appends the whole of `reply` to `out`. Returns whether the connection may be used again.
pub fn frame(out: &mut Vec<u8>, reply: &Reply<'_>, facts: Facts, date: &Date) -> bool {
    let keep = facts.keep && !reply.close;
    // These never have a body, and a length would be taken for that of the reply they stand for.
    let bodiless = matches!(reply.status, 100..=199 | 204 | 304);
    out.reserve(256 + reply.body.len());
    status_line(out, reply.status, date);
    if !bodiless {
        content_type(out, reply.content_type);
        out.extend_from_slice(b"\r\nContent-Length: ");
        decimal(out, reply.body.len());
    }
    fields(out, &reply.headers);
    if !keep {
        out.extend_from_slice(b"\r\nConnection: close");
    }
    out.extend_from_slice(b"\r\n\r\n");
    if !bodiless && !facts.head_only {
        out.extend_from_slice(&reply.body);
    }
    keep
}

/// Appends the head of a streamed reply. Returns whether the connection may be used again after its last piece.
pub fn frame_stream_head(
    out: &mut Vec<u8>,
    status: u16,
    media_type: &str,
    headers: &[(&'static str, Cow<'_, str>)],
    facts: Facts,
    date: &Date,
) -> bool {
    // Without chunks the end of the connection is the end of the body.
    let keep = facts.keep && facts.chunks;
    status_line(out, status, date);
    content_type(out, media_type);
    if facts.chunks {
        out.extend_from_slice(b"\r\nTransfer-Encoding: chunked");
    }
    fields(out, headers);
    if !keep {
        out.extend_from_slice(b"\r\nConnection: close");
    }
    out.extend_from_slice(b"\r\n\r\n");
    keep
}

/// Appends one piece of a streamed body, and the end of the body if it is the last.
pub fn frame_piece(out: &mut Vec<u8>, piece: &[u8], last: bool, chunks: bool) {
    if !chunks {
        out.extend_from_slice(piece);
        return;
    }
    // An empty chunk would end the body.
    if !piece.is_empty() {
        write!(out, "{:x}\r\n", piece.len()).expect("a vector takes every byte");
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    if last {
        out.extend_from_slice(b"0\r\n\r\n");
    }
}

fn status_line(out: &mut Vec<u8>, status: u16, date: &Date) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, usize::from(status));
    out.push(b' ');
    let reason = match status {
        413 => "Content Too Large",
        _ => StatusCode(status).default_reason_phrase(),
    };
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(date.as_str().as_bytes());
}

fn content_type(out: &mut Vec<u8>, media_type: &str) {
    if !media_type.is_empty() {
        out.extend_from_slice(b"\r\nContent-Type: ");
        out.extend_from_slice(media_type.as_bytes());
    }
}

fn fields(out: &mut Vec<u8>, headers: &[(&'static str, Cow<'_, str>)]) {
    for (name, value) in headers {
        // A line break in a value would begin a field of the peer's choosing.
        if value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            continue;
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
    }
}

fn decimal(out: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn facts() -> Facts {
        Facts { head_only: false, chunks: true, keep: true, complete_at: Instant::now() }
    }

    fn date() -> Date {
        Date::new(UNIX_EPOCH + Duration::from_secs(784_111_777))
    }

    fn reply(status: u16) -> Reply<'static> {
        Reply {
            status,
            content_type: "text/plain",
            headers: vec![],
            body: Cow::Borrowed(b"hello"),
            close: false,
        }
    }

    fn check(reply: &Reply<'_>, facts: Facts, expected: &Expect) {
        let mut out = Vec::new();
        frame(&mut out, reply, facts, &date());
        expected.assert_eq(&String::from_utf8(out).unwrap().replace('\r', ""));
    }

    #[test]
    fn a_reply_says_its_length_and_its_date() {
        check(
            &reply(200),
            facts(),
            &expect![[r#"
                HTTP/1.1 200 OK
                Date: Sun, 06 Nov 1994 08:49:37 GMT
                Content-Type: text/plain
                Content-Length: 5

                hello"#]],
        );
    }

    #[test]
    fn a_reply_to_head_says_the_length_and_holds_no_body() {
        check(
            &reply(404),
            Facts { head_only: true, keep: false, ..facts() },
            &expect![[r#"
                HTTP/1.1 404 Not Found
                Date: Sun, 06 Nov 1994 08:49:37 GMT
                Content-Type: text/plain
                Content-Length: 5
                Connection: close

            "#]],
        );
    }

    #[test]
    fn a_value_with_a_line_break_is_dropped_and_304_has_no_body() {
        let headers = vec![
            ("ETag", Cow::Borrowed("\"7\"")),
            ("X-Split", Cow::Borrowed("a\r\nSet-Cookie: b")),
            ("X-Split", Cow::Borrowed("a\nb")),
        ];
        check(
            &Reply { headers, ..reply(304) },
            facts(),
            &expect![[r#"
                HTTP/1.1 304 Not Modified
                Date: Sun, 06 Nov 1994 08:49:37 GMT
                ETag: "7"

            "#]],
        );
    }

    #[test]
    fn a_streamed_body_ends_with_an_empty_chunk_and_has_no_other() {
        let mut out = Vec::new();
        assert!(frame_stream_head(&mut out, 200, "text/plain", &[], facts(), &date()));
        frame_piece(&mut out, b"0123456789abcdef", false, true);
        frame_piece(&mut out, b"", false, true);
        frame_piece(&mut out, b"end", true, true);
        let expected = expect![[r#"
            HTTP/1.1 200 OK
            Date: Sun, 06 Nov 1994 08:49:37 GMT
            Content-Type: text/plain
            Transfer-Encoding: chunked

            10
            0123456789abcdef
            3
            end
            0

        "#]];
        expected.assert_eq(&String::from_utf8(out).unwrap().replace('\r', ""));
    }

    #[test]
    fn a_streamed_body_without_chunks_ends_with_the_connection() {
        let mut out = Vec::new();
        let old = Facts { chunks: false, ..facts() };
        assert!(!frame_stream_head(&mut out, 200, "text/plain", &[], old, &date()));
        frame_piece(&mut out, b"all", true, false);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Connection: close\r\n\r\nall") && !text.contains("chunked"));
    }

    #[test]
    fn the_date_follows_the_second() {
        let mut date = date();
        date.turn_to(UNIX_EPOCH + Duration::from_millis(784_111_778_999));
        assert_eq!(date.as_str(), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
