//! The way from a client command to the service. This module finds a token, makes requests, and puts what goes wrong
//! into words that say what to check.
//!
//! Nothing that came from outside is printed as it came: control characters are escaped. TLS is 1.3 only.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustls::ClientConfig;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts};

use super::exit::{Code, Exit};
use super::token;
use crate::certificates::{self, ClientPair};
use crate::config::{self, Overrides};
use crate::domain::ids::TenantId;
use crate::http::auth::{self, Role, roots};

/// How long it may take to reach the service.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read: a page of a listing whose rows are as long as they may be stays below it.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long a token of our own is good for. It is made anew at half time.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

/// Where the token comes from.
enum Token {
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

/// Talks to one service.
pub struct Client {
    agent: ureq::Agent,
    url: String,
    token: Token,
    overrides: Overrides,
}

/// What the service answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// What to send as `If-None-Match`.
    pub etag: Option<String>,
    /// The beginning of the body, as text.
    pub body: String,
}

/// What a question that may have a long answer came to.
pub enum Streamed {
    /// 200: what comes, as it comes. A read waits for as long as nothing does.
    Body(Box<dyn Read + Send>),
    /// Anything else.
    Answer(Answer),
}

impl Client {
    /// A client with the address, token and roots that the environment names.
    ///
    /// # Errors
    /// When something that is set makes no sense, or there is no token to be had.
    pub fn from_environment(overrides: Overrides) -> anyhow::Result<Self> {
        let settings = config::Client::from_environment(overrides.clone())?;
        let token = Token::find(&settings)?;
        Self::new(&settings, token, overrides)
    }

    /// A client for the probes, which need no token.
    ///
    /// # Errors
    /// When the address or the roots that are set make no sense.
    pub fn for_probes(overrides: Overrides, url: Option<&str>) -> anyhow::Result<Self> {
        let mut settings = config::Client::from_environment(overrides.clone())?;
        if let Some(url) = url {
            settings.url = checked_url(url)
                .map_err(|refused| Exit::new(Code::Usage, refused.message.replace(URL, "--url")))?;
        }
        Self::new(&settings, Token::None, overrides)
    }

    fn new(settings: &config::Client, token: Token, overrides: Overrides) -> anyhow::Result<Self> {
        Ok(Self { url: checked_url(&settings.url)?, agent: agent(settings)?, token, overrides })
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
        self.get_with(path, &[], patience)
    }

    /// Asks for `path` with further header fields.
    ///
    /// # Errors
    /// When there is no answer, or only the beginning of a good one, with words about what to check.
    pub fn get_with(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        patience: Duration,
    ) -> anyhow::Result<Answer> {
        let request = self.question(path, fields)?;
        let answer = request.config().timeout_global(Some(patience)).build().call();
        let (answer, cut) = self.answer(answer)?;
        self.renew_token(answer.status)?;
        match cut {
            // Half of what was asked for looks like less, and its tag would say that this is all.
            Some(error) if answer.status == 200 => Err(unreachable_words(&self.url, &error)),
            _ => Ok(answer),
        }
    }

    /// Asks for `path` and leaves the body to be read as it comes. `patience` is for its beginning.
    ///
    /// # Errors
    /// When there is no answer, with words about what to check.
    pub fn stream(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        patience: Duration,
    ) -> anyhow::Result<Streamed> {
        let request = self.question(path, fields)?;
        let answer = request.config().timeout_recv_response(Some(patience)).build().call();
        match answer {
            Ok(answer) if answer.status().as_u16() == 200 => {
                Ok(Streamed::Body(Box::new(answer.into_body().into_reader())))
            }
            answer => {
                let (answer, _cut) = self.answer(answer)?;
                self.renew_token(answer.status)?;
                Ok(Streamed::Answer(answer))
            }
        }
    }

