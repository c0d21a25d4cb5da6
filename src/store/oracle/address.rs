//! Where the database is and how we prove who we are. This module reads an `oracle://` address and the `ORACLE_*`
//! settings, builds a descriptor where none is given, and names what in one would break the service.
//!
//! A password never stands in an address: addresses are seen in process lists. It comes from `ORACLE_PASSWORD` or the
//! file that `ORACLE_PASSWORD_FILE` names, or there is none and a wallet authenticates.

use std::fmt;
use std::path::PathBuf;

/// What an address begins with.
pub const SCHEME: &str = "oracle://";
/// The port of a descriptor that is built here.
pub const PORT: u16 = 1522;

/// Attempts at an address before a connect fails, and the seconds between them: a switch-over of the database takes
/// about a minute.
const RETRY_COUNT: u32 = 20;
const RETRY_DELAY_S: u32 = 3;
/// Seconds for one attempt, and for its network part: a host that does not answer would else hold an attempt for the
/// system's own minutes. With the retries an attempt ends after 160 s at most. Nobody waits that long for it, and a stop
/// not at all ([`super::connecting`]).
const CONNECT_TIMEOUT_S: u32 = 5;
const TRANSPORT_CONNECT_TIMEOUT_S: u32 = 3;
/// Minutes after which an idle session is probed, so that a firewall that forgot it is noticed.
const EXPIRE_TIME_MIN: u32 = 2;

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the driver alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(********)")
    }
}

/// How we prove who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        user: String,
        password: Secret,
    },
    /// The wallet holds a credential under the name of the alias.
    Wallet,
}

/// A database, and how to get into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A TNS alias, an `EZConnect` text or a descriptor.
    pub connect: String,
    pub credentials: Credentials,
    /// The folder of the wallet, and of sqlnet.ora and tnsnames.ora where it holds them.
    pub wallet: Option<PathBuf>,
    /// The folder of the client library; None: the loader finds it.
    pub client_lib_dir: Option<PathBuf>,
}

/// The settings as they were typed. Empty means absent.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// What follows `oracle://` in `SENTINEL_DATABASE`.
    pub target: Option<String>,
    pub tns_name: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub service: Option<String>,
    pub server_dn: Option<String>,
    pub wallet: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub client_lib_dir: Option<PathBuf>,
}

/// What is wrong with the settings: under which names, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub names: &'static str,
    pub what: String,
}

fn problem(names: &'static str, what: impl Into<String>) -> Problem {
    Problem { names, what: what.into() }
}

impl Address {
    /// Puts the settings together.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn from_settings(given: &Given) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let connect = connect(given, &mut problems);
        let credentials = credentials(given, &mut problems);
        if let Some(connect) = &connect {
            problems.extend(
                unfit(connect)
                    .into_iter()
                    .map(|what| problem("SENTINEL_DATABASE or ORACLE_TNS_NAME", what)),
            );
        }
        match (connect, credentials) {
            (Some(connect), Some(credentials)) if problems.is_empty() => Ok(Self {
                connect,
                credentials,
                wallet: given.wallet.clone(),
                client_lib_dir: given.client_lib_dir.clone(),
            }),
            _ => Err(problems),
        }
    }

    /// The address for people: nothing secret is in it, and a descriptor is shortened to host and service.
    pub fn display(&self) -> String {
        if !self.connect.starts_with('(') {
            return format!("{SCHEME}{}", self.connect);
        }
        let part = |name: &str| value_in(&self.connect, name).unwrap_or("?");
        format!("{SCHEME}{}/{}", part("HOST"), part("SERVICE_NAME"))
    }
}

