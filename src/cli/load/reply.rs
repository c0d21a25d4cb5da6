//! Reads answers. This module finds the first whole one in what has come so far.

use memchr::memmem;

/// Fields in an answer at most.
const FIELDS_MAX: usize = 64;

/// A body at most: more than the answer to the largest batch.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An answer, whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply<'b> {
    pub(super) status: u16,
    /// `Idempotency-Replayed: true`.
    pub(super) replayed: bool,
    /// The service closes the connection after it.
    pub(super) close: bool,
    pub(super) body: &'b [u8],
}

/// Why bytes are no answer that we can read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReplyError {
    #[error("the answer is not HTTP")]
    NotHttp,
    #[error("the answer does not say how long it is")]
    NoLength,
    #[error("the answer is too long")]
    TooLong,
}

/// The first answer in `bytes` and how many bytes it takes. None: there is more to come.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, ReplyError> {
    let mut begin = 0;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        let start = match head.parse(&bytes[begin..]) {
            Ok(httparse::Status::Complete(length)) => begin + length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(ReplyError::NotHttp),
        };
        let status = head.code.ok_or(ReplyError::NotHttp)?;
        let mut length = None;
        let (mut replayed, mut close) = (false, false);
        for field in &*head.headers {
            let value = str::from_utf8(field.value).unwrap_or_default().trim();
            if field.name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse::<usize>().map_err(|_| ReplyError::NoLength)?);
            } else if field.name.eq_ignore_ascii_case("idempotency-replayed") {
                replayed = value == "true";
            } else if field.name.eq_ignore_ascii_case("connection") {
                close = value.eq_ignore_ascii_case("close");
            }
        }
        let length = match status {
            // An interim answer: the one that counts follows.
            100..200 => {
                begin = start;
                continue;
            }
            204 | 304 => 0,
            _ => length.ok_or(ReplyError::NoLength)?,
        };
        if length > BODY_BYTES_MAX {
            return Err(ReplyError::TooLong);
        }
        let end = start + length;
        let Some(body) = bytes.get(start..end) else { return Ok(None) };
        return Ok(Some((Reply { status, replayed, close, body }, end)));
    }
}

/// The number after `"name":` where it first stands in JSON text.
pub(super) fn number_after(json: &[u8], name: &str) -> Option<u64> {
    let at = memmem::find(json, name.as_bytes())? + name.len();
    let digits = json[at..].iter().skip_while(|b| matches!(b, b'"' | b':' | b' '));
    let digits: String =
        digits.take_while(|b| b.is_ascii_digit()).map(|b| char::from(*b)).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 13\r\nIdempotency-Replayed: true\r\n\r\n{\"a\": \"b c\"}\n";

    #[test]
    fn an_answer_is_read_once_it_is_whole_and_not_a_byte_earlier() {
        for end in 0..REPLY.len() {
            assert_eq!(parse(&REPLY[..end]), Ok(None), "{end}");
        }
        let more = [REPLY, b"HTTP/1.1 200"].concat();
        let reply =
            Reply { status: 202, replayed: true, close: false, body: b"{\"a\": \"b c\"}\n" };
        assert_eq!(parse(&more), Ok(Some((reply, REPLY.len()))));
    }

    #[test]
    fn interim_answers_are_passed_over_and_bodiless_ones_need_no_length() {
        let bytes =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n";
        let reply = Reply { status: 304, replayed: false, close: true, body: b"" };
        assert_eq!(parse(bytes), Ok(Some((reply, bytes.len()))));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert_eq!(parse(b"SSH-2.0-OpenSSH\r\n\r\n"), Err(ReplyError::NotHttp));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\n"), Err(ReplyError::NoLength));
        let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", usize::MAX);
        assert_eq!(parse(huge.as_bytes()), Err(ReplyError::TooLong));
    }

    #[test]
    fn a_number_is_found_by_its_name() {
        assert_eq!(number_after(br#"{"streamSeq": 42,"x":1}"#, "streamSeq"), Some(42));
        assert_eq!(number_after(br#"{"streamSeq":null}"#, "streamSeq"), None);
    }
}
