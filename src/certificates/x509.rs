//! The two things that we look for inside a certificate: its subject and its times. This module walks the DER just
//! far enough; whether a certificate is good is for rustls to say.

use ring::digest::{SHA256, digest};

use super::Thumbprint;

/// A longer subject is cut: it is a name for people.
const SUBJECT_CHARS_MAX: usize = 200;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, which only newer certificates have.
const VERSION: u8 = 0xa0;

/// Names of attribute types as RFC 4514 writes them.
const ATTRIBUTES: &[(&[u8], &str)] = &[
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 5], "SERIALNUMBER"),
];

/// Between which seconds since 1970 a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before_s: i64,
    pub not_after_s: i64,
}

impl Validity {
    /// The times of a certificate, if it can be read.
    pub(super) fn of(der: &[u8]) -> Option<Self> {
        let times = Parts::of(der)?.validity;
        let (not_before, rest) = element(times)?;
        let (not_after, _) = element(rest)?;
        Some(Self { not_before_s: seconds(not_before)?, not_after_s: seconds(not_after)? })
    }
}

/// The SHA-256 digest of a certificate.
pub fn thumbprint(der: &[u8]) -> Thumbprint {
    let mut thumbprint = [0; 32];
    thumbprint.copy_from_slice(digest(&SHA256, der).as_ref());
    thumbprint
}

/// The subject as text, the most special part first (RFC 4514), such as `CN=billing,O=Example`.
pub(super) fn subject(der: &[u8]) -> String {
    let mut names = Vec::new();
    let mut rest = Parts::of(der).map_or(&[][..], |parts| parts.subject);
    while let Some((set, after)) = element(rest) {
        rest = after;
        let mut inner = if set.tag == SET { set.content } else { &[] };
        while let Some((pair, after)) = element(inner) {
            inner = after;
            names.extend(attribute(pair.content));
        }
    }
    names.reverse();
    let text = if names.is_empty() { "(no subject)".to_string() } else { names.join(",") };
    text.chars().take(SUBJECT_CHARS_MAX).flat_map(visible).collect()
}

/// A letter that could move a cursor or forge a line is shown by its number.
fn visible(letter: char) -> impl Iterator<Item = char> {
    let hidden = letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let escaped = hidden.then(|| letter.escape_unicode());
    escaped.into_iter().flatten().chain((!hidden).then_some(letter))
}

fn attribute(pair: &[u8]) -> Option<String> {
    let (kind, rest) = element(pair)?;
    let (value, _) = element(rest)?;
    if kind.tag != OBJECT_ID {
        return None;
    }
    let name = ATTRIBUTES.iter().find(|(id, _)| *id == kind.content).map(|(_, name)| *name)?;
    let text = if value.tag == BMP_STRING {
        let units =
            value.content.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        char::decode_utf16(units)
            .map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    } else {
        String::from_utf8_lossy(value.content).into_owned()
    };
    // A comma inside a value would look like the next attribute.
    Some(format!("{name}={}", text.replace('\\', "\\\\").replace(',', "\\,")))
}

/// One tag, length and value.
#[derive(Debug, Clone, Copy)]
struct Element<'d> {
    tag: u8,
    content: &'d [u8],
}

/// The first element of `der` and what follows it.
fn element(der: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // More than four bytes of length is no certificate.
        let count = usize::from(first & 0x7f);
        let bytes = rest.get(..count).filter(|_| (1..=4).contains(&count))?;
        let length = bytes.iter().fold(0, |length: usize, byte| length << 8 | usize::from(*byte));
        (length, &rest[count..])
    };
    Some((Element { tag, content: rest.get(..length)? }, &rest[length..]))
}

/// What we want of a certificate, still encoded.
struct Parts<'d> {
    validity: &'d [u8],
    subject: &'d [u8],
}

impl<'d> Parts<'d> {
    fn of(der: &'d [u8]) -> Option<Self> {
        let inside = |element: Element<'d>| (element.tag == SEQUENCE).then_some(element.content);
        let certificate = inside(element(der)?.0)?;
        let mut rest = inside(element(certificate)?.0)?;
        if rest.first() == Some(&VERSION) {
            rest = element(rest)?.1;
        }
        // Serial number, signature algorithm, issuer.
        for _ in 0..3 {
            rest = element(rest)?.1;
        }
        let (validity, rest) = element(rest)?;
        Some(Self { validity: inside(validity)?, subject: inside(element(rest)?.0)? })
    }
}

/// The seconds since 1970 of a time in Zulu, as certificates write it (RFC 5280, 4.1.2.5).
fn seconds(time: Element<'_>) -> Option<i64> {
    let text = std::str::from_utf8(time.content).ok()?.strip_suffix('Z')?;
    let text = match time.tag {
        UTC_TIME => {
            let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME => text.to_string(),
        _ => return None,
    };
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<i8>().ok();
    let date = jiff::civil::DateTime::new(
        text.get(..4)?.parse().ok()?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?,
        0,
    )
    .ok()?;
    Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(shape: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_string()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        shape(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_subject_is_told_from_its_most_special_part_on() {
        let der = certificate(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
            params.distinguished_name.push(DnType::CommonName, "billing");
        });
        assert_eq!(subject(&der), r"CN=billing,O=Example\, Inc.");
        assert_eq!(subject(&certificate(|_| {})), "(no subject)");
        assert_eq!(subject(b"nonsense"), "(no subject)");
    }

    #[test]
    fn a_subject_cannot_forge_a_line_of_the_log() {
        let der = certificate(|params| {
            params.distinguished_name.push(DnType::CommonName, "a\nlevel=error\u{1b}[31m");
        });
        assert_eq!(subject(&der), r"CN=a\u{a}level=error\u{1b}[31m");
    }

    #[test]
    fn the_times_are_read_in_both_ways_of_writing() {
        for (year, seconds) in [(2030, 1_893_456_000), (2060, 2_840_140_800)] {
            let der = certificate(|params| {
                params.not_before = rcgen::date_time_ymd(2020, 1, 1);
                params.not_after = rcgen::date_time_ymd(year, 1, 1);
            });
            let validity = Validity::of(&der).unwrap();
            assert_eq!((validity.not_before_s, validity.not_after_s), (1_577_836_800, seconds));
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let der = certificate(|params| params.distinguished_name.push(DnType::CommonName, "x"));
        for at in 0..der.len() {
            let mut broken = der.clone();
            for byte in [0, 0x7f, 0x84, 0xff] {
                broken[at] = byte;
                subject(&broken);
                Validity::of(&broken);
            }
            subject(&der[..at]);
        }
    }
}
