//! The fields of a posted object. This module reads each one as what it should be, or names it and what it is not.
//!
//! An empty string and null count as absent: one of our stores cannot tell them apart.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::canonical::{CanonicalError, Object, ObjectError};
use super::ids::{EventId, IdError};
use super::time::Timestamp;

/// Why a door takes no envelope, told apart by what the caller is answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// 400: this field must be mended. `body` and `payload` stand for the whole.
    #[error("{field} {problem}")]
    Invalid { field: &'static str, problem: String },
    /// 403: the event says that it belongs to somebody else.
    #[error("tenantId is not the tenant of the token")]
    TenantMismatch,
    /// 400: there are no fields to speak of.
    #[error("the text is not JSON: {0}")]
    NotJson(String),
    /// 413: a batch that never fits.
    #[error("the body holds more than {max} {what}")]
    TooMany { what: &'static str, max: usize },
}

impl DoorError {
    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }

    pub(crate) fn id(field: &'static str, error: IdError) -> Self {
        Self::Invalid { field, problem: error.problem }
    }

    /// What is wrong with the object called `base`, which may hold the fields `known`.
    pub(crate) fn object(error: ObjectError, known: &[&'static str], base: &'static str) -> Self {
        let known = |name: &str| known.iter().copied().find(|field| *field == name);
        let Some(problem) = error.problem else {
            return Self::invalid(base, "is not a JSON object");
        };
        if let CanonicalError::NotJson { .. } = problem {
            return Self::NotJson(problem.to_string());
        }
        if let (CanonicalError::DuplicateMember(name), None) = (&problem, &error.member)
            && let Some(field) = known(name)
        {
            return Self::invalid(field, "is there twice");
        }
        Self::invalid(error.member.as_deref().and_then(known).unwrap_or(base), problem.to_string())
    }
}

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

/// The id of an event as every door keeps it: a UUID with hyphens in lower case, any other text as it is.
///
/// # Errors
/// [`IdError`] where `text` is not 1-100 visible ASCII characters.
pub fn event_id(text: &str) -> Result<EventId, IdError> {
    hyphenated(text).map_or_else(|| EventId::parse(text), |uuid| Ok(EventId::from_uuid(uuid)))
}

/// The UUID that `text` is, in the one form that RFC 9562 gives it.
pub(crate) fn hyphenated(text: &str) -> Option<uuid::Uuid> {
    const LEN: usize = uuid::fmt::Hyphenated::LENGTH;
    if text.len() == LEN { uuid::Uuid::try_parse(text).ok() } else { None }
}

/// A body as text.
pub(crate) fn utf8(body: &[u8]) -> Result<&str, DoorError> {
    std::str::from_utf8(body)
        .map_err(|error| DoorError::NotJson(format!("byte {} is not UTF-8", error.valid_up_to())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_a_uuid_is_kept_in_lower_case_and_any_other_as_it_is() {
        const ID: &str = "b2c6f1a9-2c2a-4d2d-9b7b-0b5f2a0a67d1";
        assert_eq!(event_id(&ID.to_uppercase()).unwrap().as_str(), ID);
        assert_eq!(event_id("Order/7").unwrap().as_str(), "Order/7");
        event_id("").unwrap_err();
    }

    #[test]
    fn an_array_splits_without_one_element_spoiling_another() {
        assert_eq!(
            elements(" [ {\"a\":1,\"a\":1} , 2,[]]", "x", 3).unwrap(),
            ["{\"a\":1,\"a\":1}", "2", "[]"]
        );
        assert_eq!(elements("[]", "x", 3).unwrap(), Vec::<&str>::new());
        assert_eq!(
            elements("[1,2,3,4", "x", 3).unwrap_err(),
            DoorError::TooMany { what: "x", max: 3 }
        );
        assert_eq!(elements("{}", "x", 3).unwrap_err().to_string(), "body is not a JSON array");
        for bad in ["", "[", "[1", "[1,]", "[1]x"] {
            assert!(matches!(elements(bad, "x", 3), Err(DoorError::NotJson(_))), "{bad}");
        }
    }
}
