//! Bytes to the head of a request. This module decides what is a request at all; whatever two parsers could read in
//! two ways is refused here, because that is how requests are smuggled past a proxy.
//!
//! httparse does the tokens. Added here: every line feed follows a carriage return, the length of the body is told in
//! one way only, there is one host and one content type, and the target is a path.

use smallvec::SmallVec;

use super::Method;
use super::limits::{CONTENT_LENGTH_MAX, FIELDS_MAX};

/// Why bytes are no acceptable request, and the status that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{detail} ({status})")]
pub struct Refusal {
    pub status: u16,
    pub detail: &'static str,
}

const fn refused(status: u16, detail: &'static str) -> Refusal {
    Refusal { status, detail }
}

/// The fields of a head, borrowed from the bytes it came in.
pub type Fields<'b> = SmallVec<[(&'b str, &'b [u8]); FIELDS_MAX]>;

/// How the length of the body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// By `Content-Length`; zero where there is none.
    Known(usize),
    Chunked,
}

/// What the first line and the framing fields say.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'b> {
    pub method: Method,
    pub path: &'b str,
    pub query: &'b str,
    /// HTTP/1.1: knows chunks and keeps the connection.
    pub modern: bool,
    /// The peer lets the connection be used again.
    pub keep: bool,
    /// The peer waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    pub length: Length,
    /// Bytes of the whole head, the empty line included.
    pub bytes: usize,
}

/// Reads the head that `input` starts with. `None`: more bytes are needed.
///
/// # Errors
/// When no further bytes could make it an acceptable request.
pub fn head<'b>(
    input: &'b [u8],
    head_bytes_max: usize,
    fields: &mut Fields<'b>,
) -> Result<Option<Line<'b>>, Refusal> {
    // One empty line before a request is left over by old clients (RFC 9112, 2.2).
    let skipped = if input.starts_with(b"\r\n") { 2 } else { 0 };
    let input = &input[skipped..];
    if matches!(input.first(), Some(b'\r' | b'\n')) && input != b"\r" {
        return Err(refused(400, "the request line is empty"));
    }
    let mut storage = [const { std::mem::MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let bytes = match request.parse_with_uninit_headers(input, &mut storage) {
        Ok(httparse::Status::Complete(bytes)) if bytes <= head_bytes_max => bytes,
        Ok(httparse::Status::Partial) if input.len() < head_bytes_max => {
            check_line_ends(input)?;
            return Ok(None);
        }
        Ok(_) => return Err(refused(431, "the head of the request is too long")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(refused(431, "the request has too many fields"));
        }
        Err(httparse::Error::Version) => {
            return Err(refused(400, "only HTTP/1.1 and HTTP/1.0 are spoken here"));
        }
        Err(_) => return Err(refused(400, "the head of the request is malformed")),
    };
    check_line_ends(&input[..bytes])?;
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(refused(400, "the head of the request is malformed"));
    };
    let method = known_method(method)?;
    let (path, query) = split_target(target)?;
    fields.clear();
    fields.extend(request.headers.iter().map(|field| (field.name, field.value)));
    let framing = Framing::of(fields, version == 1)?;
    let line = Line {
        method,
        path,
        query,
        modern: version == 1,
        keep: version == 1 && !framing.close,
        expects_continue: version == 1 && framing.expects_continue,
        length: framing.length,
        bytes: skipped + bytes,
    };
    Ok(Some(line))
}

/// httparse takes a bare line feed for a line end; proxies differ, so it is refused.
fn check_line_ends(input: &[u8]) -> Result<(), Refusal> {
    for at in memchr::memchr_iter(b'\n', input) {
        if at == 0 || input[at - 1] != b'\r' {
            return Err(refused(400, "a line of the head ends without a carriage return"));
        }
    }
    Ok(())
}

fn known_method(name: &str) -> Result<Method, Refusal> {
    match name {
        "GET" => Ok(Method::Get),
        "HEAD" => Ok(Method::Head),
        "POST" => Ok(Method::Post),
        "PUT" => Ok(Method::Put),
        "PATCH" => Ok(Method::Patch),
        "DELETE" => Ok(Method::Delete),
        "OPTIONS" => Ok(Method::Options),
        _ => Err(refused(501, "this method is not known here")),
    }
}

