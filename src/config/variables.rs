//! Every variable that the service reads, in one table. This module is what the parser, `check-config` and the
//! README's configuration table have in common, so that none of them can know a variable that the others don't.

/// Whether this build can do what a variable asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It does what the meaning says.
    Full,
    /// Setting it is refused, so that nobody believes it did something.
    NotYet,
}

/// One setting: what it is called, what it is worth when nobody sets it, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    pub name: &'static str,
    /// A second name for the same setting.
    pub alias: Option<&'static str>,
    /// The default as text. Where it is a number, it is the number that is used.
    pub default: &'static str,
    pub meaning: &'static str,
    /// Masked wherever it is printed, and also read from the file that `NAME_FILE` names.
    pub secret: bool,
    pub support: Support,
}

impl Variable {
    /// The variable that names a file with this secret in it.
    pub fn file_name(&self) -> Option<String> {
        self.secret.then(|| format!("{}_FILE", self.name))
    }
}

const fn variable(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, alias: None, default, meaning, secret: false, support: Support::Full }
}

const fn not_yet(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { support: Support::NotYet, ..variable(name, default, meaning) }
}

const fn also(alias: &'static str, variable: Variable) -> Variable {
    Variable { alias: Some(alias), ..variable }
}

const fn secret(variable: Variable) -> Variable {
    Variable { secret: true, ..variable }
}

/// What stands where there is no default.
pub(super) const NONE: &str = "-";

