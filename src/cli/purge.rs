//! `sentinel purge --tenant T` removes a tenant from a stopped embedded store. This module says what there is of it, and
//! removes that only when it is told to.

use crate::config::Overrides;
use crate::domain::ids::TenantId;
use crate::service;
use crate::store::sqlite;

/// Remove everything of one tenant from the embedded store
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sentinel purge --tenant acme
  sentinel --database sqlite:///var/lib/sentinel purge --tenant acme --yes

Without --yes it counts and changes nothing. The service must not be running. Events, processes, runs, dead letters, \
log rows and remembered keys of the tenant go from all three files and from the snapshots, and the files are written \
anew, for which each needs room for a copy of itself; other tenants keep every row and number. Backups are not touched: \
remove them yourself. It cannot be undone.")]
pub struct PurgeArgs {
    /// Whose data goes
    #[arg(long, value_name = "TENANT", value_parser = TenantId::parse)]
    tenant: TenantId,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// Counts, or removes and says what was there.
///
/// # Errors
/// When another instance holds the store, there is none, or a file cannot be read or written.
pub fn run(args: &PurgeArgs, overrides: Overrides) -> anyhow::Result<()> {
    let (config, _warnings) = super::load(overrides)?;
    super::embedded_only(
        &config,
        "delete the tenant's rows with SQL; every table has the column tenant_id",
    )?;
    super::store_there(&config)?;
    let settings = service::settings(&config);
    let tenant = &args.tenant;
    if args.yes {
        let purged = sqlite::purge(&settings, tenant)?;
        super::print(&format!("removed of tenant {tenant}: {purged}"))?;
    } else {
        let found = sqlite::look_for(&settings, tenant)?;
        super::print(&format!(
            "there is of tenant {tenant}: {found}\nnothing was changed: --yes removes it"
        ))?;
    }
    Ok(())
}
