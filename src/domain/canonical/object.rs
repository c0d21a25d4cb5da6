//! An object taken apart. This module splits a JSON object into its members while it checks the whole of it and
//! writes the canonical form of each member, all in one pass: a door needs no second look at a payload.

use std::ops::Range;

use smallvec::SmallVec;

use super::{CanonicalError, Writer};

/// So many members are compared each with each; more are sorted first.
const PAIRWISE_MAX: usize = 24;

/// Why a text is not an object that a door can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectError {
    /// The member within whose value the problem lies. None: it is about the object itself.
    pub member: Option<String>,
    /// None: it is JSON, but not an object.
    pub problem: Option<CanonicalError>,
}

/// A JSON object, checked throughout, with its members in the order in which they were written.
#[derive(Debug)]
pub struct Object<'t> {
    canonical: Vec<u8>,
    members: SmallVec<[Member<'t>; 24]>,
}

#[derive(Debug)]
struct Member<'t> {
    /// Where its name stands in the canonical text, without the quotes.
    name: Range<usize>,
    value: Range<usize>,
    /// Its value as it was written.
    raw: &'t str,
}

impl<'t> Object<'t> {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// [`ObjectError`] where `text` is not an object, or has no canonical form.
    pub fn parse(text: &'t str) -> Result<Self, ObjectError> {
        let mut writer = Writer::new(text);
        let whole = |problem| ObjectError { member: None, problem: Some(problem) };
        writer.blanks();
        if writer.peek() != Some(b'{') {
            writer.document().map_err(whole)?;
            return Err(ObjectError { member: None, problem: None });
        }
        writer.depth = 1;
        writer.at += 1;
        let mut members = SmallVec::new();
        writer.blanks();
        if writer.peek() == Some(b'}') {
            writer.at += 1;
        } else {
            loop {
                let (start, name_end, _) = writer.name().map_err(whole)?;
                let name = start + 1..name_end - 1;
                let (raw_start, value_start) = (writer.at, writer.out.len());
                if let Err(problem) = writer.value() {
                    let member = String::from_utf8(writer.out[name].to_vec()).ok();
                    return Err(ObjectError { member, problem: Some(problem) });
                }
                let (raw, value) = (&text[raw_start..writer.at], value_start..writer.out.len());
                members.push(Member { name, value, raw });
                writer.blanks();
                match writer.peek() {
                    Some(b',') => writer.at += 1,
                    Some(b'}') => {
                        writer.at += 1;
                        break;
                    }
                    _ => return Err(whole(writer.broken("no ',' or '}' after a member"))),
                }
            }
        }
        writer.end().map_err(whole)?;
        let object = Self { canonical: writer.out, members };
        match object.repeated() {
            None => Ok(object),
            Some(name) => Err(whole(CanonicalError::DuplicateMember(name))),
        }
    }

    /// The value of the member called `name` as it was written. `name` holds nothing that must be escaped.
    pub fn raw(&self, name: &str) -> Option<&'t str> {
        self.member(name).map(|member| member.raw)
    }

    /// The canonical form of the value of the member called `name`.
    pub fn canonical(&self, name: &str) -> Option<&[u8]> {
        self.member(name).map(|member| &self.canonical[member.value.clone()])
    }

    /// The object without the members called `names` and without blanks, its members in the order of the text.
    pub fn compact_without(&self, names: &[&str]) -> String {
        let mut text = Vec::with_capacity(self.canonical.len() + 2 * self.members.len() + 2);
        text.push(b'{');
        for member in &self.members {
            let name = &self.canonical[member.name.clone()];
            if names.iter().any(|unwanted| unwanted.as_bytes() == name) {
                continue;
            }
            if text.len() > 1 {
                text.push(b',');
            }
            text.push(b'"');
            text.extend_from_slice(name);
            text.extend_from_slice(b"\":");
            push_compact(&mut text, member.raw);
        }
        text.push(b'}');
        super::utf8(text)
    }

    fn member(&self, name: &str) -> Option<&Member<'t>> {
        self.members.iter().find(|member| {
            member.name.len() == name.len()
                && self.canonical[member.name.clone()] == *name.as_bytes()
        })
    }

    /// A name that occurs twice. Canonical names are equal exactly when the names are.
    fn repeated(&self) -> Option<String> {
        let name = |member: &Member<'t>| &self.canonical[member.name.clone()];
        let twice = if self.members.len() <= PAIRWISE_MAX {
            let mut members = self.members.iter();
            std::iter::from_fn(|| {
                let one = members.next()?;
                Some(members.as_slice().iter().find(|other| name(one) == name(other)))
            })
            .flatten()
            .map(name)
            .next()
        } else {
            let mut names: Vec<&[u8]> = self.members.iter().map(name).collect();
            names.sort_unstable();
            names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
        }?;
        Some(String::from_utf8_lossy(twice).into_owned())
    }
}

/// The value `raw`, which must be JSON, without the blanks between its parts.
pub(crate) fn compact(raw: &str) -> Box<str> {
    let mut text = Vec::with_capacity(raw.len());
    push_compact(&mut text, raw);
    super::utf8(text).into_boxed_str()
}

fn push_compact(out: &mut Vec<u8>, raw: &str) {
    let (mut quoted, mut escaped) = (false, false);
    for &byte in raw.as_bytes() {
        if quoted {
            quoted = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        } else {
            quoted = byte == b'"';
        }
        out.push(byte);
    }
}