/// Every variable, in the order in which the documentation shows them.
pub const VARIABLES: &[Variable] = &[
    variable(
        "SENTINEL_DATABASE",
        "sqlite://$STATE_DIRECTORY or ./sentinel-data",
        "where the data lives: `sqlite://PATH` is the embedded store in the folder PATH; `oracle://ALIAS`, \
         `oracle://HOST:PORT/SERVICE` or an `ORACLE_*` address is a database",
    ),
    also(
        "ORACLE_CONNECT_STRING",
        variable("ORACLE_TNS_NAME", NONE, "TNS alias, EZConnect or a full descriptor"),
    ),
    variable("ORACLE_HOST", NONE, "host of a TCPS descriptor, when no alias is given"),
    variable("ORACLE_PORT", "1522", "port of that descriptor"),
    variable("ORACLE_SERVICE", NONE, "service name of that descriptor"),
    variable(
        "ORACLE_SERVER_DN",
        NONE,
        "distinguished name that the server's certificate must have",
    ),
    variable("ORACLE_WALLET_LOCATION", NONE, "wallet folder"),
    variable("ORACLE_USERNAME", NONE, "database user; empty: the wallet authenticates"),
    secret(variable("ORACLE_PASSWORD", NONE, "its password; empty: the wallet authenticates")),
    variable("ORACLE_CLIENT_LIB_DIR", "loader path", "folder of the Instant Client"),
    variable(
        "SENTINEL_QUEUE_NAME",
        "SENTINEL_QUEUE",
        "AQ queue; with a schema (`SENTINEL.SENTINEL_QUEUE`) the tables are looked for there, too",
    ),
    variable(
        "SENTINEL_LISTEN_ADDRESS",
        "127.0.0.1 in development mode, else 0.0.0.0",
        "address to listen on",
    ),
    also(
        "SENTINEL_LISTEN_PORT",
        variable("SENTINEL_HTTP_PORT", "8090", "port of the API and the UI; 0: any free port"),
    ),
    variable("PROMETHEUS_METRICS_PORT", "9090", "port of the metrics; 0: off"),
    variable("SENTINEL_TLS_CERT_FILE", NONE, "certificate chain: TLS 1.3 on the API port"),
    variable("SENTINEL_TLS_KEY_FILE", NONE, "its private key"),
    variable("SENTINEL_TLS_CLIENT_CA_FILE", NONE, "who may sign client certificates"),
    variable(
        "SENTINEL_TLS_CLIENT_AUTH",
        "optional once a CA is set",
        "client certificates: `off`, `optional` (`/internal/*` and `/metrics` need one) or `required`",
    ),
    variable(
        "SENTINEL_PLAINTEXT",
        NONE,
        "`allow`: listen beyond loopback without TLS, because a mesh or proxy terminates it",
    ),
    variable(
        "SENTINEL_DEFAULT_ROLE",
        "read",
        "what a token without any `sentinel:*` role may do: `read` or `none`",
    ),
    variable(
        "SENTINEL_METRICS_TLS_CERT_FILE",
        "the API's",
        "certificate chain of the metrics port",
    ),
    variable("SENTINEL_METRICS_TLS_KEY_FILE", "the API's", "its private key"),
    variable(
        "SENTINEL_METRICS_TLS_CLIENT_CA_FILE",
        "the API's",
        "who may sign the certificate that a scraper must show",
    ),
    also(
        "OAUTH2_ISSUER",
        variable("OAUTH2_ISSUER_URI", NONE, "identity provider; unset: development mode"),
    ),
    variable("OAUTH2_JWK_SET_URI", "from the issuer's discovery document", "key set"),
    variable("OAUTH2_AUDIENCE", "clm-service", "accepted audiences, separated by commas"),
    variable("OAUTH2_CA_FILE", "system roots", "private CA of the identity provider"),
    variable(
        "SENTINEL_HTTP_LOOPS",
        "1 up to 3 cores, else cores/2",
        "poll loops that own the sockets",
    ),
    variable(
        "SENTINEL_WORKER_THREADS",
        "2",
        "HTTP workers, each with a store session and an arena (Oracle: 4)",
    ),
    variable("SENTINEL_LISTENER_THREADS", "1", "queue listeners (Oracle: 2)"),
    variable("SENTINEL_LOG_WRITER_THREADS", "1", "bulk log writers"),
    variable(
        "SENTINEL_QUEUE_CAPACITY",
        "10000",
        "events, and again log rows, of one tenant that may wait to be written; of all tenants twice as many; full: 503 with Retry-After",
    ),
    variable("SENTINEL_LOG_BATCH_SIZE", "1000", "rows in one log insert"),
    variable("SENTINEL_MAX_CONNECTIONS", "20000", "open connections, in all"),
    variable("SENTINEL_MAX_CONNECTIONS_PER_IP", "1000", "open connections of one address"),
    variable("SENTINEL_MAX_BODY_BYTES", "1048576", "longest body; 413 above"),
    variable("SENTINEL_MAX_BATCH_BYTES", "16777216", "longest body of a batch; 413 above"),
    variable(
        "SENTINEL_INFLIGHT_BYTES",
        "134217728",
        "bytes that bodies on their way in may hold together, and again what waits to be durable; one tenant, and one body, gets half at most; full: 503 with Retry-After",
    ),
    variable(
        "SENTINEL_HEARTBEAT_INTERVAL_SEC",
        "30",
        "seconds between two signs of life, where a start names no other",
    ),
    variable(
        "SENTINEL_PROCESS_TIMEOUT_SEC",
        "3600",
        "seconds of silence after which a process without heartbeats has expired",
    ),
    variable(
        "SENTINEL_RETENTION_DAYS",
        "30",
        "days that logs, events and ended processes are kept",
    ),
    variable(
        "SENTINEL_IDEMPOTENCY_HOURS",
        "168",
        "hours that keys and event ids are remembered; an older repeat is a new event",
    ),
    variable(
        "SENTINEL_LOG_KEEP_HOURS",
        "24",
        "hours that the embedded log is kept; 0: until a checked snapshot covers it",
    ),
    variable(
        "SENTINEL_MIN_FREE_BYTES",
        "268435456",
        "free disk space below which log rows are shed and events refused",
    ),
    variable(
        "POOL_MIN_CONNECTIONS",
        "5",
        "checked against the most; each thread keeps one session of its own, so there is no least",
    ),
    variable(
        "POOL_MAX_CONNECTIONS",
        "20",
        "most database sessions; not below the number of threads that need one",
    ),
    variable("SENTINEL_SESSION_PING_SEC", "60", "seconds of idleness before a session is pinged"),
    variable("SENTINEL_SESSION_MAX_LIFETIME_SEC", "3600", "seconds before a session is renewed"),
    variable(
        "SENTINEL_SESSION_CONNECT_WAIT_MS",
        "5000",
        "milliseconds to wait for a session; 250 at most once an attempt has failed",
    ),
    variable("SENTINEL_SHUTDOWN_TIMEOUT_SEC", "25", "seconds that a stop may take"),
    not_yet("SENTINEL_WORKER_BIND", "off", "ZeroMQ ROUTER address, such as tcp://127.0.0.1:5555"),
    variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "off",
        "collector that traces are sent to: OTLP over HTTP, port 4318; `/v1/traces` is added",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "off",
        "the same, whole: nothing is added, and it goes before the other one",
    ),
    also(
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        secret(variable(
            "OTEL_EXPORTER_OTLP_HEADERS",
            NONE,
            "fields for the collector, such as `api-key=…`, separated by commas",
        )),
    ),
    also(
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        variable(
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "10000",
            "milliseconds that the collector gets for a batch of spans",
        ),
    ),
    also(
        "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
        variable("OTEL_EXPORTER_OTLP_CERTIFICATE", "system roots", "private CA of the collector"),
    ),
    also(
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        variable("OTEL_EXPORTER_OTLP_COMPRESSION", "none", "`none`: there is no other"),
    ),
    also(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        variable(
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/protobuf",
            "`http/protobuf`: there is no other",
        ),
    ),
    variable("OTEL_SERVICE_NAME", "process-sentinel", "name of this service in traces"),
    variable(
        "OTEL_RESOURCE_ATTRIBUTES",
        NONE,
        "further facts about this service in traces, such as `deployment.environment.name=prod`, separated by commas",
    ),
    variable(
        "OTEL_TRACES_SAMPLER",
        "parentbased_always_on",
        "which traces are recorded: `always_on`, `always_off`, `traceidratio`, or one of these after `parentbased_`, which does as the caller's `traceparent` says where there is one",
    ),
    variable(
        "OTEL_TRACES_SAMPLER_ARG",
        "1.0",
        "share of the traces for `traceidratio`, from 0 to 1",
    ),
    variable("OTEL_SDK_DISABLED", "false", "`true`: no traces, whatever else is set"),
    variable(
        "OTEL_BSP_SCHEDULE_DELAY",
        "5000",
        "milliseconds that a span waits at most for a batch to fill",
    ),
    variable(
        "OTEL_BSP_EXPORT_TIMEOUT",
        "30000",
        "a second bound on the time for a batch, in milliseconds",
    ),
    variable(
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "2048",
        "spans that may wait; more are dropped and counted, and never slow a request",
    ),
    variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512", "spans in one batch"),
    also(
        "RUST_LOG",
        variable("SENTINEL_LOG", "info", "filter of the service's own log, as env_logger reads it"),
    ),
    variable("SENTINEL_LOG_FILE", NONE, "file that holds the filter; read again on SIGHUP"),
    variable("SENTINEL_LOG_FORMAT", "text on a terminal, else json", "`json` or `text`"),
    variable("SENTINEL_URL", "http://127.0.0.1:8090", "service that the client commands talk to"),
    secret(variable("SENTINEL_TOKEN", NONE, "token that the client commands send")),
    variable("SENTINEL_CA_FILE", "system roots", "private CA of that service"),
    variable("SENTINEL_CLIENT_CERT_FILE", NONE, "certificate that the client commands show"),
    variable("SENTINEL_CLIENT_KEY_FILE", NONE, "its private key"),
    variable(
        "SENTINEL_TENANT",
        "demo",
        "tenant of the token that client commands sign with the development key",
    ),
];

