//! What a request asks for behind the question mark. This module decodes it, and takes only what the route knows: a
//! misspelt filter that is passed over shows more than was asked for, and nobody notices.

use std::borrow::Cow;
use std::time::Duration;

use super::problem::{Kind, Problem};
use super::table::{Route, percent_decode};
use crate::domain::time::Timestamp;
use crate::store::{Cursor, Page};

/// The most rows on a page: some 300 KB of answer.
pub(super) const LIMIT_MAX: usize = 1000;
/// The longest `wait` that a parameter may ask for.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Of a name that nobody knows so many letters are told back.
const NAME_LETTERS_MAX: usize = 40;

/// The parameters of a query, by name.
pub(super) struct Parameters<'q>(Vec<(&'static str, Cow<'q, str>)>);

impl<'q> Parameters<'q> {
    /// Those of `query`, as sent to `route`.
    ///
    /// # Errors
    /// 400 where one is not known to the route or is given twice, or where the query cannot be decoded.
    pub(super) fn of(route: &Route, query: &'q str) -> Result<Self, Problem> {
        let mut parameters = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) =
                (percent_decode(name, true), percent_decode(value, true))
            else {
                return Err(refused("the query is not valid percent-encoded UTF-8"));
            };
            let Some((known, _)) = route.query.iter().find(|(known, _)| *known == name) else {
                return Err(refused(not_known(route, &name)));
            };
            if parameters.iter().any(|(earlier, _)| earlier == known) {
                return Err(refused(format!("the parameter {known} is given twice")).field(known));
            }
            parameters.push((*known, value));
        }
        Ok(Self(parameters))
    }

    /// The value of a parameter as it was sent.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(given, _)| *given == name)?;
        Some(value)
    }

    /// The value of a parameter; an empty one counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.given(name).filter(|value| !value.is_empty())
    }

    pub(super) fn parsed<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(text) => match parse(text) {
                Some(value) => Ok(Some(value)),
                None => Err(refused(format!("{name} must be {expected}")).field(name)),
            },
        }
    }

    pub(super) fn time(&self, name: &'static str) -> Result<Option<Timestamp>, Problem> {
        self.parsed(
            name,
            "a time like 2026-01-28T10:30:00Z, of the years 1970 to 9999",
            Timestamp::parse,
        )
    }

    /// How long to wait for what is not there yet.
    pub(super) fn wait(&self) -> Result<Option<Duration>, Problem> {
        self.parsed("wait", "a time like 20s, 60s at most", duration)
    }

    pub(super) fn page(&self, default_limit: usize) -> Result<Page, Problem> {
        let limit = self.parsed("limit", "a number from 1 to 1000", |text| {
            text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit))
        })?;
        let after = self.get("cursor").map(|text| Cursor(text.to_owned()));
        Ok(Page { limit: limit.unwrap_or(default_limit), after })
    }
}

fn refused(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Kind::BadRequest, detail)
}

fn not_known(route: &Route, name: &str) -> String {
    let name: String = name.chars().take(NAME_LETTERS_MAX).collect();
    let known: Vec<&str> = route.query.iter().map(|(name, _)| *name).collect();
    format!("there is no parameter {name:?} here; {} takes {}", route.path, known.join(", "))
}

/// Parses `2s`, `500ms`, `1m` or plain seconds.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let wait = match &text[digits.len()..] {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        _ => return None,
    };
    (wait <= WAIT_MAX).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::super::table::{self, Found};
    use super::*;
    use crate::http::{Method, Port};

    fn of(query: &str) -> Result<Parameters<'_>, String> {
        let Found::Route(route) = table::find(&Method::Get, "/processes", Port::Api) else {
            panic!("it is a route")
        };
        Parameters::of(route, query).map_err(|problem| problem.detail.to_string())
    }

    #[test]
    fn a_parameter_is_found_by_its_decoded_name_and_an_empty_one_is_absent() {
        let parameters = of("&st%61tus=a%2Cb&type=nightly+load&name=&&limit").unwrap();
        assert_eq!(parameters.get("status"), Some("a,b"));
        assert_eq!(parameters.get("type"), Some("nightly load"));
        assert_eq!(parameters.get("name"), None);
        assert_eq!(parameters.given("name"), Some(""));
        assert_eq!(parameters.get("limit"), None);
        assert_eq!(parameters.get("cursor"), None);
    }

    #[test]
    fn what_a_route_does_not_know_or_is_told_twice_is_refused_in_words() {
        let why = |query: &str| of(query).err().unwrap();
        assert_eq!(
            why("limit=5&staus=EXPIRED"),
            "there is no parameter \"staus\" here; /processes takes tenant, status, type, name, limit, cursor"
        );
        let long = "x".repeat(10_000);
        assert!(why(&long).len() < 200, "it is not told back whole");
        assert_eq!(why("limit=5&limit=6"), "the parameter limit is given twice");
        for broken in ["limit=%", "%ff=1"] {
            assert!(why(broken).contains("percent-encoded"), "{broken}");
        }
    }

    #[test]
    fn a_wait_has_a_unit_and_a_limit() {
        assert_eq!(duration("2s"), Some(Duration::from_secs(2)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("20"), Some(Duration::from_secs(20)));
        for bad in ["", "s", "-1s", "2h", "61s", "1.5s", "99999999999999999999m"] {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
    }
}
