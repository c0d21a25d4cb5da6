//! `sentinel token` signs a token with the development key. This module is for a machine under a desk: where an
//! identity provider is set, tokens come from there and nowhere else.

use std::path::Path;
use std::time::Duration;

use super::exit::{Code, Exit};
use crate::config::{Config, Mode, Overrides};
use crate::domain::ids::TenantId;
use crate::http::auth::{Role, development, unix_seconds};

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
    #[arg(long, value_name = "PAUSE", default_value = "1h", value_parser = super::pause)]
    ttl: Duration,
}

/// Prints a token.
///
/// # Errors
/// When the configuration has problems, an identity provider is set, or the key cannot be read.
pub fn run(args: &TokenArgs, overrides: Overrides) -> anyhow::Result<()> {
    let (config, _warnings) = Config::from_environment(overrides)?;
    if config.mode != Mode::Development {
        let words = "an identity provider is set (OAUTH2_ISSUER_URI): get the token from it";
        return Err(Exit::new(Code::Configuration, words).into());
    }
    let token = sign(&config.data_folder, &args.tenant, &args.roles, args.ttl)?;
    super::print(&token)?;
    Ok(())
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
}

fn role(text: &str) -> Result<Role, String> {
    let known = || Role::ALL.map(Role::as_str).join(", ");
    Role::parse(text).ok_or_else(|| format!("known roles are {}", known()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_one_that_the_service_knows() {
        assert_eq!(role("sentinel:admin"), Ok(Role::Admin));
        assert!(role("root").unwrap_err().contains("sentinel:admin"));
    }
}
