//! The fields of a posted object. This module reads each one as what it should be, or names it and what it is not.
//!
//! An empty string and null count as absent: one of our stores cannot tell them apart.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::DoorError;
use crate::domain::canonical::Object;
use crate::domain::ids::IdError;
use crate::domain::time::Timestamp;

/// The fields of one object, which may be an element of an array.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'o, 't> {
    object: &'o Object<'t>,
    /// Which element of the array, from 0.
    element: Option<usize>,
}

impl<'o, 't> Fields<'o, 't> {
    pub(crate) fn of(object: &'o Object<'t>) -> Self {
        Self { object, element: None }
    }

    pub(crate) fn of_element(object: &'o Object<'t>, element: Option<usize>) -> Self {
        Self { object, element }
    }

    /// The error that names `field`, and the element that it belongs to.
    pub(crate) fn invalid(&self, field: &'static str, problem: impl Into<String>) -> DoorError {
        in_element(DoorError::invalid(field, problem), self.element)
    }

    pub(crate) fn required<T>(
        &self,
        field: &'static str,
        value: Option<T>,
    ) -> Result<T, DoorError> {
        value.ok_or_else(|| self.invalid(field, "is missing"))
    }

    /// JSON text as it was written.
    pub(crate) fn json(&self, field: &str) -> Option<&'t str> {
        self.object.raw(field).filter(|raw| *raw != "null")
    }

    /// How long the canonical form of a field is, in bytes.
    pub(crate) fn canonical_len(&self, field: &str) -> usize {
        self.object.canonical(field).map_or(0, <[u8]>::len)
    }

    pub(crate) fn text(&self, field: &'static str) -> Result<Option<Cow<'t, str>>, DoorError> {
        let Some(raw) = self.json(field) else { return Ok(None) };
        let Some(inner) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return Err(self.invalid(field, "is not a string"));
        };
        let text = if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
            Cow::Borrowed(inner)
        } else {
            let text = serde_json::from_str(raw);
            Cow::Owned(text.map_err(|_| self.invalid(field, "is not a string"))?)
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// A text of at most `chars_max` characters.
    pub(crate) fn short_text(
        &self,
        field: &'static str,
        chars_max: usize,
    ) -> Result<Option<Box<str>>, DoorError> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        if text.len() > chars_max && text.chars().count() > chars_max {
            return Err(self.invalid(field, format!("is longer than {chars_max} characters")));
        }
        Ok(Some(Box::from(text)))
    }

    /// A name: a short text without control characters.
    pub(crate) fn name(
        &self,
        field: &'static str,
        chars_max: usize,
    ) -> Result<Option<Box<str>>, DoorError> {
        let name = self.short_text(field, chars_max)?;
        match name {
            Some(name) if name.chars().any(char::is_control) => {
                Err(self.invalid(field, "holds a control character"))
            }
            name => Ok(name),
        }
    }

    pub(crate) fn id<T>(
        &self,
        field: &'static str,
        parse: fn(&str) -> Result<T, IdError>,
    ) -> Result<Option<T>, DoorError> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        parse(&text).map(Some).map_err(|error| self.invalid(field, error.problem))
    }

    pub(crate) fn moment(&self, field: &'static str) -> Result<Option<Timestamp>, DoorError> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        let moment = Timestamp::parse(&text);
        moment.map(Some).ok_or_else(|| {
            self.invalid(
                field,
                "is not a time of RFC 3339 with an offset, such as 2026-01-28T10:30:00Z",
            )
        })
    }

    /// A whole number, however it is written: 1, 1.0 and 1e0 are one.
    pub(crate) fn integer(
        &self,
        field: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, DoorError> {
        if self.json(field).is_none() {
            return Ok(None);
        }
        let digits = self.object.canonical(field).and_then(|b| std::str::from_utf8(b).ok());
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.invalid(
                field,
                format!("is not a whole number from {} to {}", range.start(), range.end()),
            )),
        }
    }

    pub(crate) fn number(&self, field: &'static str) -> Result<Option<f64>, DoorError> {
        let Some(raw) = self.json(field) else { return Ok(None) };
        // Of what is JSON, only numbers parse as one.
        match raw.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(self.invalid(field, "is not a number")),
        }
    }
}

/// Names the element in which `error` was found.
pub(crate) fn in_element(error: DoorError, element: Option<usize>) -> DoorError {
    match (error, element) {
        (DoorError::Invalid { field, problem }, Some(element)) => {
            DoorError::Invalid { field, problem: format!("of element {element} {problem}") }
        }
        (error, _) => error,
    }
}

/// The elements of a JSON array, each as it was written, so that one bad element spoils no other.
pub(crate) fn elements<'t>(
    text: &'t str,
    what: &'static str,
    max: usize,
) -> Result<Vec<&'t str>, DoorError> {
    let mut collector = Collector { elements: Vec::new(), max, full: false };
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = reader.deserialize_seq(&mut collector).and_then(|()| reader.end());
    match read {
        Ok(()) => Ok(collector.elements),
        Err(_) if collector.full => Err(DoorError::TooMany { what, max }),
        Err(error) if error.is_data() => Err(DoorError::invalid("body", "is not a JSON array")),
        Err(error) => Err(DoorError::NotJson(error.to_string())),
    }
}

struct Collector<'t> {
    elements: Vec<&'t str>,
    max: usize,
    full: bool,
}

impl<'t> Visitor<'t> for &mut Collector<'t> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(element) = array.next_element::<&'t RawValue>()? {
            if self.elements.len() == self.max {
                self.full = true;
                return Err(A::Error::custom("too many elements"));
            }
            self.elements.push(element.get());
        }
        Ok(())
    }
}
