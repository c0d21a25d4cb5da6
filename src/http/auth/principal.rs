//! Who is asking, and what they may do. This module turns the claims of a verified token into a [`Principal`]; there
//! is no other way to come by one, so whoever holds a principal knows that a token was verified.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::AuthError;
use crate::certificates::{PeerCertificate, Thumbprint};
use crate::config::DefaultRole;
use crate::domain::ids::TenantId;
use crate::room::{Account, Accounts};

/// Clocks of honest machines differ by no more.
pub(super) const LEEWAY_S: f64 = 30.0;
/// A longer subject is cut: it is a name for people, in decisions and logs.
const SUBJECT_CHARS_MAX: usize = 200;
/// What our roles begin with. Other roles of the token are none of our business.
const PREFIX: &str = "sentinel:";

/// What a caller may do. Each role includes those above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read its own tenant.
    Read,
    /// Post events, report processes, create jobs.
    Write,
    /// Decide approvals, replay or discard dead letters, cancel jobs.
    Operate,
    /// The same for every tenant, named explicitly.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Operate, Self::Admin];

    /// The role as tokens name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "sentinel:read",
            Self::Write => "sentinel:write",
            Self::Operate => "sentinel:operate",
            Self::Admin => "sentinel:admin",
        }
    }

    /// The role that `text` names, with or without the prefix `sentinel:`.
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix(PREFIX).unwrap_or(text);
        Self::ALL.into_iter().find(|role| &role.as_str()[PREFIX.len()..] == bare)
    }

    /// The bits of this role and of every role that it includes.
    fn bits(self) -> u8 {
        match self {
            Self::Read => 0b0001,
            Self::Write => 0b0011,
            Self::Operate => 0b0111,
            Self::Admin => 0b1111,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u8);

impl Roles {
    /// May do nothing.
    pub const NONE: Self = Self(0);

    /// These roles and those that they include.
    pub fn of(roles: &[Role]) -> Self {
        Self(roles.iter().fold(0, |bits, role| bits | role.bits()))
    }

    /// Whether `role` is among them.
    pub fn includes(self, role: Role) -> bool {
        self.0 & role.bits() == role.bits()
    }
}

/// Whoever sent a request with a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    tenant: TenantId,
    /// What the tenant holds of the rooms that it shares with others.
    account: Arc<Account>,
    roles: Roles,
    subject: String,
    /// When the door stops taking the token, since 1970. None: later than can be said.
    until: Option<Duration>,
    /// The only certificate that the token is good with (RFC 8705).
    bound_to: Option<Thumbprint>,
}

impl Principal {
    /// Whether the token is good on a connection that has proven this certificate.
    pub(super) fn is_held_by(
        &self,
        certificate: Option<&PeerCertificate>,
    ) -> Result<(), AuthError> {
        match (&self.bound_to, certificate) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(AuthError::Invalid(
                "the token is bound to a client certificate, and this connection shows none",
            )),
            (Some(bound), Some(shown)) if bound == shown.thumbprint() => Ok(()),
            (Some(_), Some(_)) => Err(AuthError::Invalid(
                "the token is bound to another client certificate than this connection's",
            )),
        }
    }

    /// Whose data they see.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// What their tenant holds, by whatever token.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// What they may do.
    pub fn roles(&self) -> Roles {
        self.roles
    }

    /// Whether they may do what `role` may do.
    pub fn may(&self, role: Role) -> bool {
        self.roles.includes(role)
    }

    /// How long the door will go on taking the token, at `now` since 1970. None: for longer than can be said.
    ///
    /// Whoever goes on answering after that must ask for a new token first.
    pub fn good_for(&self, now: Duration) -> Option<Duration> {
        self.until.map(|until| until.saturating_sub(now))
    }

    /// What the identity provider calls them.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// A principal for tests of what lies behind the door.
    #[cfg(test)]
    pub(crate) fn for_tests(tenant: &str, roles: &[Role]) -> Self {
        let tenant = TenantId::parse(tenant).unwrap();
        Self {
            account: Arc::new(Account::new(tenant.clone())),
            tenant,
            roles: Roles::of(roles),
            subject: "tester".to_string(),
            until: None,
            bound_to: None,
        }
    }

    /// The principal of a token whose signature, issuer, audience and times are verified.
    pub(super) fn of(
        claims: &Claims,
        default_role: DefaultRole,
        accounts: &Accounts,
    ) -> Result<Self, AuthError> {
        let bound = claims.cnf.as_ref().and_then(|cnf| cnf.get("x5t#S256"));
        let bound_to = bound.map(thumbprint).transpose()?;
        let tenant = match &claims.tenant_id {
            Some(Value::String(tenant)) => TenantId::parse(tenant)
                .map_err(|_| AuthError::Invalid("the claim tenant_id is not a tenant's name"))?,
            Some(_) => return Err(AuthError::Invalid("the claim tenant_id is not text")),
            None => return Err(AuthError::Invalid("the claim tenant_id is missing")),
        };
        let subject = [&claims.sub, &claims.azp, &claims.client_id]
            .into_iter()
            .flatten()
            .find_map(Value::as_str)
            .unwrap_or("-");
        Ok(Self {
            account: accounts.of(&tenant),
            tenant,
            roles: claims.roles(default_role),
            subject: subject.chars().take(SUBJECT_CHARS_MAX).collect(),
            until: Duration::try_from_secs_f64((claims.exp.unwrap_or(0.0) + LEEWAY_S).max(0.0))
                .ok(),
            bound_to,
        })
    }
}

/// What `cnf.x5t#S256` says: 32 bytes in base64url, without padding.
fn thumbprint(claim: &Value) -> Result<Thumbprint, AuthError> {
    let text = claim.as_str().unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    bytes.try_into().map_err(|_| {
        AuthError::Invalid("the claim cnf.x5t#S256 is no SHA-256 thumbprint in base64url")
    })
}

