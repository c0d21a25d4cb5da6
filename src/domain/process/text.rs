//! Short text that many copies share. This module is what a state keeps of names, steps and messages: cut to a
//! bounded length where it is read, and cheap to clone, because a batch works on a copy of each state.

use std::fmt;
use std::sync::Arc;

/// Text of a bounded length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Arc<str>);

impl Text {
    /// The first `chars_max` characters of `text`. None if there are none: an empty text says nothing.
    pub fn cut(text: &str, chars_max: usize) -> Option<Self> {
        let kept = if text.len() <= chars_max {
            text
        } else {
            text.char_indices().nth(chars_max).map_or(text, |(end, _)| &text[..end])
        };
        (!kept.is_empty()).then(|| Self(Arc::from(kept)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl serde::Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Arc::from(<&str>::deserialize(deserializer)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(Text::cut("äöü", 2).unwrap().as_str(), "äö");
        assert_eq!(Text::cut("äöü", 3).unwrap().as_str(), "äöü");
        assert_eq!(Text::cut("", 3), None);
    }
}
