//! What an operator is told. This module holds one row for each way to get a configuration wrong.

use std::collections::BTreeMap;
use std::io;

use super::*;

#[derive(Default)]
struct World {
    variables: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
    overrides: Overrides,
    cores: usize,
}

fn world(variables: &[(&str, &str)]) -> World {
    World {
        variables: variables.iter().map(|(n, v)| ((*n).to_string(), (*v).to_string())).collect(),
        cores: 2,
        ..World::default()
    }
}

impl World {
    fn with_file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_string(), text.to_string());
        self
    }

    fn with_bind(mut self, bind: &str) -> Self {
        self.overrides.bind = Some(bind.to_string());
        self
    }

    fn with_database(mut self, database: &str) -> Self {
        self.overrides.database = Some(database.to_string());
        self
    }

    fn load(&self) -> Result<(Config, Vec<Warning>), Problems> {
        self.surrounded(Config::load)
    }

    fn surrounded<T>(&self, with: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let names: Vec<String> = self.variables.keys().cloned().collect();
        with(&Surroundings {
            lookup: &|name| self.variables.get(name).cloned(),
            names: &names,
            read_file: &|path| {
                let path = path.to_str().unwrap();
                self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
            },
            overrides: self.overrides.clone(),
            cores: self.cores,
            terminal: false,
        })
    }

    fn fine(&self) -> Config {
        match self.load() {
            Ok((config, _)) => config,
            Err(problems) => panic!("{problems}"),
        }
    }

    fn problems(&self) -> String {
        match self.load() {
            Ok(_) => panic!("there is no problem"),
            Err(problems) => problems.to_string(),
        }
    }
}

const ISSUER: (&str, &str) = ("OAUTH2_ISSUER_URI", "https://id.example.com/realms/main");
const PLAINTEXT: (&str, &str) = ("SENTINEL_PLAINTEXT", "allow");

#[test]
fn an_empty_environment_is_development_mode_on_loopback() {
    let config = world(&[]).fine();
    assert_eq!(config.mode, Mode::Development);
    assert_eq!(config.listen, "127.0.0.1:8090".parse().unwrap());
    assert_eq!(config.metrics, Some("127.0.0.1:9090".parse().unwrap()));
    assert_eq!(config.data_folder, PathBuf::from("./sentinel-data"));
    assert_eq!(config.default_role, DefaultRole::Read);
    assert_eq!(config.retention, Duration::from_secs(30 * 86_400));
    assert_eq!(config.idempotency_window, Duration::from_secs(168 * 3600));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!((config.http_loops, config.worker_threads, config.listener_threads), (1, 2, 1));
    assert_eq!(config.connections_per_ip_max, 1000);
}

#[test]
fn an_issuer_makes_it_a_production_service() {
    let config = world(&[ISSUER, PLAINTEXT, ("OAUTH2_AUDIENCE", "a, b,")]).fine();
    assert_eq!(config.listen, "0.0.0.0:8090".parse().unwrap());
    let Mode::Provider(provider) = config.mode else { panic!("this is production") };
    assert_eq!(provider.issuer.as_str(), ISSUER.1);
    assert_eq!(provider.audience, ["a", "b"]);
    assert_eq!(provider.jwk_set, None);
}

#[test]
fn every_alias_works_and_an_equal_pair_is_fine() {
    let config = world(&[
        ("OAUTH2_ISSUER", ISSUER.1),
        PLAINTEXT,
        ("SENTINEL_LISTEN_PORT", "81"),
        ("SENTINEL_HTTP_PORT", "81"),
        ("RUST_LOG", "debug"),
    ])
    .fine();
    assert!(matches!(config.mode, Mode::Provider(_)));
    assert_eq!(config.listen.port(), 81);
    assert_eq!(config.log.filter, LogFilter::Fixed("debug".to_string()));
}