/// Only the origin form is taken: we are no proxy, and a second host in the target is one too many.
fn split_target(target: &str) -> Result<(&str, &str), Refusal> {
    if !target.starts_with('/') {
        return Err(refused(400, "the request target is not a path"));
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(refused(400, "the request target holds a byte that is to be percent-encoded"));
    }
    Ok(target.split_once('?').unwrap_or((target, "")))
}

/// What the fields say about the framing of this request and the next.
struct Framing {
    length: Length,
    close: bool,
    expects_continue: bool,
}

impl Framing {
    fn of(fields: &[(&str, &[u8])], modern: bool) -> Result<Self, Refusal> {
        let mut length = None;
        let mut chunked = false;
        let mut host = false;
        let mut close = false;
        let mut expectation = None;
        let mut content_type = false;
        for &(name, value) in fields {
            let value = value.trim_ascii();
            // The length of the name sorts out nearly every field without a comparison.
            match name.len() {
                4 if name.eq_ignore_ascii_case("host") => {
                    if host {
                        return Err(refused(400, "the request names two hosts"));
                    }
                    if !is_host(value) {
                        return Err(refused(400, "the host is malformed"));
                    }
                    host = true;
                }
                6 if name.eq_ignore_ascii_case("expect") => {
                    if expectation.is_some() || !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(refused(417, "only 100-continue can be expected here"));
                    }
                    expectation = Some(());
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    close |= value
                        .split(|byte| *byte == b',')
                        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"));
                }
                12 if name.eq_ignore_ascii_case("content-type") => {
                    if content_type {
                        return Err(refused(400, "the request tells its content type twice"));
                    }
                    content_type = true;
                }
                14 if name.eq_ignore_ascii_case("content-length") => {
                    if length.is_some() {
                        return Err(refused(400, "the request tells its length twice"));
                    }
                    length = Some(content_length(value)?);
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    if chunked {
                        return Err(refused(400, "the request tells its transfer coding twice"));
                    }
                    if !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(refused(501, "the only transfer coding known here is chunked"));
                    }
                    chunked = true;
                }
                _ => {}
            }
        }
        if modern && !host {
            return Err(refused(400, "the request names no host"));
        }
        if chunked && length.is_some() {
            return Err(refused(400, "the request tells its length in two ways"));
        }
        if chunked && !modern {
            return Err(refused(400, "HTTP/1.0 has no transfer codings"));
        }
        let length = if chunked { Length::Chunked } else { Length::Known(length.unwrap_or(0)) };
        Ok(Self { length, close, expects_continue: expectation.is_some() })
    }
}

fn content_length(value: &[u8]) -> Result<usize, Refusal> {
    let malformed = refused(400, "the length of the body is malformed");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(malformed);
    }
    let length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse::<u64>().ok());
    length
        .filter(|length| *length <= CONTENT_LENGTH_MAX)
        .and_then(|length| usize::try_from(length).ok())
        .ok_or(malformed)
}

