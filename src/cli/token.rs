//! `sentinel token` signs a token with the development key. This module is for a machine under a desk: where an
//! identity provider is set, tokens come from there and nowhere else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::exit::{Code, Exit};
use crate::config::{Mode, Overrides};
use crate::domain::ids::TenantId;
use crate::http::auth::{Role, development, unix_seconds};

/// The longest life of a development token: it cannot be called back.
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Sign a token with the development key
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  export SENTINEL_TOKEN=$(sentinel token --tenant demo)
  sentinel token --tenant demo --role sentinel:admin --ttl 8h

Roles: sentinel:read, sentinel:write, sentinel:operate, sentinel:admin; each includes those before it. \
Works only in development mode, in the folder where the service keeps its key, or with --database.")]
pub struct TokenArgs {
    /// Whose data it is for
    #[arg(long, value_name = "TENANT", value_parser = TenantId::parse)]
    tenant: TenantId,
    /// What it may do; can be given more than once
    #[arg(long = "role", value_name = "ROLE", default_value = "sentinel:write", value_parser = role)]
    roles: Vec<Role>,
    /// How long it is good for
    #[arg(long, value_name = "PAUSE", default_value = "1h", value_parser = time_to_live)]
    ttl: Duration,
}

/// Prints a token.
///
/// # Errors
/// When the configuration has problems, an identity provider is set, or the key cannot be read.
pub fn run(args: &TokenArgs, overrides: Overrides) -> anyhow::Result<()> {
    let folder = development_folder(overrides)?;
    let token = sign(&folder, &args.tenant, &args.roles, args.ttl)?;
    super::print(&token)?;
    Ok(())
}

/// Where the development key lies.
///
/// # Errors
/// When the configuration has problems or an identity provider is set.
pub(super) fn development_folder(overrides: Overrides) -> anyhow::Result<PathBuf> {
    let (config, _warnings) = super::load(overrides)?;
    match config.mode {
        Mode::Development => Ok(config.data_folder),
        Mode::Provider(_) => Err(Exit::new(
            Code::Configuration,
            "an identity provider is set (OAUTH2_ISSUER_URI): get the token from it",
        )
        .into()),
    }
}

/// Signs with the development key in `folder`.
///
/// # Errors
/// When it cannot be read.
pub(super) fn sign(
    folder: &Path,
    tenant: &TenantId,
    roles: &[Role],
    ttl: Duration,
) -> anyhow::Result<String> {
    development::token(folder, tenant, roles, ttl, unix_seconds())
        .with_context(|| format!("cannot sign with the development key in {}", folder.display()))
}

fn role(text: &str) -> Result<Role, String> {
    let known = Role::ALL.map(Role::as_str);
    known
        .iter()
        .position(|name| *name == text)
        .map(|at| Role::ALL[at])
        .ok_or_else(|| format!("known roles are {}", known.join(", ")))
}

fn time_to_live(text: &str) -> Result<Duration, String> {
    let ttl = super::pause(text)?;
    if ttl >= Duration::from_secs(1) && ttl <= TTL_MAX {
        Ok(ttl)
    } else {
        Err("it must be between 1s and 720h".to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_one_that_the_service_knows() {
        assert_eq!(role("sentinel:admin"), Ok(Role::Admin));
        assert!(role("admin").unwrap_err().contains("sentinel:admin"));
    }

    #[test]
    fn a_token_does_not_live_for_ever() {
        assert_eq!(time_to_live("8h"), Ok(Duration::from_secs(8 * 3600)));
        for bad in ["0s", "721h", "for ever"] {
            assert!(time_to_live(bad).is_err(), "{bad:?}");
        }
    }
}
