//! The way from a client command to the service. This module finds the address, the token and the roots of trust in
//! the environment, makes requests, and puts what goes wrong into words that say what to check.
//!
//! Nothing that came from outside is printed as it came: control characters are escaped. TLS is 1.3 only.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::exit::{Code, Exit};
use super::token;
use crate::config::Overrides;
use crate::domain::ids::TenantId;
use crate::http::auth::Role;

/// Where the service is when nobody says otherwise.
pub const URL_DEFAULT: &str = "http://127.0.0.1:8090";
/// Whose data a development token is for when nobody says otherwise.
const TENANT_DEFAULT: &str = "demo";
/// How long it may take to reach the service.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read: all that a client command asks for is short.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;
/// How long a token of our own is good for. It is made anew at half time.
const TOKEN_TTL: Duration = Duration::from_secs(3600);
/// What a token of our own may do: report processes and read.
const TOKEN_ROLE: Role = Role::Write;

/// Where Debian, Red Hat and Alpine keep the authorities that the machine trusts.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Looks up one environment variable; an empty one counts as absent.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this program.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where the token comes from.
enum Token {
    /// Probes need none.
    None,
    Given(String),
    /// Read anew for each request: whoever rotates it need not tell us.
    File(PathBuf),
    Development {
        folder: PathBuf,
        tenant: TenantId,
        made: Option<(Instant, String)>,
    },
}

/// Talks to one service.
pub struct Client {
    agent: ureq::Agent,
    url: String,
    token: Token,
}

/// What the service answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// The beginning of the body, as text.
    pub body: String,
}

impl Client {
    /// A client with the address, token and roots that the environment names. `database` comes from the command
    /// line: its folder is where the development key lies.
    ///
    /// # Errors
    /// When something that is set makes no sense, or there is no token to be had.
    pub fn from_environment(env: Environment<'_>, database: Option<&str>) -> anyhow::Result<Self> {
        let url = env("SENTINEL_URL").unwrap_or_else(|| URL_DEFAULT.to_string());
        let token = Token::find(env, database)?;
        let url = checked_url(&url)?;
        Ok(Self { agent: agent(env, &url)?, url, token })
    }

    /// A client for the probes, which need no token.
    ///
    /// # Errors
    /// When the address or the roots that are set make no sense.
    pub fn for_probes(env: Environment<'_>, url: Option<&str>) -> anyhow::Result<Self> {
        let url = url.map(str::to_string).or_else(|| env("SENTINEL_URL"));
        let url = checked_url(url.as_deref().unwrap_or(URL_DEFAULT))?;
        Ok(Self { agent: agent(env, &url)?, url, token: Token::None })
    }