/// The claims that we look at. What is of no use to us is not read, whatever it holds.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: Option<Value>,
    pub(super) exp: Option<f64>,
    pub(super) iat: Option<f64>,
    pub(super) nbf: Option<f64>,
    tenant_id: Option<Value>,
    sub: Option<Value>,
    azp: Option<Value>,
    client_id: Option<Value>,
    roles: Option<Value>,
    realm_access: Option<Value>,
    scope: Option<Value>,
    cnf: Option<Value>,
}

impl Claims {
    /// The roles that the token names, in any of the three places.
    fn roles(&self, default_role: DefaultRole) -> Roles {
        let realm = self.realm_access.as_ref().and_then(|access| access.get("roles"));
        let (mut bits, mut named) = (0, false);
        for place in [self.roles.as_ref(), realm, self.scope.as_ref()].into_iter().flatten() {
            let mut take = |words: &str| {
                for word in words.split(' ').filter(|word| word.starts_with(PREFIX)) {
                    // A role of ours that we don't know grants nothing, and is no reason for the default.
                    named = true;
                    bits |= Role::parse(word).map_or(0, Role::bits);
                }
            };
            match place {
                Value::String(words) => take(words),
                Value::Array(words) => words.iter().filter_map(Value::as_str).for_each(take),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
            }
        }
        match default_role {
            DefaultRole::Read if !named => Roles::of(&[Role::Read]),
            DefaultRole::Read | DefaultRole::None => Roles(bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn principal(claims: Value, default_role: DefaultRole) -> Result<Principal, AuthError> {
        let accounts = Accounts::default();
        Principal::of(&serde_json::from_value(claims).unwrap(), default_role, &accounts)
    }

    #[test]
    fn each_role_includes_those_above_it() {
        for (index, role) in Role::ALL.into_iter().enumerate() {
            for (other_index, other) in Role::ALL.into_iter().enumerate() {
                assert_eq!(
                    Roles::of(&[role]).includes(other),
                    other_index <= index,
                    "{role} {other}"
                );
            }
            assert!(!Roles::NONE.includes(role));
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("write"), Some(Role::Write));
        assert_eq!(Role::parse("sentinel:root"), None);
    }

    #[test]
    fn roles_come_from_three_places() {
        for claims in [
            json!({"tenant_id": "t", "roles": ["x", "sentinel:write"]}),
            json!({"tenant_id": "t", "realm_access": {"roles": ["offline_access", "sentinel:write"]}}),
            json!({"tenant_id": "t", "scope": "openid sentinel:write"}),
            json!({"tenant_id": "t", "roles": 7, "realm_access": "x", "scope": ["sentinel:write"]}),
        ] {
            let roles = principal(claims.clone(), DefaultRole::None).unwrap().roles();
            assert_eq!(roles, Roles::of(&[Role::Write]), "{claims}");
        }
    }

    #[test]
    fn a_token_without_roles_of_ours_gets_the_default_and_an_unknown_one_of_ours_gets_nothing() {
        let plain = json!({"tenant_id": "t", "roles": ["admin"], "scope": "openid"});
        assert_eq!(
            principal(plain.clone(), DefaultRole::Read).unwrap().roles(),
            Roles::of(&[Role::Read])
        );
        assert_eq!(principal(plain, DefaultRole::None).unwrap().roles(), Roles::NONE);
        let unknown = json!({"tenant_id": "t", "roles": ["sentinel:root"]});
        assert_eq!(principal(unknown, DefaultRole::Read).unwrap().roles(), Roles::NONE);
    }

    #[test]
    fn the_tenant_must_be_named_and_be_one() {
        for claims in [
            json!({}),
            json!({"tenant_id": ""}),
            json!({"tenant_id": "a/b"}),
            json!({"tenant_id": "#none"}),
            json!({"tenant_id": ["a"]}),
        ] {
            let refused = principal(claims.clone(), DefaultRole::Read);
            assert!(matches!(refused, Err(AuthError::Invalid(_))), "{claims}");
        }
    }

    #[test]
    fn a_token_bound_to_a_certificate_is_good_with_that_one_only() {
        let shown = |der: &[u8]| PeerCertificate::verified(&der.to_vec().into());
        let (own, other) = (shown(b"own"), shown(b"other"));
        let thumbprint = URL_SAFE_NO_PAD.encode(own.thumbprint());
        let bound = json!({"tenant_id": "t", "cnf": {"x5t#S256": thumbprint}});
        let bound = principal(bound, DefaultRole::Read).unwrap();
        bound.is_held_by(Some(&own)).unwrap();
        bound.is_held_by(Some(&other)).unwrap_err();
        bound.is_held_by(None).unwrap_err();
        let free = principal(json!({"tenant_id": "t"}), DefaultRole::Read).unwrap();
        for certificate in [None, Some(&own)] {
            free.is_held_by(certificate).unwrap();
        }
        for broken in [json!("abc"), json!(7), json!(null), json!(format!("{thumbprint}="))] {
            let claims = json!({"tenant_id": "t", "cnf": {"x5t#S256": broken}});
            principal(claims, DefaultRole::Read).unwrap_err();
        }
    }

    #[test]
    fn the_subject_is_what_the_provider_says_and_bounded() {
        let long = json!({"tenant_id": "t", "sub": "ä".repeat(500)});
        let subject = principal(long, DefaultRole::Read).unwrap().subject().chars().count();
        assert_eq!(subject, SUBJECT_CHARS_MAX);
        let client = json!({"tenant_id": "t", "azp": "robot"});
        assert_eq!(principal(client, DefaultRole::Read).unwrap().subject(), "robot");
    }
}