    fn question(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
    ) -> anyhow::Result<ureq::RequestBuilder<ureq::typestate::WithoutBody>> {
        let mut request = self.agent.get(self.address(path));
        if let Some(token) = self.token.bearer()? {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        Ok(request)
    }

    /// Looks for a newer token where the service refuses the one that was given.
    fn renew_token(&mut self, status: u16) -> anyhow::Result<()> {
        if status == 401 && matches!(self.token, Token::Given(_)) {
            let settings = config::Client::from_environment(self.overrides.clone())?;
            self.token = Token::find(&settings)?;
        }
        Ok(())
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
        // What became of it is in the status.
        let (answer, _cut) = self.answer(answer)?;
        self.renew_token(answer.status)?;
        Ok(answer)
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The answer, and why its body could not be read to its end, if so. Then it has none: that costs its words, not
    /// its status.
    fn answer(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<(Answer, Option<ureq::Error>)> {
        let mut answer = answer.map_err(|error| unreachable_words(&self.url, &error))?;
        let retry_after = answer.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let etag = answer.headers().get("etag");
        let etag = etag.and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true);
        let (body, cut) = match body.read_to_string() {
            Ok(body) => (body, None),
            Err(error) => (String::new(), Some(error)),
        };
        let (status, retry_after) =
            (answer.status().as_u16(), retry_after.map(Duration::from_secs));
        Ok((Answer { status, retry_after, etag, body }, cut))
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
            403 => {
                " (the token is known but may not do this: it needs another role, or SENTINEL_CLIENT_CERT_FILE)"
            }
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
pub fn bearer_token(overrides: Overrides) -> anyhow::Result<String> {
    let settings = config::Client::from_environment(overrides)?;
    Token::find(&settings)?.bearer()?.context("there is no token")
}

/// `text` as one segment of a path: everything but unreserved characters is percent-encoded (RFC 3986).
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
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
    fn find(settings: &config::Client) -> anyhow::Result<Self> {
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
    fn bearer(&mut self) -> anyhow::Result<Option<String>> {
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

/// The variable that an address comes from, unless it is given.
const URL: &str = "SENTINEL_URL";

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
    if url.contains('@') {
        // Not repeated: what stands before the @ may be a password.
        return Err(Exit::new(
            Code::Configuration,
            format!("{URL}: an address holds no user and no password; the token is SENTINEL_TOKEN"),
        ));
    }
    let url = escaped(url);
    Err(Exit::new(
        Code::Configuration,
        format!(
            "{URL}: {url:?} is no address of a service: write it as http://127.0.0.1:8090 or https://HOST:PORT"
        ),
    ))
}

fn agent(settings: &config::Client) -> anyhow::Result<ureq::Agent> {
    let shown = certificate(settings)?
        .map(|pair| {
            let chain: Vec<Certificate<'static>> =
                pair.chain.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
            let key = PrivateKey::from_pem(pair.key_pem.as_bytes())?;
            anyhow::Ok(ClientCert::new_with_certs(&chain, key))
        })
        .transpose()?;
    let tls = auth::tls(settings.ca_file.as_deref(), shown)
        .map_err(|error| Exit::new(Code::Configuration, format!("SENTINEL_CA_FILE: {error:#}")))?;
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

/// The certificate to show, if one is named.
fn certificate(settings: &config::Client) -> Result<Option<ClientPair>, Exit> {
    let Some((chain, key)) = &settings.certificate else { return Ok(None) };
    certificates::client_pair(chain, key).map(Some).map_err(|error| {
        let names = "SENTINEL_CLIENT_CERT_FILE and SENTINEL_CLIENT_KEY_FILE";
        Exit::new(Code::Configuration, format!("{names}: {error:#}"))
    })
}

/// What a command needs that speaks TLS itself.
///
/// # Errors
/// When a file that is set cannot be used.
pub fn tls(overrides: Overrides) -> anyhow::Result<Arc<ClientConfig>> {
    let settings = config::Client::from_environment(overrides)?;
    let name = |error| Exit::new(Code::Configuration, format!("SENTINEL_CA_FILE: {error:#}"));
    let authorities = match roots(settings.ca_file.as_deref()).map_err(name)? {
        RootCerts::Specific(authorities) => authorities,
        // The built-in ones know no private service, and no public one is to be put under load.
        _ => Arc::default(),
    };
    let pair = certificate(&settings)?;
    certificates::client_config(authorities.iter().map(Certificate::der), pair)
}

fn unreachable_words(url: &str, error: &ureq::Error) -> anyhow::Error {
    let hint = match error {
        ureq::Error::HostNotFound => "is the host's name right?",
        ureq::Error::Tls(_) => TLS_HINT,
        ureq::Error::Rustls(error) => tls_hint(error),
        // What the other side says of a handshake that was over for us comes while we read its answer.
        ureq::Error::Io(error) => match of_tls(error) {
            Some(error) => tls_hint(error),
            // Whoever is refused for a certificate may find the connection gone before the reason is read.
            None if hung_up(error) && url.starts_with("https://") => TLS_HINT,
            None => RUNNING_HINT,
        },
        ureq::Error::Timeout(_) => "is a firewall in between, or is the service overloaded?",
        _ => RUNNING_HINT,
    };
    anyhow::anyhow!("cannot reach the service at {url}: {}; {hint}", escaped(&error.to_string()))
}

/// Somebody was there, and is no more.
fn hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// What to check when nobody answers.
pub const RUNNING_HINT: &str = "is it running, and is SENTINEL_URL its address?";
const TLS_HINT: &str = "is SENTINEL_CA_FILE the authority that signed the service's certificate, and does the service want one of yours (SENTINEL_CLIENT_CERT_FILE)?";

/// What of an error of a socket is an error of TLS.
pub fn of_tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What to check when TLS comes to nothing.
pub fn tls_hint(error: &rustls::Error) -> &'static str {
    use rustls::AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
        CertificateUnknown, DecryptError, UnknownCA, UnsupportedCertificate,
    };
    match error {
        rustls::Error::AlertReceived(CertificateRequired) => {
            "the service wants a certificate: name one that it knows in SENTINEL_CLIENT_CERT_FILE, and its key in SENTINEL_CLIENT_KEY_FILE"
        }
        rustls::Error::AlertReceived(
            AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRevoked
            | CertificateUnknown
            | DecryptError
            | UnknownCA
            | UnsupportedCertificate,
        ) => {
            "the service refuses our certificate: is the one in SENTINEL_CLIENT_CERT_FILE signed by an authority that it knows, and in date?"
        }
        rustls::Error::InvalidCertificate(_) => {
            "is SENTINEL_CA_FILE the authority that signed the service's certificate, and is that one in date and made for the host in SENTINEL_URL?"
        }
        rustls::Error::InvalidMessage(_) => {
            "does the service speak TLS there? Without it SENTINEL_URL begins with http://"
        }
        _ => TLS_HINT,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::http::auth::development::DevelopmentKey;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after: None, etag: None, body: body.to_string() }
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

    fn settings(folder: &std::path::Path) -> config::Client {
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

    #[test]
    fn a_file_without_a_certificate_is_no_authority() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "nothing here").unwrap();
        let settings = config::Client { ca_file: Some(path), ..settings(folder.path()) };
        let error = agent(&settings).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("holds no certificate"), "{error}");
    }

    /// What a client makes of this answer when it is cut off after so many of its bytes.
    fn asked(answer: &str, bytes: usize) -> anyhow::Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                // The question is read to its end, so that the close is no reset.
                let mut question = Vec::new();
                while !question.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    question.extend(byte);
                }
                stream.write_all(&answer.as_bytes()[..bytes]).unwrap();
            });
            let mut client = Client::for_probes(Overrides::default(), Some(&url)).unwrap();
            client.get_with("/status/p", &[], Duration::from_secs(10))
        })
    }

    #[test]
    fn an_answer_that_is_cut_in_the_middle_is_none() {
        let length = "HTTP/1.1 200 OK\r\nETag: \"7\"\r\nContent-Length: 11\r\n\r\n{\"a\":[1,2]}";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                       6\r\n{\"a\":[\r\n5\r\n1,2]}\r\n0\r\n\r\n";
        for answer in [length, chunked] {
            let whole = asked(answer, answer.len()).unwrap();
            assert_eq!((whole.status, whole.body.as_str()), (200, "{\"a\":[1,2]}"));
            let complete_at = answer.find("0\r\n\r\n").unwrap_or(answer.len());
            for bytes in 1..complete_at {
                let cut = asked(answer, bytes);
                assert!(cut.is_err(), "cut after {bytes} bytes: {cut:?}");
            }
        }
        // Of what is no success the status says enough.
        let refused = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\n{";
        let refused = asked(refused, refused.len()).unwrap();
        assert_eq!((refused.status, refused.body.as_str()), (503, ""));
    }

    #[test]
    fn what_tls_says_is_told_with_what_to_check() {
        use rustls::{AlertDescription, CertificateError, InvalidMessage};
        let said = |error: rustls::Error| {
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            unreachable_words("https://a", &ureq::Error::Io(error)).to_string()
        };
        let alert = |alert| said(rustls::Error::AlertReceived(alert));
        assert!(alert(AlertDescription::CertificateRequired).contains("wants a certificate"));
        assert!(alert(AlertDescription::UnknownCA).contains("refuses our certificate"));
        assert!(alert(AlertDescription::HandshakeFailure).contains(TLS_HINT));
        let stranger = CertificateError::UnknownIssuer;
        assert!(said(rustls::Error::InvalidCertificate(stranger)).contains("is SENTINEL_CA_FILE"));
        let plain = InvalidMessage::InvalidContentType;
        assert!(said(rustls::Error::InvalidMessage(plain)).contains("begins with http://"));
        let gone = ureq::Error::Io(io::ErrorKind::BrokenPipe.into());
        assert!(unreachable_words("https://a", &gone).to_string().contains(TLS_HINT));
        assert!(unreachable_words("http://a", &gone).to_string().contains(RUNNING_HINT));
        let refused = ureq::Error::Io(io::ErrorKind::ConnectionRefused.into());
        assert!(unreachable_words("https://a", &refused).to_string().contains(RUNNING_HINT));
    }

    #[test]
    fn a_service_that_is_not_there_is_told_with_its_address() {
        // Port 1 of loopback: nobody listens there.
        let mut client =
            Client::for_probes(Overrides::default(), Some("http://127.0.0.1:1")).unwrap();
        let error = client.get("/health", Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:1") && error.contains("is it running"), "{error}");
    }
}