    /// Where the service is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for `path`.
    ///
    /// # Errors
    /// When there is no answer, with words about what to check.
    pub fn get(&mut self, path: &str, patience: Duration) -> anyhow::Result<Answer> {
        let mut request = self.agent.get(self.address(path));
        if let Some(token) = self.token.bearer()? {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = request.config().timeout_global(Some(patience)).build().call();
        self.answer(answer)
    }

    /// Posts `body`, JSON, to `path` under an idempotency key.
    ///
    /// # Errors
    /// When there is no answer, with words about what to check.
    pub fn post(
        &mut self,
        path: &str,
        key: &str,
        body: &str,
        patience: Duration,
    ) -> anyhow::Result<Answer> {
        let mut request = self.agent.post(self.address(path));
        if let Some(token) = self.token.bearer()? {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request =
            request.header("content-type", "application/json").header("idempotency-key", key);
        let answer = request.config().timeout_global(Some(patience)).build().send(body);
        self.answer(answer)
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn answer(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<Answer> {
        let mut answer = answer.map_err(|error| unreachable_words(&self.url, &error))?;
        let retry_after = answer.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        // A body that cannot be read to its end costs its words, not the status.
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true);
        Ok(Answer {
            body: body.read_to_string().unwrap_or_default(),
            status: answer.status().as_u16(),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }
}

impl Answer {
    /// What went wrong and what to check, safe to print.
    pub fn words(&self) -> String {
        let problem: Option<Problem> = serde_json::from_str(&self.body).ok();
        let said = problem.and_then(|problem| problem.detail.or(problem.title));
        let said = said.map(|said| format!(": {}", escaped(&said))).unwrap_or_default();
        let hint = match self.status {
            401 => {
                " (the token is missing, has run out, or is from somebody else: check SENTINEL_TOKEN)"
            }
            403 => " (the token is known but may not do this: it needs another role)",
            404 => {
                " (nothing of that name for this token's tenant, or SENTINEL_URL is not the service)"
            }
            300..=399 => " (SENTINEL_URL is not the service itself; redirects are not followed)",
            _ => "",
        };
        format!("the service answers {}{said}{hint}", self.status)
    }
}

#[derive(serde::Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

/// The token that the environment names, or one signed with the development key, for commands that do their own
/// talking.
///
/// # Errors
/// When there is none to be had.
pub fn bearer_token(env: Environment<'_>, database: Option<&str>) -> anyhow::Result<String> {
    let token = Token::find(env, database)?.bearer()?;
    token.context("there is no token")
}

/// `text` without anything that could move a cursor, change a colour or hide other text.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        let bidirectional = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if letter.is_control() || bidirectional {
            escaped.extend(letter.escape_default());
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

impl Token {
    fn find(env: Environment<'_>, database: Option<&str>) -> anyhow::Result<Self> {
        match (env("SENTINEL_TOKEN"), env("SENTINEL_TOKEN_FILE")) {
            (Some(_), Some(_)) => Err(Exit::new(
                Code::Configuration,
                "SENTINEL_TOKEN and SENTINEL_TOKEN_FILE are both set: give one of them",
            )
            .into()),
            (Some(token), None) => Ok(Self::Given(token.trim().to_string())),
            (None, Some(path)) => Ok(Self::File(path.into())),
            (None, None) => Self::development(env, database),
        }
    }

    fn development(env: Environment<'_>, database: Option<&str>) -> anyhow::Result<Self> {
        let tenant = env("SENTINEL_TENANT").unwrap_or_else(|| TENANT_DEFAULT.to_string());
        let tenant = TenantId::parse(&tenant)
            .map_err(|error| Exit::new(Code::Configuration, format!("SENTINEL_TENANT: {error}")))?;
        let overrides = Overrides { database: database.map(str::to_string), bind: None };
        let signed = token::development_folder(overrides).and_then(|folder| {
            let mut token = Self::Development { folder, tenant, made: None };
            token.bearer()?;
            Ok(token)
        });
        signed.context(
            "there is no token: set SENTINEL_TOKEN or SENTINEL_TOKEN_FILE, or run where the development key is",
        )
    }

    /// The token for the next request.
    fn bearer(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::None => Ok(None),
            Self::Given(token) => Ok(Some(token.clone())),
            Self::File(path) => {
                let token = std::fs::read_to_string(&path).with_context(|| {
                    format!("cannot read SENTINEL_TOKEN_FILE {}", path.display())
                })?;
                Ok(Some(token.trim().to_string()))
            }
            Self::Development { folder, tenant, made } => {
                if let Some((since, token)) = made
                    && since.elapsed() < TOKEN_TTL / 2
                {
                    return Ok(Some(token.clone()));
                }
                let token = token::sign(folder, tenant, &[TOKEN_ROLE], TOKEN_TTL)?;
                *made = Some((Instant::now(), token.clone()));
                Ok(Some(token))
            }
        }
    }
}

/// The address without a slash at its end, if it is one.
fn checked_url(url: &str) -> Result<String, Exit> {
    let address: Option<ureq::http::Uri> = url.parse().ok();
    let fine = address.is_some_and(|address| {
        matches!(address.scheme_str(), Some("http" | "https"))
            && address.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && address.query().is_none()
    });
    if fine {
        return Ok(url.trim_end_matches('/').to_string());
    }
    let url = escaped(url);
    Err(Exit::new(
        Code::Configuration,
        format!(
            "{url:?} is no address of a service: write it as {URL_DEFAULT} or https://HOST:PORT"
        ),
    ))
}

fn agent(env: Environment<'_>, url: &str) -> anyhow::Result<ureq::Agent> {
    let mut provider = rustls::crypto::ring::default_provider();
    // Without a suite of 1.2 there is no handshake of 1.2.
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    let roots = match env("SENTINEL_CA_FILE") {
        None if url.starts_with("https") => system_roots(),
        None => RootCerts::WebPki,
        Some(path) => RootCerts::new_with_certs(&certificates(&path).map_err(|error| {
            Exit::new(Code::Configuration, format!("SENTINEL_CA_FILE {path}: {error:#}"))
        })?),
    };
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(provider))
        .build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        // A token goes to nobody but the service that was named.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("sentinel/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_PATIENCE));
    Ok(config.build().new_agent())
}

/// The authorities that this machine trusts, where it says so, else those of the public web.
fn system_roots() -> RootCerts {
    let system = SYSTEM_ROOTS.iter().find_map(|path| certificates(path).ok());
    system.map_or(RootCerts::WebPki, |roots| RootCerts::new_with_certs(&roots))
}

fn certificates(path: &str) -> anyhow::Result<Vec<Certificate<'static>>> {
    let pem = std::fs::read(path)?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item? {
            certificates.push(certificate);
        }
    }
    anyhow::ensure!(!certificates.is_empty(), "it holds no certificate");
    Ok(certificates)
}

fn unreachable_words(url: &str, error: &ureq::Error) -> anyhow::Error {
    let hint = match error {
        ureq::Error::HostNotFound => "is the host's name right?",
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => {
            "is SENTINEL_CA_FILE the authority that signed the service's certificate?"
        }
        ureq::Error::Timeout(_) => "is a firewall in between, or is the service overloaded?",
        _ => "is it running, and is SENTINEL_URL its address?",
    };
    anyhow::anyhow!("cannot reach the service at {url}: {}; {hint}", escaped(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after: None, body: body.to_string() }
    }

    #[test]
    fn an_answer_is_told_with_its_detail_and_what_to_check() {
        let words =
            answer(401, r#"{"title":"Unauthorized","detail":"the token has run out"}"#).words();
        assert!(words.starts_with("the service answers 401: the token has run out"), "{words}");
        assert!(words.contains("SENTINEL_TOKEN"), "{words}");
        assert_eq!(answer(500, "<html>").words(), "the service answers 500");
    }

    #[test]
    fn foreign_text_cannot_touch_the_terminal() {
        let words = answer(400, r#"{"detail":"a\u001b[31mb\u0007c\u202ed"}"#).words();
        assert_eq!(words, r"the service answers 400: a\u{1b}[31mb\u{7}c\u{202e}d");
        assert_eq!(escaped("naïve ✓\n"), r"naïve ✓\n");
    }

    #[test]
    fn an_address_is_http_or_https_with_a_host_and_no_secrets() {
        assert_eq!(checked_url("http://10.0.0.7:8090/").unwrap(), "http://10.0.0.7:8090");
        assert_eq!(
            checked_url("https://sentinel.example/base").unwrap(),
            "https://sentinel.example/base"
        );
        for bad in
            ["", "localhost:8090", "ftp://x", "http://", "http://me:pw@host", "http://h/?a=b"]
        {
            assert_eq!(checked_url(bad).unwrap_err().code, Code::Configuration, "{bad:?}");
        }
    }

    #[test]
    fn a_token_comes_from_the_environment_or_a_file_that_may_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let path_text = path.to_str().unwrap().to_string();
        let env = |name: &str| (name == "SENTINEL_TOKEN_FILE").then(|| path_text.clone());
        let mut token = Token::find(&env, None).unwrap();
        assert_eq!(token.bearer().unwrap().unwrap(), "first");
        std::fs::write(&path, "second\n").unwrap();
        assert_eq!(token.bearer().unwrap().unwrap(), "second");

        let both = |name: &str| name.starts_with("SENTINEL_TOKEN").then(|| "x".to_string());
        let error = Token::find(&both, None).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("both set"), "{error}");
    }

    #[test]
    fn a_file_without_a_certificate_is_no_authority() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "nothing here").unwrap();
        let env = |name: &str| (name == "SENTINEL_CA_FILE").then(|| path.display().to_string());
        let error = Client::for_probes(&env, None).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("it holds no certificate"), "{error}");
    }

    #[test]
    fn a_service_that_is_not_there_is_told_with_its_address() {
        // Port 1 of loopback: nobody listens there.
        let mut client = Client::for_probes(&|_| None, Some("http://127.0.0.1:1")).unwrap();
        let error = client.get("/health", Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:1") && error.contains("is it running"), "{error}");
    }
}