#[test]
fn every_way_to_get_it_wrong_is_named_with_what_to_do() {
    let rows: &[(&[(&str, &str)], &str)] = &[
        (
            &[("SENTINEL_HTTP_PORT", "1"), ("SENTINEL_LISTEN_PORT", "2")],
            "SENTINEL_HTTP_PORT and SENTINEL_LISTEN_PORT: are two names of one setting and have different values; unset one of them",
        ),
        (
            &[("SENTINEL_HTTP_PORT", "http")],
            "SENTINEL_HTTP_PORT: \"http\" is not a whole number from 0 to 65535",
        ),
        (
            &[("SENTINEL_LISTEN_PORT", "65536")],
            "SENTINEL_LISTEN_PORT: \"65536\" is not a whole number from 0 to 65535",
        ),
        (
            &[("SENTINEL_WORKER_THREADS", "+4")],
            "SENTINEL_WORKER_THREADS: \"+4\" is not a whole number from 1 to 256",
        ),
        (
            &[("SENTINEL_WORKER_THREADS", "0")],
            "SENTINEL_WORKER_THREADS: \"0\" is not a whole number from 1 to 256",
        ),
        (
            &[("SENTINEL_HTTP_PORT", "tcp://10.0.0.1:80")],
            "SENTINEL_HTTP_PORT: \"tcp://10.0.0.1:80\" is not a whole number from 0 to 65535 (this looks like a service link of Kubernetes: set enableServiceLinks: false)",
        ),
        (
            &[("SENTINEL_QUEUE_CAPACITY", "99999999999999999999999")],
            "SENTINEL_QUEUE_CAPACITY: \"99999999999999999999999\" is not a whole number from 1 to 1000000",
        ),
        (
            &[("PROMETHEUS_METRICS_PORT", "8090")],
            "PROMETHEUS_METRICS_PORT: 8090 is also SENTINEL_HTTP_PORT; choose another port, or 0 for none",
        ),
        (
            &[("SENTINEL_DATABASE", "sqlite://")],
            "SENTINEL_DATABASE: sqlite:// names no folder; write sqlite://PATH",
        ),
        (
            &[("SENTINEL_DATABASE", "postgres://x")],
            "SENTINEL_DATABASE: is neither sqlite://PATH, such as sqlite:///var/lib/sentinel, nor oracle://ALIAS",
        ),
        (
            &[("SENTINEL_DATABASE", "oracle://db")],
            "SENTINEL_DATABASE: rules out development mode; set OAUTH2_ISSUER_URI to your identity provider, or unset it",
        ),
        (
            &[ISSUER, PLAINTEXT, ("ORACLE_HOST", "db"), ("SENTINEL_DATABASE", "sqlite:///x")],
            "SENTINEL_DATABASE and ORACLE_HOST: name two different stores; unset one of them",
        ),
        (
            &[("SENTINEL_WORKER_BIND", "tcp://127.0.0.1:5555")],
            "SENTINEL_WORKER_BIND: is not supported by this build yet; unset it",
        ),
        (
            &[("ORACLE_PASSWORD_FILE", "/nowhere")],
            "ORACLE_PASSWORD_FILE: cannot read /nowhere: entity not found; name a file that the service may read",
        ),
        (
            &[("ORACLE_CONNECT_STRING", "db")],
            "ORACLE_CONNECT_STRING: rules out development mode; set OAUTH2_ISSUER_URI to your identity provider, or unset it",
        ),
        (
            &[("SENTINEL_TLS_CERT_FILE", "/cert")],
            "SENTINEL_TLS_CERT_FILE: rules out development mode; set OAUTH2_ISSUER_URI to your identity provider, or unset it",
        ),
        (
            &[("SENTINEL_LISTEN_ADDRESS", "0.0.0.0")],
            "SENTINEL_LISTEN_ADDRESS: 0.0.0.0 is not loopback, and without an issuer this is development mode; set OAUTH2_ISSUER_URI to your identity provider, or listen on 127.0.0.1",
        ),
        (
            &[("NOTIFY_SOCKET", "/run/systemd/notify")],
            "NOTIFY_SOCKET: is set, so this is no development machine, and there is no issuer; set OAUTH2_ISSUER_URI to your identity provider",
        ),
        (
            &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")],
            "KUBERNETES_SERVICE_HOST: is set, so this is no development machine, and there is no issuer; set OAUTH2_ISSUER_URI to your identity provider",
        ),
        (
            &[ISSUER],
            "SENTINEL_PLAINTEXT: 0.0.0.0 would be served without TLS; set SENTINEL_TLS_CERT_FILE and SENTINEL_TLS_KEY_FILE, SENTINEL_PLAINTEXT=allow where a mesh or proxy terminates TLS, or SENTINEL_LISTEN_ADDRESS=127.0.0.1",
        ),
        (
            &[ISSUER, ("SENTINEL_TLS_CERT_FILE", "/cert")],
            "SENTINEL_TLS_CERT_FILE: needs its private key; set SENTINEL_TLS_KEY_FILE",
        ),
        (
            &[ISSUER, PLAINTEXT, ("SENTINEL_TLS_KEY_FILE", "/key")],
            "SENTINEL_TLS_KEY_FILE: needs its certificate; set SENTINEL_TLS_CERT_FILE",
        ),
        (
            &[ISSUER, PLAINTEXT, ("SENTINEL_METRICS_TLS_CERT_FILE", "/cert")],
            "SENTINEL_METRICS_TLS_CERT_FILE: needs its private key; set SENTINEL_METRICS_TLS_KEY_FILE",
        ),
        (
            &[ISSUER, PLAINTEXT, ("SENTINEL_TLS_CLIENT_AUTH", "required")],
            "SENTINEL_TLS_CLIENT_AUTH: needs to know who may sign: set SENTINEL_TLS_CLIENT_CA_FILE, or unset it",
        ),
        (
            &[ISSUER, PLAINTEXT, ("SENTINEL_TLS_CLIENT_AUTH", "maybe")],
            "SENTINEL_TLS_CLIENT_AUTH: \"maybe\" is not `off` or `optional` or `required`",
        ),
        (
            &[ISSUER, PLAINTEXT, ("SENTINEL_TLS_CLIENT_CA_FILE", "/ca")],
            "SENTINEL_TLS_CLIENT_CA_FILE: means nothing without TLS; set SENTINEL_TLS_CERT_FILE, or unset it",
        ),
        (
            &[ISSUER, PLAINTEXT, ("SENTINEL_METRICS_TLS_CLIENT_CA_FILE", "/ca")],
            "SENTINEL_METRICS_TLS_CLIENT_CA_FILE: means nothing without TLS; set SENTINEL_METRICS_TLS_CERT_FILE or SENTINEL_TLS_CERT_FILE, or unset it",
        ),
        (
            &[
                ISSUER,
                ("SENTINEL_TLS_CERT_FILE", "/nowhere"),
                ("SENTINEL_TLS_KEY_FILE", "/secret"),
                ("SENTINEL_TLS_CLIENT_CA_FILE", "/nowhere"),
            ],
            "SENTINEL_TLS_CERT_FILE: cannot read /nowhere: entity not found; name a file that the service may read\n\
             SENTINEL_TLS_CLIENT_CA_FILE: cannot read /nowhere: entity not found; name a file that the service may read\n\
             SENTINEL_TLS_KEY_FILE: /secret holds no private key; name a PEM file with a PKCS#8, PKCS#1 or SEC1 key",
        ),
        (
            &[("SENTINEL_CLIENT_CERT_FILE", "/cert")],
            "SENTINEL_CLIENT_CERT_FILE and SENTINEL_CLIENT_KEY_FILE: belong together; set both or none",
        ),
        (&[("SENTINEL_PLAINTEXT", "yes")], "SENTINEL_PLAINTEXT: \"yes\" is not `allow`"),
        (
            &[("SENTINEL_LISTEN_ADDRESS", "127.0.0.1:80")],
            "SENTINEL_LISTEN_ADDRESS: \"127.0.0.1:80\" is not an IP address such as 127.0.0.1 or ::1 (the port is SENTINEL_HTTP_PORT)",
        ),
        (
            &[("SENTINEL_DEFAULT_ROLE", "admin")],
            "SENTINEL_DEFAULT_ROLE: \"admin\" is not `read` or `none`",
        ),
        (
            &[("OAUTH2_JWK_SET_URI", "https://id.example.com/keys")],
            "OAUTH2_JWK_SET_URI: means nothing without an issuer; set OAUTH2_ISSUER_URI to your identity provider",
        ),
        (
            &[("OAUTH2_ISSUER_URI", "http://id.example.com"), PLAINTEXT],
            "OAUTH2_ISSUER_URI: \"http://id.example.com\" must begin with https:// (http:// is for loopback only)",
        ),
        (
            &[("OAUTH2_ISSUER", "https://id.example.com/?a"), PLAINTEXT],
            "OAUTH2_ISSUER: \"https://id.example.com/?a\" must not hold a query",
        ),
        (
            &[ISSUER, PLAINTEXT, ("OAUTH2_JWK_SET_URI", "keys")],
            "OAUTH2_JWK_SET_URI: \"keys\" is not an address such as https://id.example.com/realms/main",
        ),
        (
            &[ISSUER, PLAINTEXT, ("OAUTH2_AUDIENCE", ",")],
            "OAUTH2_AUDIENCE: names 0 audiences; name 1 to 32, separated by commas",
        ),
        (
            &[ISSUER, PLAINTEXT, ("OAUTH2_CA_FILE", "/nowhere")],
            "OAUTH2_CA_FILE: cannot read /nowhere: entity not found; name a file that the service may read",
        ),
        (
            &[ISSUER, PLAINTEXT, ("OAUTH2_CA_FILE", "/secret")],
            "OAUTH2_CA_FILE: /secret holds no certificate; name a PEM file",
        ),
        (
            &[("SENTINEL_TOKEN", "x"), ("SENTINEL_TOKEN_FILE", "/secret")],
            "SENTINEL_TOKEN and SENTINEL_TOKEN_FILE: are both set; unset one of them",
        ),
        (
            &[("SENTINEL_TOKEN_FILE", "/nowhere")],
            "SENTINEL_TOKEN_FILE: cannot read /nowhere: entity not found; name a file that the service may read",
        ),
        (
            &[("SENTINEL_TOKEN_FILE", "/empty")],
            "SENTINEL_TOKEN_FILE: /empty is empty; write the secret into it",
        ),
        (
            &[("SENTINEL_TOKEN", "a\nb")],
            "SENTINEL_TOKEN: holds a control character or is not UTF-8; write plain text",
        ),
        (
            &[("SENTINEL_LOG", "sentinel=loud")],
            "SENTINEL_LOG: \"sentinel=loud\" names no level; the levels are off, error, warn, info, debug and trace",
        ),
        (
            &[("RUST_LOG", "info"), ("SENTINEL_LOG", "debug")],
            "SENTINEL_LOG and RUST_LOG: are two names of one setting and have different values; unset one of them",
        ),
        (
            &[("RUST_LOG", "info"), ("SENTINEL_LOG_FILE", "/filter")],
            "RUST_LOG and SENTINEL_LOG_FILE: are both set; unset one of them",
        ),
        (&[("SENTINEL_LOG_FORMAT", "xml")], "SENTINEL_LOG_FORMAT: \"xml\" is not `json` or `text`"),
        (
            &[("POOL_MIN_CONNECTIONS", "30")],
            "POOL_MIN_CONNECTIONS and POOL_MAX_CONNECTIONS: the least, 30, is above the most, 20; change one of them",
        ),
        (
            &[("SENTINEL_MAX_CONNECTIONS", "10"), ("SENTINEL_MAX_CONNECTIONS_PER_IP", "11")],
            "SENTINEL_MAX_CONNECTIONS_PER_IP and SENTINEL_MAX_CONNECTIONS: 11 of one address is more than 10 in all; change one of them",
        ),
        (
            &[("SENTINEL_MAX_BATCH_BYTES", "2048")],
            "SENTINEL_MAX_BODY_BYTES and SENTINEL_MAX_BATCH_BYTES: 1048576 must not be above 2048; change one of them",
        ),
        (
            &[("SENTINEL_PROCESS_TIMEOUT_SEC", "10")],
            "SENTINEL_HEARTBEAT_INTERVAL_SEC and SENTINEL_PROCESS_TIMEOUT_SEC: 30 must not be above 10; change one of them",
        ),
    ];
    for (variables, problems) in rows {
        let world = world(variables)
            .with_file("/secret", "s3cret\n")
            .with_file("/empty", "\n")
            .with_file("/loud", "sentinel=loud\n")
            .with_file("/filter", "debug\n");
        assert_eq!(world.problems(), *problems, "{variables:?}");
    }
}

