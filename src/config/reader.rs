//! Turns typed text into typed values. This module knows ranges and words, remembers every problem instead of
//! stopping at the first, and keeps the effective value of each setting for `check-config`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Effective;
use super::problems::Problems;
use super::raw::{Given, Origin, RawConfig};
use super::variables::{self, NONE, Variable};

/// What is printed in place of a secret.
const MASK: &str = "********";

/// Reads settings one by one out of what the user typed.
pub(super) struct Reader<'a> {
    raw: &'a RawConfig,
    pub(super) problems: &'a mut Problems,
    effective: Vec<Effective>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(raw: &'a RawConfig, problems: &'a mut Problems) -> Self {
        Self { raw, problems, effective: Vec::new() }
    }

    /// What was typed, if anything.
    pub(super) fn given(&self, name: &str) -> Option<&'a Given> {
        self.raw.get(name)
    }

    /// Whether anything was typed.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.raw.get(name).is_some()
    }

    /// The text that was typed. `default` is what `check-config` shows when there is none.
    pub(super) fn text(&mut self, name: &'static str, default: &str) -> Option<String> {
        let given = self.given(name);
        match given {
            Some(given) => self.note(name, &given.value, &given.origin),
            None => self.note(name, default, &Origin::Default),
        }
        given.map(|given| given.value.clone())
    }

    /// The text that was typed, else the default of the table.
    pub(super) fn text_or_default(&mut self, name: &'static str) -> String {
        let default = row(name).default;
        self.text(name, default).unwrap_or_else(|| default.to_string())
    }

    /// A number from `range`, else the default of the table.
    pub(super) fn number(&mut self, name: &'static str, range: RangeInclusive<u64>) -> u64 {
        let default = row(name).default.parse().expect("the table's default is a number");
        self.number_or(name, default, range)
    }

    /// A number from `range`, else `default`, for settings whose default depends on something.
    pub(super) fn number_or(
        &mut self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        debug_assert!(range.contains(&default), "{name}: {default} is outside of {range:?}");
        let Some(given) = self.given(name) else {
            self.note(name, &default.to_string(), &Origin::Default);
            return default;
        };
        self.note(name, &given.value, &given.origin);
        let digits = given.value.bytes().all(|byte| byte.is_ascii_digit());
        match given.value.parse::<u64>() {
            Ok(number) if digits && range.contains(&number) => number,
            _ => {
                let link = if given.value.starts_with("tcp://") {
                    " (this looks like a service link of Kubernetes: set enableServiceLinks: false)"
                } else {
                    ""
                };
                let (least, most) = (range.start(), range.end());
                let what =
                    format!("{:?} is not a whole number from {least} to {most}{link}", given.value);
                self.problems.add(typed_name(name, &given.origin), what);
                default
            }
        }
    }

    /// The same as a count of things in memory.
    pub(super) fn count(&mut self, name: &'static str, range: RangeInclusive<u64>) -> usize {
        usize::try_from(self.number(name, range)).unwrap_or(usize::MAX)
    }

    /// A port: 0 has a meaning of its own, which the table tells.
    pub(super) fn port(&mut self, name: &'static str) -> u16 {
        let port = self.number(name, 0..=u64::from(u16::MAX));
        u16::try_from(port).expect("the range is that of a port")
    }

    /// A time given in units of `unit_s` seconds.
    pub(super) fn seconds(
        &mut self,
        name: &'static str,
        unit_s: u64,
        range: RangeInclusive<u64>,
    ) -> Duration {
        Duration::from_secs(self.number(name, range).saturating_mul(unit_s))
    }

    /// One of `words`, or None when nothing acceptable was typed.
    pub(super) fn word<T: Copy>(
        &mut self,
        name: &'static str,
        default: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.text(name, default)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            self.problem(name, format!("{text:?} is not {}", known.join(" or ")));
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// Notes a problem of a setting, under the name that the user typed it with.
    pub(super) fn problem(&mut self, name: &'static str, what: impl Into<String>) {
        let typed = match self.given(name) {
            Some(given) => typed_name(name, &given.origin),
            None => name.to_string(),
        };
        self.problems.add(typed, what);
    }

    /// Keeps the effective value of a setting, masked if it is a secret.
    pub(super) fn note(&mut self, name: &'static str, value: &str, origin: &Origin) {
        let hide = row(name).secret && value != NONE;
        let value = if hide { MASK.to_string() } else { value.to_string() };
        let entry = Effective { name, value, origin: origin.clone() };
        match self.effective.iter_mut().find(|known| known.name == name) {
            Some(known) => *known = entry,
            None => self.effective.push(entry),
        }
    }

    /// The effective value of every variable, in the order of the table.
    pub(super) fn finish(mut self) -> Vec<Effective> {
        variables::VARIABLES
            .iter()
            .map(|variable| {
                match self.effective.iter().position(|entry| entry.name == variable.name) {
                    Some(index) => self.effective.swap_remove(index),
                    None => Effective {
                        name: variable.name,
                        value: variable.default.to_string(),
                        origin: Origin::Default,
                    },
                }
            })
            .collect()
    }
}

/// How the user called the setting.
fn typed_name(name: &str, origin: &Origin) -> String {
    match origin {
        Origin::Environment(typed) | Origin::File(typed) => typed.clone(),
        Origin::Flag(flag) => (*flag).to_string(),
        Origin::Default => name.to_string(),
    }
}

fn row(name: &str) -> &'static Variable {
    variables::find(name).expect("every setting stands in the table")
}
