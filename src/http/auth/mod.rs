//! The door: who is asking, by the token that they bring. This module is the only maker of a [`Principal`], and
//! every request that is about anybody's data needs one.
//!
//! A token is verified by a key of the identity provider; the key fixes the algorithm and the token has no say in
//! it. Checking never blocks a poll loop: a token that was seen within the last minute costs a digest, another one a
//! signature, and where newer keys must be waited for, [`AuthError::Retry`] sends the request to a worker, which
//! waits in [`Authenticator::check_waiting`].

mod cache;
pub mod development;
mod discovery;
mod keyring;
mod keys;
mod principal;
mod provider;
mod recent;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) use discovery::{roots, tls};
pub use keyring::{KeysState, Refresher, unix_seconds};
pub use principal::{Principal, Role, Roles};
pub use recent::Recent;

use cache::{Cache, Times};
use development::DevelopmentKey;
use discovery::{KeySource, WebSource};
use keyring::{Asked, Keyring};
use keys::{Expectations, KeySet};

use crate::certificates::PeerCertificate;
use crate::config::{Config, DefaultRole, Mode, Provider};
use crate::room::Accounts;

/// A longer token is refused before anything in it is read.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// What a 401 says in `WWW-Authenticate`.
pub const CHALLENGE: &str = "Bearer error=\"invalid_token\"";
/// How long a worker waits for newer keys.
pub const KEYS_WAIT: Duration = Duration::from_secs(5);
/// Unknown tokens may hold up one worker at a time and never all of them.
const WAITERS_MAX: usize = 1;

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// 401: there is no token.
    #[error("the request has no bearer token")]
    Missing,
    /// 401: the token is no good, and why.
    #[error("{0}")]
    Invalid(&'static str),
    /// 503: there are no keys to tell, or newer ones could not be had in time.
    #[error("the keys of the identity provider are not there yet")]
    NoKeys,
    /// Not an answer: newer keys are on their way, and a worker should wait for them.
    #[error("newer keys of the identity provider are on their way")]
    Retry,
}

/// Asks `provider` for its keys once, as the service does, and says how many of them can be used: for `doctor`.
///
/// # Errors
/// When there is no answer, it is no key set, or none of its keys can be used.
pub fn usable_keys(provider: &Provider) -> anyhow::Result<usize> {
    let document = WebSource::new(provider)?.fetch()?;
    let expected = Expectations {
        issuer: provider.issuer.as_str().to_string(),
        audience: provider.audience.clone(),
    };
    Ok(KeySet::parse(&document, &expected)?.len())
}

/// Verifies tokens. One for the whole service, shared by all loops and workers.
pub struct Authenticator {
    keyring: Arc<Keyring>,
    default_role: DefaultRole,
    accounts: Accounts,
    waiters: AtomicUsize,
}

impl Authenticator {
    /// The authenticator that `config` asks for, and the thread's body that keeps its keys fresh: start it. In
    /// development mode there is none, because there the key is our own.
    ///
    /// # Errors
    /// When the development key or the provider's CA cannot be read.
    pub fn new(config: &Config) -> anyhow::Result<(Arc<Self>, Option<Refresher>)> {
        match &config.mode {
            Mode::Development => {
                let key = DevelopmentKey::open_or_make(&config.data_folder)?;
                let keyring = Arc::new(Keyring::fixed(key.key_set()));
                Ok((Arc::new(Self::with(keyring, config.default_role)), None))
            }
            Mode::Provider(provider) => {
                let expected = Expectations {
                    issuer: provider.issuer.as_str().to_string(),
                    audience: provider.audience.clone(),
                };
                let source = Box::new(WebSource::new(provider)?);
                let (authenticator, refresher) =
                    Self::fed_by(source, expected, config.default_role);
                Ok((authenticator, Some(refresher)))
            }
        }
    }

    /// An authenticator of the keys in `document`, a JWKS, that never asks for newer ones.
    ///
    /// Public for `tests/fuzz`, which brings forged tokens to it. It opens no way around the provider: what it makes
    /// is a door of its own, and nothing in this program puts it in front of anything.
    ///
    /// # Errors
    /// When the document holds no key that we can use.
    pub fn of_key_set(
        document: &[u8],
        issuer: &str,
        audience: Vec<String>,
        default_role: DefaultRole,
    ) -> anyhow::Result<Self> {
        let expected = Expectations { issuer: issuer.to_string(), audience };
        let keyring = Arc::new(Keyring::fixed(KeySet::parse(document, &expected)?));
        Ok(Self::with(keyring, default_role))
    }

    fn fed_by(
        source: Box<dyn KeySource>,
        expected: Expectations,
        default_role: DefaultRole,
    ) -> (Arc<Self>, Refresher) {
        let refresher = Refresher::new(source, expected);
        (Arc::new(Self::with(Arc::clone(&refresher.keyring), default_role)), refresher)
    }

    fn with(keyring: Arc<Keyring>, default_role: DefaultRole) -> Self {
        provider::install();
        Self { keyring, default_role, accounts: Accounts::default(), waiters: AtomicUsize::new(0) }
    }

    /// Who sent this `Authorization` at `now_s` (seconds since 1970), on a connection without a certificate. Never
    /// blocks.
    ///
    /// # Errors
    /// [`AuthError`] says what to answer; [`AuthError::Retry`] that [`Self::check_waiting`] may know more.
    pub fn check(
        &self,
        authorization: Option<&str>,
        now_s: u64,
    ) -> Result<Arc<Principal>, AuthError> {
        let principal = self.look(authorization, now_s, None)?;
        principal.is_held_by(None)?;
        Ok(principal)
    }