#[test]
fn all_problems_come_at_once() {
    let problems = world(&[
        ("SENTINEL_WORKER_THREADS", "many"),
        ("SENTINEL_DATABASE", "x"),
        ("SENTINEL_DEFAULT_ROLE", "x"),
        ("NOTIFY_SOCKET", "x"),
    ])
    .with_bind("0.0.0.0:80")
    .problems();
    assert_eq!(problems.lines().count(), 5, "{problems}");
}

#[test]
fn flags_win_over_the_environment() {
    let world = world(&[("SENTINEL_DATABASE", "sqlite:///a"), ("SENTINEL_HTTP_PORT", "1")])
        .with_database("sqlite:///b")
        .with_bind("tcp://[::1]:0");
    let config = world.fine();
    assert_eq!(config.data_folder, PathBuf::from("/b"));
    assert_eq!(config.listen, "[::1]:0".parse().unwrap());
    let printed = config.print();
    assert!(printed.contains("(flag --database)"), "{printed}");
    assert!(printed.contains("(flag --bind)"), "{printed}");
}

#[test]
fn a_flag_is_blamed_by_its_own_name() {
    assert_eq!(
        world(&[]).with_bind("127.0.0.1:80").problems(),
        "--bind: \"127.0.0.1:80\" is not tcp://ADDRESS:PORT, such as tcp://127.0.0.1:8090"
    );
    assert!(
        world(&[])
            .with_bind("tcp://0.0.0.0:80")
            .problems()
            .starts_with("--bind: 0.0.0.0 is not loopback")
    );
    assert!(world(&[]).with_database("sqlite://").problems().starts_with("--database: "));
}