/// Settings that mean something with an Oracle database only.
pub(super) const ORACLE_ONLY: &[&str] = &[
    "ORACLE_TNS_NAME",
    "ORACLE_HOST",
    "ORACLE_PORT",
    "ORACLE_SERVICE",
    "ORACLE_SERVER_DN",
    "ORACLE_WALLET_LOCATION",
    "ORACLE_USERNAME",
    "ORACLE_PASSWORD",
    "ORACLE_CLIENT_LIB_DIR",
    "SENTINEL_QUEUE_NAME",
    "POOL_MIN_CONNECTIONS",
    "POOL_MAX_CONNECTIONS",
    "SENTINEL_SESSION_PING_SEC",
    "SENTINEL_SESSION_MAX_LIFETIME_SEC",
    "SENTINEL_SESSION_CONNECT_WAIT_MS",
];

/// Variables of the surroundings that mean something to us and are not ours.
pub(super) const SURROUNDINGS: &[&str] =
    &["STATE_DIRECTORY", "NOTIFY_SOCKET", "KUBERNETES_SERVICE_HOST"];

/// The row of `name`, which may be an alias.
pub(super) fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name || variable.alias == Some(name))
}

/// The known variable whose name is nearest to `name`, if one is near enough to be meant.
pub(super) fn nearest(name: &str) -> Option<String> {
    // A third of the letters wrong is still a typing error; more is another word.
    let near_enough = name.len() / 3;
    VARIABLES
        .iter()
        .flat_map(|variable| {
            [
                Some(variable.name.to_string()),
                variable.alias.map(String::from),
                variable.file_name(),
            ]
        })
        .flatten()
        .map(|known| (distance(name, &known), known))
        .filter(|(distance, _)| *distance <= near_enough)
        .min()
        .map(|(_, known)| known)
}

/// How many letters must be added, removed or changed to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_listed_once() {
        let mut names: Vec<&str> =
            VARIABLES.iter().flat_map(|v| [Some(v.name), v.alias]).flatten().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_typing_error_finds_the_name_that_was_meant() {
        assert_eq!(nearest("SENTINEL_HTTP_PROT").as_deref(), Some("SENTINEL_HTTP_PORT"));
        assert_eq!(nearest("SENTINEL_TOKEN_FIEL").as_deref(), Some("SENTINEL_TOKEN_FILE"));
        assert_eq!(nearest("SENTINEL_COFFEE_MACHINE_TEMPERATURE"), None);
    }

    #[test]
    fn distance_counts_letters() {
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("abc", "acb"), 2);
        assert_eq!(distance("", "abc"), 3);
    }
}
