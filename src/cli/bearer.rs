//! The token that a client command shows. This module finds it: the one that the environment names, or one of our own,
//! signed with the development key.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::token;
use crate::config::{self, Overrides};
use crate::domain::ids::TenantId;
use crate::http::auth::Role;

/// How long a token of our own is good for. It is made anew at half time.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

/// Where the token comes from.
pub(super) enum Token {
    /// Probes need none.
    None,
    /// From the environment or a file. Read anew after a 401: whoever rotates it need not tell us.
    Given(String),
    Development {
        folder: PathBuf,
        tenant: TenantId,
        made: Option<(Instant, String)>,
    },
}

impl Token {
    /// The token that the settings name, or one of our own.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(super) fn find(settings: &config::Client) -> anyhow::Result<Self> {
        if let Some(token) = &settings.token {
            return Ok(Self::Given(token.clone()));
        }
        let (folder, tenant) = (settings.data_folder.clone(), settings.tenant.clone());
        let mut token = Self::Development { folder, tenant, made: None };
        token.bearer().context(
            "there is no token: set SENTINEL_TOKEN or SENTINEL_TOKEN_FILE, or run where the development key is",
        )?;
        Ok(token)
    }

    /// The token for the next request.
    ///
    /// # Errors
    /// When one of our own cannot be signed.
    pub(super) fn bearer(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::None => Ok(None),
            Self::Given(token) => Ok(Some(token.clone())),
            Self::Development { folder, tenant, made } => {
                if let Some((since, token)) = made
                    && since.elapsed() < TOKEN_TTL / 2
                {
                    return Ok(Some(token.clone()));
                }
                // What every client command needs: to report processes and to read.
                let token = token::sign(folder, tenant, &[Role::Write], TOKEN_TTL)?;
                *made = Some((Instant::now(), token.clone()));
                Ok(Some(token))
            }
        }
    }
}

/// The token that the environment names, or one signed with the development key, for commands that do their own
/// talking.
///
/// # Errors
/// When there is none to be had.
pub(super) fn token(overrides: Overrides) -> anyhow::Result<String> {
    let settings = config::Client::from_environment(overrides)?;
    Token::find(&settings)?.bearer()?.context("there is no token")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::http::auth::development::DevelopmentKey;

    /// Settings that name no token.
    pub(in crate::cli) fn settings(folder: &std::path::Path) -> config::Client {
        config::Client {
            url: "http://127.0.0.1:8090".to_string(),
            url_is_given: false,
            token: None,
            ca_file: None,
            certificate: None,
            tenant: TenantId::parse("demo").unwrap(),
            data_folder: folder.to_path_buf(),
        }
    }

    #[test]
    fn a_token_is_the_one_given_or_signed_with_the_development_key() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(folder.path());
        let error = Token::find(&settings).map(|_| ()).unwrap_err();
        assert!(
            format!("{error:#}").starts_with("there is no token: set SENTINEL_TOKEN"),
            "{error:#}"
        );
        DevelopmentKey::open_or_make(folder.path()).unwrap();
        let mut token = Token::find(&settings).unwrap();
        let signed = token.bearer().unwrap().unwrap();
        assert_eq!(signed.split('.').count(), 3);
        assert_eq!(
            token.bearer().unwrap(),
            Some(signed),
            "it is kept until half of its time is over"
        );
        settings.token = Some("given".to_string());
        assert_eq!(Token::find(&settings).unwrap().bearer().unwrap().as_deref(), Some("given"));
    }
}