    /// The same, for a thread that remembers the tokens it saw last, and a connection that has proven `certificate`.
    /// What is remembered is who sent a token; whether it may come by this connection is asked each time.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_again(
        &self,
        recent: &mut Recent,
        authorization: Option<&str>,
        certificate: Option<&PeerCertificate>,
        now_s: u64,
    ) -> Result<Arc<Principal>, AuthError> {
        let known = authorization
            .and_then(|authorization| recent.get(authorization, self.keyring.generation(), now_s));
        let principal = known.map_or_else(|| self.look(authorization, now_s, Some(recent)), Ok)?;
        principal.is_held_by(certificate)?;
        Ok(principal)
    }

    fn look(
        &self,
        authorization: Option<&str>,
        now_s: u64,
        recent: Option<&mut Recent>,
    ) -> Result<Arc<Principal>, AuthError> {
        let token = bearer(authorization)?;
        let digest = Cache::digest(token);
        let current = self.keyring.current();
        if let Some(kept) = self.keyring.cache.get(&digest, current.generation, now_s) {
            let principal = Arc::clone(&kept.principal);
            if let (Some(recent), Some(authorization)) = (recent, authorization) {
                recent.put(authorization, current.generation, kept);
            }
            return Ok(principal);
        }
        let kid = kid(token)?;
        if !current.set.holds(&kid) {
            return Err(match self.keyring.ask(now_s) {
                Asked::Coming => AuthError::Retry,
                Asked::TooSoon if current.set.is_empty() => AuthError::NoKeys,
                Asked::Failed => AuthError::NoKeys,
                Asked::TooSoon => AuthError::Invalid("no key has the token's kid"),
            });
        }
        let claims = current.set.verify(&kid, token, now_s)?;
        let principal = Arc::new(Principal::of(&claims, self.default_role, &self.accounts)?);
        let times = Times {
            not_before: claims.nbf.unwrap_or(0.0).max(claims.iat.unwrap_or(0.0)),
            expiry: claims.exp.unwrap_or(0.0),
        };
        let (kept, generation) = (Arc::clone(&principal), current.generation);
        self.keyring.cache.put(digest, kept, generation, times, now_s);
        Ok(principal)
    }

    /// The same, and waits up to `wait` where newer keys are on their way. For workers, after [`AuthError::Retry`].
    ///
    /// # Errors
    /// [`AuthError`] says what to answer. It is never [`AuthError::Retry`].
    pub fn check_waiting(
        &self,
        authorization: Option<&str>,
        certificate: Option<&PeerCertificate>,
        now_s: u64,
        wait: Duration,
    ) -> Result<Arc<Principal>, AuthError> {
        let deadline = Instant::now() + wait;
        loop {
            let rounds = self.keyring.rounds();
            match self.look(authorization, now_s, None) {
                Err(AuthError::Retry) => {}
                Err(error) => return Err(error),
                Ok(principal) => {
                    principal.is_held_by(certificate)?;
                    return Ok(principal);
                }
            }
            let Some(_seat) = Seat::take(&self.waiters) else { return Err(AuthError::NoKeys) };
            if !self.keyring.wait_past(rounds, deadline) {
                return Err(AuthError::NoKeys);
            }
        }
    }

    /// How the keys are at `now_s`, for `/ready`.
    pub fn keys_state(&self, now_s: u64) -> KeysState {
        self.keyring.state(now_s)
    }
}

/// The place of one who waits, given back on drop.
struct Seat<'a>(&'a AtomicUsize);

impl<'a> Seat<'a> {
    fn take(taken: &'a AtomicUsize) -> Option<Self> {
        if taken.fetch_add(1, Ordering::AcqRel) < WAITERS_MAX {
            return Some(Self(taken));
        }
        taken.fetch_sub(1, Ordering::AcqRel);
        None
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The token of an `Authorization` field, if it can be one: three parts of base64url, and not too long.
fn bearer(authorization: Option<&str>) -> Result<&str, AuthError> {
    let (scheme, token) = authorization
        .ok_or(AuthError::Missing)?
        .split_once(' ')
        .ok_or(AuthError::Invalid("the authorization is not Bearer and a token"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Invalid("the authorization is not Bearer and a token"));
    }
    let token = token.trim_matches(' ');
    if token.len() > TOKEN_BYTES_MAX {
        return Err(AuthError::Invalid("the token is longer than 8 KiB"));
    }
    let mut dots = 0;
    for byte in token.bytes() {
        match byte {
            b'.' => dots += 1,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            _ => return Err(AuthError::Invalid("the token is malformed")),
        }
    }
    if dots == 2 { Ok(token) } else { Err(AuthError::Invalid("the token is malformed")) }
}

/// The name of the key that the token says it is signed with. That is all that its head is trusted for.
fn kid(token: &str) -> Result<String, AuthError> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| {
        AuthError::Invalid("the token's head is malformed or names no algorithm that we know")
    })?;
    if header.crit.is_some() {
        return Err(AuthError::Invalid("the token's head demands an extension"));
    }
    header.kid.ok_or(AuthError::Invalid("the token's head names no key"))
}

#[cfg(test)]
mod tests;