/// `name[:port]` or `[address][:port]`, with the characters that RFC 3986 allows there.
fn is_host(value: &[u8]) -> bool {
    let (name_ok, rest) = match value {
        [b'[', after @ ..] => {
            let Some(end) = memchr::memchr(b']', after) else { return false };
            let address = std::str::from_utf8(&after[..end]);
            let ok = address.is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
            (ok, &after[end + 1..])
        }
        _ => {
            let end = memchr::memchr(b':', value).unwrap_or(value.len());
            let name = &value[..end];
            let ok = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
            (!name.is_empty() && name.iter().all(ok), &value[end..])
        }
    };
    let port_ok = match rest {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    name_ok && port_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD_BYTES_MAX: usize = 16 << 10;

    fn status_of(input: &[u8]) -> Result<bool, u16> {
        let mut fields = Fields::new();
        match head(input, HEAD_BYTES_MAX, &mut fields) {
            Ok(line) => Ok(line.is_some()),
            Err(refusal) => Err(refusal.status),
        }
    }

    #[test]
    fn every_bad_head_has_its_answer() {
        let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(70));
        let long_field =
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(17 << 10));
        let endless_line = format!("GET /{}", "y".repeat(17 << 10));
        let table: &[(&str, &[u8], u16)] = &[
            ("both lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("both lengths, the other way", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
            ("two lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
            ("two equal lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
            ("a list of lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", 400),
            ("a signed length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400),
            ("a negative length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400),
            ("a length with garbage", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5x\r\n\r\n", 400),
            ("a hexadecimal length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", 400),
            ("an empty length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
            ("a length of 2^62", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4611686018427387904\r\n\r\n", 400),
            ("a length of 2^64", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", 400),
            ("a length just over 2^53", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9007199254740993\r\n\r\n", 400),
            ("two content types", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\n", 400),
            ("coding identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501),
            ("coding gzip, chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            ("coding xchunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
            ("an empty coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 501),
            ("chunked twice", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("a folded field", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400),
            ("a folded coding", b"POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n", 400),
            ("a folded first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
            ("bare line feeds", b"GET / HTTP/1.1\nHost: a\n\n", 400),
            ("one bare line feed", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
            ("a bare line feed at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
            ("a bare line feed before the end", b"GET / HTTP/1.1\nHost: a\r\nX", 400),
            ("a line feed in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\nz\r\n\r\n", 400),
            ("a carriage return in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", 400),
            ("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n", 400),
            ("NUL in the path", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n", 400),
            ("a control character in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[31m\r\n\r\n", 400),
            ("DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400),
            ("a control character in the path", b"GET /\x1b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("a tab in the path", b"GET /\t HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("DEL in the path", b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("raw UTF-8 in the path", "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes(), 400),
            ("no UTF-8 in the path", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("a fragment", b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("a space before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("a field without a name", b"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", 400),
            ("a field without a colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
            ("an extra token", b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("an extra token at the end", b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", 400),
            ("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("no version", b"GET /\r\nHost: a\r\n\r\n", 400),
            ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
            ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("two hosts in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("an empty host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
            ("a host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("a host with a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
            ("a host with a space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("a host with a bad port", b"GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", 400),
            ("a host that is a port", b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400),
            ("a bad address", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
            ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
            ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            ("HTTP/0.9", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 400),
            ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
            ("lower-case http", b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
            ("the absolute form", b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("the asterisk", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("the asterisk with GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("TRACE", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("a lower-case method", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("another expectation", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: cake\r\nContent-Length: 1\r\n\r\n", 417),
            ("two expectations", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n", 417),
            ("seventy fields", many_fields.as_bytes(), 431),
            ("17 KB of head", long_field.as_bytes(), 431),
            ("a line without end", endless_line.as_bytes(), 431),
            ("two empty lines", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("a bare line feed in front", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        ];
        for (name, input, status) in table {
            assert_eq!(status_of(input), Err(*status), "{name}");
        }
    }

    #[test]
    fn a_good_head_is_complete_only_with_its_last_byte() {
        let table: &[(&str, &[u8])] = &[
            ("plain", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("with a port", b"GET /a?b=c HTTP/1.1\r\nHost: a.b-c:8090\r\n\r\n"),
            ("an IPv6 host", b"GET / HTTP/1.1\r\nHost: [::1]:8090\r\n\r\n"),
            ("an empty line in front", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("HTTP/1.0 without host", b"GET / HTTP/1.0\r\n\r\n"),
            (
                "a length of 2^53",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9007199254740992\r\n\r\n",
            ),
            (
                "bytes above ASCII in a value",
                b"GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa4\xff\r\n\r\n",
            ),
            ("chunked", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n"),
            (
                "another expectation in HTTP/1.0 is none",
                b"POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
            ),
        ];
        for (name, input) in table {
            for end in 0..input.len() {
                assert_eq!(status_of(&input[..end]), Ok(false), "{name} up to {end}");
            }
            assert_eq!(status_of(input), Ok(true), "{name}");
        }
    }

    #[test]
    fn the_line_says_what_the_framing_needs() {
        let input = b"POST /a/b?c=d?e HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\nExpect: 100-Continue\r\nConnection: te, Close\r\n\r\nbody";
        let mut fields = Fields::new();
        let line = head(input, HEAD_BYTES_MAX, &mut fields).unwrap().unwrap();
        let expected = Line {
            method: Method::Post,
            path: "/a/b",
            query: "c=d?e",
            modern: true,
            keep: false,
            expects_continue: true,
            length: Length::Known(7),
            bytes: input.len() - 4,
        };
        assert_eq!(line, expected);
        assert_eq!(fields[0], ("Host", &b"a"[..]));
        let old = head(b"GET / HTTP/1.0\r\n\r\n", HEAD_BYTES_MAX, &mut fields).unwrap().unwrap();
        assert!(!old.keep && !old.modern);
    }
}
