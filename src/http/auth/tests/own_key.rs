//! The door of a development machine. This module brings it tokens of its own and of others.

use std::path::PathBuf;

use super::*;
use crate::config::Surroundings;
use crate::domain::ids::TenantId;

#[test]
fn a_development_service_takes_its_own_tokens_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", folder.path().display());
    let (config, _) = Config::load(&Surroundings {
        lookup: &|name| (name == "SENTINEL_DATABASE").then(|| database.clone()),
        names: &[],
        read_file: &|_| Err(std::io::ErrorKind::NotFound.into()),
        overrides: Default::default(),
        cores: 1,
        terminal: false,
    })
    .unwrap();
    let (door, refresher) = Authenticator::new(&config).unwrap();
    assert!(refresher.is_none());
    assert_eq!(door.keys_state(NOW), KeysState::Development);
    let tenant = TenantId::parse("contoso").unwrap();
    let sign = |folder: PathBuf| {
        let ttl = Duration::from_secs(3600);
        development::token(&folder, &tenant, &[Role::Admin], ttl, NOW).unwrap()
    };
    let token = format!("Bearer {}", sign(folder.path().to_path_buf()));
    let principal = door.check(Some(&token), NOW).unwrap();
    assert_eq!(principal.tenant(), &tenant);
    assert!(principal.may(Role::Admin));
    door.check(Some(&token), NOW + 3600 + 30).unwrap_err();

    let elsewhere = tempfile::tempdir().unwrap();
    DevelopmentKey::open_or_make(elsewhere.path()).unwrap();
    let foreign = format!("Bearer {}", sign(elsewhere.path().to_path_buf()));
    assert!(matches!(door.check(Some(&foreign), NOW), Err(AuthError::Invalid(_))));
}
