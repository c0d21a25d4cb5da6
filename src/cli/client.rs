//! The way from a client command to the service. This module makes requests, with the token that there is.
//! TLS is 1.3 only.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts};

use super::bearer::Token;
use super::exit::{Code, Exit};
use super::words::{self, escaped};
use crate::certificates::{self, ClientPair};
use crate::config::{self, Overrides};
use crate::http::auth::{self, roots};

/// How long it may take to reach the service.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read: a page of a listing whose rows are as long as they may be stays below it.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

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
            Some(error) if answer.status == 200 => Err(words::unreachable(&self.url, &error)),
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
        let mut answer = answer.map_err(|error| words::unreachable(&self.url, &error))?;
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
        words::refusal(self.status, &self.body)
    }
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::cli::bearer::tests::settings;

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
    fn a_service_that_is_not_there_is_told_with_its_address() {
        // Port 1 of loopback: nobody listens there.
        let mut client =
            Client::for_probes(Overrides::default(), Some("http://127.0.0.1:1")).unwrap();
        let error = client.get("/health", Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:1") && error.contains("is it running"), "{error}");
    }
}