/// What the driver is told to connect to.
fn connect(given: &Given, problems: &mut Vec<Problem>) -> Option<String> {
    let target = given.target.as_deref().filter(|target| !target.is_empty());
    if let Some(target) = target
        && let Some((before, _)) = target.split_once('@')
        && !target.starts_with('(')
        && !before.contains('/')
    {
        problems.push(problem(
            "SENTINEL_DATABASE",
            "must not hold a user or a password, which everybody could see; set ORACLE_USERNAME and ORACLE_PASSWORD_FILE",
        ));
        return None;
    }
    let named = match (target, given.tns_name.as_deref()) {
        (Some(target), Some(name)) if target != name => {
            problems.push(problem(
                "SENTINEL_DATABASE and ORACLE_TNS_NAME",
                "name two different databases; unset one of them",
            ));
            return None;
        }
        (Some(named), _) | (None, Some(named)) => Some(named.to_string()),
        (None, None) => None,
    };
    match (named, given.host.as_deref()) {
        (Some(_), Some(_)) => {
            problems.push(problem(
                "ORACLE_HOST",
                "means nothing beside an alias or a descriptor; unset one of them",
            ));
            None
        }
        (Some(named), None) => {
            for (name, is_given) in [
                ("ORACLE_PORT", given.port.is_some()),
                ("ORACLE_SERVICE", given.service.is_some()),
                ("ORACLE_SERVER_DN", given.server_dn.is_some()),
            ] {
                if is_given {
                    problems.push(problem(name, "means nothing without ORACLE_HOST; unset it"));
                }
            }
            Some(named)
        }
        (None, Some(host)) => descriptor(given, host, problems),
        (None, None) => {
            problems.push(problem(
                "SENTINEL_DATABASE",
                "names no database: write oracle://ALIAS or oracle://HOST:PORT/SERVICE, or set ORACLE_TNS_NAME or ORACLE_HOST",
            ));
            None
        }
    }
}

/// A descriptor over TLS, made of its parts.
fn descriptor(given: &Given, host: &str, problems: &mut Vec<Problem>) -> Option<String> {
    let before = problems.len();
    let Some(service) = given.service.as_deref() else {
        problems.push(problem("ORACLE_SERVICE", "is missing: ORACLE_HOST needs it"));
        return None;
    };
    let plain = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| {
                byte.is_ascii_alphanumeric()
                    || matches!(byte, b'.' | b'-' | b'_' | b':' | b'$' | b'#')
            })
    };
    if !plain(host) {
        problems.push(problem("ORACLE_HOST", "is no host name and no address"));
    }
    if !plain(service) {
        problems.push(problem("ORACLE_SERVICE", "is no service name"));
    }
    let unquoted = |text: &str| !text.contains(['"', '(', ')']) && !text.contains(char::is_control);
    let dn = given.server_dn.as_deref();
    if dn.is_some_and(|dn| !unquoted(dn) || !dn.contains('=')) {
        problems.push(problem(
            "ORACLE_SERVER_DN",
            "is no distinguished name, such as CN=db.example.com,O=Example",
        ));
    }
    let wallet = given.wallet.as_ref().map(|folder| folder.display().to_string());
    if wallet.as_deref().is_some_and(|folder| !unquoted(folder)) {
        problems.push(problem("ORACLE_WALLET_LOCATION", "must not hold quotes or parentheses"));
    }
    if problems.len() > before {
        return None;
    }
    let port = given.port.unwrap_or(PORT);
    let dn = dn.map_or_else(String::new, |dn| format!("(SSL_SERVER_CERT_DN=\"{dn}\")"));
    let wallet =
        wallet.map_or_else(String::new, |folder| format!("(MY_WALLET_DIRECTORY={folder})"));
    Some(format!(
        "(DESCRIPTION=(RETRY_COUNT={RETRY_COUNT})(RETRY_DELAY={RETRY_DELAY_S})\
         (CONNECT_TIMEOUT={CONNECT_TIMEOUT_S})(TRANSPORT_CONNECT_TIMEOUT={TRANSPORT_CONNECT_TIMEOUT_S})(EXPIRE_TIME={EXPIRE_TIME_MIN})(ENABLE=BROKEN)\
         (ADDRESS=(PROTOCOL=TCPS)(HOST={host})(PORT={port}))(CONNECT_DATA=(SERVICE_NAME={service}))\
         (SECURITY=(SSL_SERVER_DN_MATCH=YES){dn}{wallet}))"
    ))
}