#[test]
fn systemd_names_the_data_folder() {
    let config = world(&[("STATE_DIRECTORY", "/var/lib/sentinel:/var/lib/other")]).fine();
    assert_eq!(config.data_folder, PathBuf::from("/var/lib/sentinel"));
}

#[test]
fn a_secret_comes_from_its_file_without_the_line_break_and_is_never_printed() {
    let world = world(&[("SENTINEL_TOKEN_FILE", "/secret")]).with_file("/secret", "s3cret\n");
    let config = world.fine();
    assert_eq!(config.client.token.as_deref(), Some("s3cret"));
    let printed = config.print();
    assert!(!printed.contains("s3cret"), "{printed}");
    assert!(printed.contains("********"), "{printed}");
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn a_misspelt_variable_is_pointed_out() {
    let (_, warnings) =
        world(&[("SENTINEL_HTPP_PORT", "1"), ("SENTINEL_POOL_MAX", "1")]).load().unwrap();
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "SENTINEL_HTPP_PORT: is no variable of this service and does nothing; is SENTINEL_HTTP_PORT meant?",
            "SENTINEL_POOL_MAX: is no variable of this service and does nothing",
        ]
    );
}

#[test]
fn what_only_an_oracle_store_needs_is_pointed_out() {
    let (config, warnings) =
        world(&[("POOL_MAX_CONNECTIONS", "50"), ("SENTINEL_LISTENER_THREADS", "4")])
            .load()
            .unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(config.listener_threads, 1);
    let shown = config.effective().iter().find(|e| e.name == "SENTINEL_LISTENER_THREADS").unwrap();
    assert_eq!(shown.value, "1");
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    assert_eq!(
        world(&[("SENTINEL_HTTP_PORT", ""), ("ORACLE_PASSWORD", "")]).fine().listen.port(),
        8090
    );
}

