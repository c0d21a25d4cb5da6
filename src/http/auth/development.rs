//! The signing key of a development machine. This module makes it in the data folder, for the owner's eyes only, and
//! signs tokens with it. No service with an identity provider ever trusts it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

use super::keys::{Expectations, KeySet};
use super::principal::Role;
use super::provider;
use crate::domain::ids::TenantId;

/// Who issues the tokens of a development machine.
pub const ISSUER: &str = "sentinel-development";
/// Whom they are for.
pub const AUDIENCE: &str = "clm-service";
/// The key's file in the data folder.
pub const KEY_FILE: &str = "dev-key.pk8";
/// A PKCS#8 document of a P-256 key has some 140 bytes.
const KEY_BYTES_MAX: u64 = 4096;
/// A token for longer is a key that lies about.
pub const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The signing key of a development machine.
pub struct DevelopmentKey {
    pkcs8: Vec<u8>,
    /// The public point, uncompressed.
    point: Vec<u8>,
    /// The RFC 7638 thumbprint.
    kid: String,
}

impl std::fmt::Debug for DevelopmentKey {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevelopmentKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl DevelopmentKey {
    /// Reads the key in `folder`.
    ///
    /// # Errors
    /// When there is none, or when others may read it.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(KEY_FILE);
        let file = File::open(&path)
            .with_context(|| format!("no development key in {}", path.display()))?;
        let mode = file.metadata()?.permissions().mode();
        ensure!(
            mode & 0o077 == 0,
            "{} may be read by others; chmod 600 it, or remove it to get a new one",
            path.display()
        );
        let mut pkcs8 = Vec::new();
        file.take(KEY_BYTES_MAX).read_to_end(&mut pkcs8)?;
        Self::parse(pkcs8).with_context(|| path.display().to_string())
    }

    /// Reads the key in `folder`, which is made if need be, and so is the key.
    ///
    /// # Errors
    /// When the key can be neither read nor made.
    pub fn open_or_make(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(KEY_FILE);
        if !path.try_exists().with_context(|| path.display().to_string())? {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            make(folder).with_context(|| format!("cannot make {}", path.display()))?;
        }
        Self::open(folder)
    }

    fn parse(pkcs8: Vec<u8>) -> anyhow::Result<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &pkcs8,
            &SystemRandom::new(),
        )
        .map_err(|_| anyhow::anyhow!("is no P-256 key; remove it to get a new one"))?;
        let point = pair.public_key().as_ref().to_vec();
        let (x, y) = coordinates(&point);
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
        Ok(Self { pkcs8, point, kid })
    }

    /// A token for `tenant` with `roles`, good from `now_s` for `ttl`.
    ///
    /// # Errors
    /// When `ttl` is less than a second or more than [`TTL_MAX`].
    pub fn sign(
        &self,
        tenant: &TenantId,
        roles: &[Role],
        ttl: Duration,
        now_s: u64,
    ) -> anyhow::Result<String> {
        if ttl.as_secs() == 0 || ttl > TTL_MAX {
            bail!("a token is good for 1 s to {} days", TTL_MAX.as_secs() / 86_400);
        }
        provider::install();
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.clone());
        let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let claims = json!({
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "developer",
            "tenant_id": tenant,
            "roles": roles,
            "iat": now_s,
            "exp": now_s.saturating_add(ttl.as_secs()),
        });
        Ok(jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(&self.pkcs8))?)
    }

    /// The key set that verifies what this key signs.
    pub(super) fn key_set(&self) -> KeySet {
        let (x, y) = coordinates(&self.point);
        let key = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": x, "y": y});
        let document = json!({ "keys": [key] }).to_string();
        let expected =
            Expectations { issuer: ISSUER.to_string(), audience: vec![AUDIENCE.to_string()] };
        KeySet::parse(document.as_bytes(), &expected).expect("our own key set is one")
    }
}

/// A token signed with the key in `folder`, for `sentinel token` and for client commands on the same machine.
///
/// # Errors
/// When there is no readable key, or the time is out of bounds.
pub fn token(
    folder: &Path,
    tenant: &TenantId,
    roles: &[Role],
    ttl: Duration,
    now_s: u64,
) -> anyhow::Result<String> {
    let key = DevelopmentKey::open(folder).map_err(|error| {
        let is_hidden = error.chain().any(|cause| {
            let cause = cause.downcast_ref::<io::Error>();
            cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
        });
        error.context(if is_hidden {
            "run this as the user whose service it is"
        } else {
            "start the service in development mode first, with the same SENTINEL_DATABASE"
        })
    })?;
    key.sign(tenant, roles, ttl, now_s)
}

fn coordinates(point: &[u8]) -> (String, String) {
    let (x, y) = point[1..].split_at(32);
    (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
}

/// Makes a key so that its file is there whole or not at all, and the first one stays when two are made at once.
fn make(folder: &Path) -> anyhow::Result<()> {
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    let draft: PathBuf = folder.join(format!("{KEY_FILE}.{}", uuid::Uuid::now_v7()));
    let linked = write_draft(&draft, pkcs8.as_ref())
        .and_then(|()| fs::hard_link(&draft, folder.join(KEY_FILE)));
    let _ = fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
        Ok(()) | Err(_) => Ok(File::open(folder)?.sync_all()?),
    }
}

fn write_draft(draft: &Path, pkcs8: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(pkcs8)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const HOUR: Duration = Duration::from_secs(3600);

    fn tenant() -> TenantId {
        TenantId::parse("contoso").unwrap()
    }

    #[test]
    fn the_key_is_made_once_for_the_owner_alone_and_signs_what_it_verifies() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        assert!(
            token(&data, &tenant(), &[Role::Write], HOUR, NOW).is_err(),
            "nothing is there yet"
        );
        let first = DevelopmentKey::open_or_make(&data).unwrap();
        let second = DevelopmentKey::open_or_make(&data).unwrap();
        assert_eq!(first.kid, second.kid);
        let mode = fs::metadata(data.join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "no draft is left");
        let token = token(&data, &tenant(), &[Role::Write], HOUR, NOW).unwrap();
        first.key_set().verify(&first.kid, &token, NOW).unwrap();
    }

    #[test]
    fn several_services_at_once_agree_on_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let kids: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| DevelopmentKey::open_or_make(folder.path()).unwrap().kid))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(kids.iter().all(|kid| *kid == kids[0]), "{kids:?}");
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        DevelopmentKey::open_or_make(folder.path()).unwrap();
        let path = folder.path().join(KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = DevelopmentKey::open(folder.path()).err().unwrap();
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "no key").unwrap();
        DevelopmentKey::open(folder.path()).unwrap_err();
    }

    #[test]
    fn no_token_is_for_ever_or_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let key = DevelopmentKey::open_or_make(folder.path()).unwrap();
        for ttl in [Duration::ZERO, TTL_MAX + Duration::from_secs(1)] {
            key.sign(&tenant(), &[], ttl, NOW).unwrap_err();
        }
    }
}