fn credentials(given: &Given, problems: &mut Vec<Problem>) -> Option<Credentials> {
    let user = given.user.as_deref().filter(|user| !user.is_empty());
    let password = given.password.as_ref().filter(|password| !password.is_empty());
    match (user, password) {
        (None, None) => Some(Credentials::Wallet),
        (Some(user), Some(password)) => {
            Some(Credentials::Password { user: user.to_string(), password: password.clone() })
        }
        (Some(_), None) => {
            problems.push(problem(
                "ORACLE_USERNAME",
                "has no ORACLE_PASSWORD; set both, or neither for the wallet",
            ));
            None
        }
        (None, Some(_)) => {
            problems.push(problem(
                "ORACLE_PASSWORD",
                "has no ORACLE_USERNAME; set both, or neither for the wallet",
            ));
            None
        }
    }
}

/// What in a descriptor would break the service: sessions that are not ours alone, and transactions that are
/// repeated behind our back.
pub fn unfit(connect: &str) -> Vec<String> {
    let plain: String =
        connect.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_uppercase();
    let mut found = Vec::new();
    if plain.contains("(SERVER=POOLED)") || plain.ends_with(":POOLED") || plain.contains(":POOLED/")
    {
        found.push(
            "SERVER=POOLED gives sessions that others have used before, and this service keeps its own; remove it"
                .to_string(),
        );
    }
    if plain.contains("FAILOVER_MODE") {
        found.push(
            "FAILOVER_MODE replays what was lost without telling, and this service repeats it itself; remove it"
                .to_string(),
        );
    }
    found
}