#[test]
fn fewer_connections_in_all_lower_the_share_of_one_address() {
    let config = world(&[("SENTINEL_MAX_CONNECTIONS", "10")]).fine();
    assert_eq!(config.connections_per_ip_max, 10);
}

#[test]
fn loops_follow_the_cores() {
    for (cores, loops) in [(1, 1), (3, 1), (4, 2), (9, 4), (1000, 64)] {
        let config = World { cores, ..world(&[]) }.fine();
        assert_eq!(config.http_loops, loops, "{cores}");
    }
}

#[test]
fn the_effective_configuration_shows_every_variable_and_its_origin() {
    let config = world(&[("SENTINEL_LISTEN_PORT", "81")]).fine();
    let names: Vec<&str> = config.effective().iter().map(|entry| entry.name).collect();
    let table: Vec<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
    assert_eq!(names, table);
    let printed = config.print();
    assert!(
        printed.lines().any(|line| {
            line.split_whitespace().collect::<Vec<_>>().join(" ")
                == "SENTINEL_HTTP_PORT 81 (environment SENTINEL_LISTEN_PORT)"
        }),
        "{printed}"
    );
}

#[test]
fn a_client_works_where_no_service_could_start() {
    let world = world(&[
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("SENTINEL_WORKER_THREADS", "many"),
        ("SENTINEL_URL", "https://sentinel.example.com"),
        ("SENTINEL_TOKEN", "s3cret"),
    ]);
    let client = world.surrounded(Client::load).unwrap();
    assert_eq!(client.url, "https://sentinel.example.com");
    assert!(client.url_is_given);
    assert_eq!(client.token.as_deref(), Some("s3cret"));
    assert_eq!(client.data_folder, PathBuf::from("./sentinel-data"));
    assert!(!format!("{client:?}").contains("s3cret"));
}

