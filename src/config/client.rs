//! What the client commands need: where the service is and with which token. This module reads those settings alone,
//! so that a client also works where the rest of the environment could never start a service.

use std::fmt;
use std::path::PathBuf;

use super::problems::Problems;
use super::raw::{Overrides, RawConfig, Surroundings};
use super::reader::Reader;
use super::variables::NONE;
use crate::domain::ids::TenantId;

/// The settings that a client reads.
const NAMES: [&str; 7] = [
    "SENTINEL_URL",
    "SENTINEL_TOKEN",
    "SENTINEL_CA_FILE",
    "SENTINEL_CLIENT_CERT_FILE",
    "SENTINEL_CLIENT_KEY_FILE",
    "SENTINEL_TENANT",
    "SENTINEL_DATABASE",
];

/// What the client commands need.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    pub url: String,
    /// Whether the user set the URL, rather than it being the default.
    pub url_is_given: bool,
    pub token: Option<String>,
    pub ca_file: Option<PathBuf>,
    /// The certificate to show, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Whose data a token is for that is signed with the development key.
    pub tenant: TenantId,
    /// Where the development key is, if the service runs on this machine.
    pub data_folder: PathBuf,
}

impl fmt::Debug for Client {
    /// Never the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url)
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Understands the environment of this process, as far as a client is concerned.
    ///
    /// # Errors
    /// [`Problems`] names every problem. The exit code for it is 78.
    pub fn from_environment(overrides: Overrides) -> Result<Self, Problems> {
        Surroundings::of_this_process(overrides, Self::load)
    }

    /// Understands what the user typed, as far as a client is concerned.
    ///
    /// # Errors
    /// [`Problems`] names every problem. The exit code for it is 78.
    pub fn load(surroundings: &Surroundings<'_>) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let wanted = |name: &str| NAMES.contains(&name);
        // A misspelt variable is the service's business to point out.
        let raw = RawConfig::gather(surroundings, wanted, &mut problems, &mut Vec::new());
        let mut reader = Reader::new(&raw, &mut problems);
        let data_folder = super::data_folder(&mut reader, &raw);
        let client = client(&mut reader, data_folder);
        if problems.0.is_empty() { Ok(client) } else { Err(problems) }
    }
}

pub(super) fn client(reader: &mut Reader<'_>, data_folder: PathBuf) -> Client {
    let certificate = reader.text("SENTINEL_CLIENT_CERT_FILE", NONE).map(PathBuf::from);
    let key = reader.text("SENTINEL_CLIENT_KEY_FILE", NONE).map(PathBuf::from);
    if certificate.is_some() != key.is_some() {
        reader.problems.add(
            "SENTINEL_CLIENT_CERT_FILE and SENTINEL_CLIENT_KEY_FILE",
            "belong together; set both or none",
        );
    }
    let tenant = reader.text_or_default("SENTINEL_TENANT");
    let tenant = TenantId::parse(&tenant).unwrap_or_else(|error| {
        reader.problem("SENTINEL_TENANT", error.to_string());
        TenantId::parse("demo").expect("it is a name")
    });
    Client {
        certificate: certificate.zip(key),
        tenant,
        url_is_given: reader.is_given("SENTINEL_URL"),
        url: reader.text_or_default("SENTINEL_URL"),
        token: reader.text("SENTINEL_TOKEN", NONE),
        ca_file: reader.text("SENTINEL_CA_FILE", "system roots").map(PathBuf::from),
        data_folder,
    }
}