/// The value of `(NAME=value)` in a descriptor.
fn value_in<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let upper = text.to_ascii_uppercase();
    let start = upper.find(&format!("({name}="))? + name.len() + 2;
    let end = start + text[start..].find(')')?;
    Some(text[start..end].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(target: &str) -> Given {
        Given { target: Some(target.to_string()), ..Given::default() }
    }

    fn problems(given: &Given) -> Vec<String> {
        let found = Address::from_settings(given).unwrap_err();
        found.into_iter().map(|problem| format!("{}: {}", problem.names, problem.what)).collect()
    }

    #[test]
    fn an_alias_an_easy_text_and_a_descriptor_are_taken_as_they_are() {
        for target in [
            "SENTINEL_PROD",
            "db.example.com:1521/FREEPDB1",
            "//localhost:1521/FREEPDB1",
            "(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)(HOST=db)(PORT=1521))(CONNECT_DATA=(SERVICE_NAME=s)))",
        ] {
            let address = Address::from_settings(&with(target)).unwrap();
            assert_eq!(address.connect, target);
            assert_eq!(address.credentials, Credentials::Wallet, "no user: the wallet");
        }
        let by_name = Given { tns_name: Some("ALIAS".into()), ..Given::default() };
        assert_eq!(Address::from_settings(&by_name).unwrap().connect, "ALIAS");
        let same = Given { tns_name: Some("ALIAS".into()), ..with("ALIAS") };
        assert_eq!(Address::from_settings(&same).unwrap().connect, "ALIAS");
    }

    #[test]
    fn a_descriptor_over_tls_is_built_of_its_parts() {
        let given = Given {
            host: Some("db.example.com".into()),
            service: Some("sentinel.example.com".into()),
            server_dn: Some("CN=db.example.com,O=Example".into()),
            wallet: Some("/etc/oracle/wallet".into()),
            ..Given::default()
        };
        let address = Address::from_settings(&given).unwrap();
        assert_eq!(
            address.connect,
            "(DESCRIPTION=(RETRY_COUNT=20)(RETRY_DELAY=3)(CONNECT_TIMEOUT=5)(TRANSPORT_CONNECT_TIMEOUT=3)(EXPIRE_TIME=2)(ENABLE=BROKEN)\
             (ADDRESS=(PROTOCOL=TCPS)(HOST=db.example.com)(PORT=1522))(CONNECT_DATA=(SERVICE_NAME=sentinel.example.com))\
             (SECURITY=(SSL_SERVER_DN_MATCH=YES)(SSL_SERVER_CERT_DN=\"CN=db.example.com,O=Example\")\
             (MY_WALLET_DIRECTORY=/etc/oracle/wallet)))"
        );
        assert_eq!(address.display(), "oracle://db.example.com/sentinel.example.com");
        let plain = Given { server_dn: None, wallet: None, port: Some(2484), ..given };
        let connect = Address::from_settings(&plain).unwrap().connect;
        assert!(connect.contains("(PORT=2484)"), "{connect}");
        assert!(connect.ends_with("(SECURITY=(SSL_SERVER_DN_MATCH=YES)))"), "{connect}");
        assert_eq!(connect.matches('(').count(), connect.matches(')').count());
    }

    #[test]
    fn a_part_cannot_smuggle_anything_into_the_descriptor() {
        let good = Given { host: Some("db".into()), service: Some("s".into()), ..Given::default() };
        Address::from_settings(&good).unwrap();
        for bad in [
            Given { host: Some("db)(PORT=1".into()), ..good.clone() },
            Given { service: Some("s)(SERVER=POOLED".into()), ..good.clone() },
            Given { server_dn: Some("CN=x\")(".into()), ..good.clone() },
            Given { wallet: Some("/w)(".into()), ..good.clone() },
        ] {
            assert_eq!(problems(&bad).len(), 1, "{bad:?}");
        }
    }

    #[test]
    fn two_names_of_two_databases_are_refused() {
        let two = Given { tns_name: Some("OTHER".into()), ..with("ALIAS") };
        assert!(problems(&two)[0].contains("SENTINEL_DATABASE and ORACLE_TNS_NAME"));
        let host = Given { host: Some("db".into()), ..with("ALIAS") };
        assert!(problems(&host)[0].contains("ORACLE_HOST"));
        let idle = Given { service: Some("s".into()), ..with("ALIAS") };
        assert!(problems(&idle)[0].contains("ORACLE_SERVICE"));
        assert!(problems(&Given::default())[0].contains("names no database"));
        assert!(problems(&with(""))[0].contains("names no database"));
        let no_service = Given { host: Some("db".into()), ..Given::default() };
        assert!(problems(&no_service)[0].contains("ORACLE_SERVICE"));
    }

    #[test]
    fn a_password_is_never_part_of_an_address_and_never_printed() {
        for target in ["scott:tiger@db:1521/s", "scott@ALIAS"] {
            let found = problems(&with(target));
            assert!(found[0].contains("ORACLE_PASSWORD_FILE"), "{found:?}");
            assert!(!found[0].contains("tiger"));
        }
        let given = Given {
            user: Some("scott".into()),
            password: Some(Secret::new("tiger")),
            ..with("ALIAS")
        };
        let address = Address::from_settings(&given).unwrap();
        assert!(!format!("{address:?} {given:?} {}", address.display()).contains("tiger"));
        let Credentials::Password { user, password } = address.credentials else { panic!() };
        assert_eq!((user.as_str(), password.reveal()), ("scott", "tiger"));
    }

    #[test]
    fn a_user_and_a_password_come_together() {
        let user = Given { user: Some("scott".into()), ..with("ALIAS") };
        assert!(problems(&user)[0].starts_with("ORACLE_USERNAME: "));
        let password = Given { password: Some(Secret::new("tiger")), ..with("ALIAS") };
        assert!(problems(&password)[0].starts_with("ORACLE_PASSWORD: "));
    }

    #[test]
    fn pooled_servers_and_failover_modes_are_named() {
        for (connect, word) in [
            ("(DESCRIPTION=(CONNECT_DATA=(SERVICE_NAME=s)(SERVER = pooled)))", "SERVER=POOLED"),
            ("db:1521/s:pooled", "SERVER=POOLED"),
            ("(DESCRIPTION=(CONNECT_DATA=(FAILOVER_MODE=(TYPE=SELECT))))", "FAILOVER_MODE"),
        ] {
            let found = unfit(connect);
            assert_eq!(found.len(), 1, "{connect}");
            assert!(found[0].starts_with(word), "{found:?}");
            assert!(!problems(&with(connect)).is_empty());
        }
        assert_eq!(unfit("(DESCRIPTION=(CONNECT_DATA=(SERVER=DEDICATED)))"), [""; 0]);
    }
}