#[test]
fn an_oracle_address_means_an_oracle_store_with_its_own_defaults() {
    for named in [
        ("SENTINEL_DATABASE", "oracle://ALIAS"),
        ("ORACLE_TNS_NAME", "ALIAS"),
        ("ORACLE_CONNECT_STRING", "ALIAS"),
    ] {
        let (config, warnings) = world(&[ISSUER, PLAINTEXT, named]).load().unwrap();
        let Database::Oracle(database) = &config.database else { panic!("{named:?}") };
        assert_eq!(database.address.connect, "ALIAS");
        assert_eq!(
            (database.schema.as_str(), database.queue.as_str()),
            ("SENTINEL", "SENTINEL_QUEUE")
        );
        assert_eq!((config.worker_threads, config.listener_threads), (4, 2));
        assert_eq!(warnings.len(), 0, "{warnings:?}");
    }
}

#[test]
fn an_oracle_store_needs_a_session_for_each_thread() {
    let base = [ISSUER, PLAINTEXT, ("ORACLE_TNS_NAME", "ALIAS")];
    let with = |more: &[(&'static str, &'static str)]| {
        let all: Vec<_> = base.iter().chain(more).copied().collect();
        world(&all).load()
    };
    let problems = with(&[("POOL_MAX_CONNECTIONS", "9")]).unwrap_err().to_string();
    for word in ["POOL_MAX_CONNECTIONS", "9", "10 threads", "SENTINEL_WORKER_THREADS"] {
        assert!(problems.contains(word), "{word}: {problems}");
    }
    with(&[("POOL_MAX_CONNECTIONS", "10")]).unwrap();
    let problems = with(&[("SENTINEL_QUEUE_NAME", "a b")]).unwrap_err().to_string();
    assert!(problems.contains("SENTINEL_QUEUE_NAME"), "{problems}");
    let two = with(&[("SENTINEL_DATABASE", "oracle://OTHER")]).unwrap_err().to_string();
    assert!(two.contains("SENTINEL_DATABASE and ORACLE_TNS_NAME"), "{two}");
}
