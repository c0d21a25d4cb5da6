//! The stand-in for Oracle's client library, built and started for a test. This module starts PostgreSQL in a temporary
//! folder, makes a database for each test, and steers faults; see `tests/oci-standin/README.md`.
//!
//! It is used by the stand-in's own tests too, so it knows nothing of the product.

#![allow(dead_code, reason = "two test programs use this, and neither uses all of it")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Nothing here takes longer, or something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the stand-in lives.
const SOURCE: &str = "tests/oci-standin";

/// A PostgreSQL server of this test program, with the template of all databases.
struct Postgres {
    folder: PathBuf,
    library: PathBuf,
    user: Option<(u32, u32)>,
    programs: PathBuf,
    /// Its standard input stays open as long as this process lives; then the keeper ends the server.
    _keeper: Child,
}

/// One database behind the stand-in: an Oracle service to whoever loads the library.
pub(crate) struct Standin {
    server: &'static Postgres,
    /// What a client connects to.
    pub connect_string: String,
    /// Where `libclntsh.so` is: `ORACLE_CLIENT_LIB_DIR`.
    pub library: PathBuf,
    control: PathBuf,
    database: String,
    faults: Mutex<Vec<String>>,
    numbers: AtomicU64,
    /// What the clock shows while it is held.
    held_at: Mutex<Option<i64>>,
}

/// Starts a service, or says loudly why not. None only where PostgreSQL is missing and nobody insists on it.
pub(crate) fn start() -> Option<Standin> {
    static SERVER: OnceLock<Result<Postgres, String>> = OnceLock::new();
    match SERVER.get_or_init(Postgres::start) {
        Ok(server) => Some(Standin::on(server)),
        Err(missing) => {
            assert!(
                std::env::var_os("SENTINEL_TEST_REQUIRE_STANDIN").is_none(),
                "the stand-in is required, but {missing}"
            );
            // Past the test runner's capture, so that a skip can't be overlooked.
            let line = format!("\nSKIPPED: no rehearsal on the stand-in for Oracle: {missing}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            None
        }
    }
}

impl Postgres {
    fn start() -> Result<Self, String> {
        let programs =
            programs().ok_or("PostgreSQL is not installed (Debian: apt install postgresql)")?;
        let library = built();
        tidied();
        let name = format!("standin-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("control")).expect("a temporary folder");
        fs::create_dir(folder.join("pg")).expect("a folder for the server");
        fs::create_dir(folder.join("lib")).expect("a folder for the library");
        // ODPI-C looks for this name; the library finds its folder by the file beside it.
        fs::copy(library, folder.join("lib/libclntsh.so")).expect("the library is copied");
        fs::write(folder.join("lib/standin-folder"), folder.display().to_string())
            .expect("written");
        let user = server_user();
        if let Some((user, group)) = user {
            chown(folder.join("pg"), Some(user), Some(group))
                .expect("the server's folder is its own");
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))
            .expect("the folder is entered");
        let lib = folder.join("lib");
        let keeper = keeper(&programs, &folder, user);
        let server = Self { folder, library: lib, user, programs, _keeper: keeper };
        server.wait();
        server.sql("postgres", "CREATE DATABASE template_standin");
        for file in ["sql/standin.sql", "sql/dictionary.sql"] {
            let source = root().join(SOURCE).join(file);
            let text = fs::read_to_string(source).expect("the stand-in's own SQL");
            server.sql("template_standin", &text);
        }
        Ok(server)
    }

    fn wait(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut ready = self.program("psql", "postgres");
            ready.args(["-c", "SELECT 1"]).stdout(Stdio::null()).stderr(Stdio::null());
            if ready.status().is_ok_and(|status| status.success()) {
                return;
            }
            let log = || fs::read_to_string(self.folder.join("server.log")).unwrap_or_default();
            assert!(Instant::now() < end, "PostgreSQL does not start: {}", log());
            std::thread::yield_now();
        }
    }

    fn program(&self, name: &str, database: &str) -> Command {
        let own = self.programs.join(name);
        let mut command = Command::new(if own.exists() { own } else { name.into() });
        command.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            database,
        ]);
        command.arg("-h").arg(self.folder.join("pg")).env_remove("PGSERVICE");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group).current_dir("/");
        }
        command
    }

    fn sql(&self, database: &str, text: &str) -> String {
        let mut psql = self.program("psql", database);
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = psql.spawn().expect("psql runs");
        let mut input = child.stdin.take().expect("its input is a pipe");
        input.write_all(text.as_bytes()).expect("psql reads");
        drop(input);
        let output = child.wait_with_output().expect("psql ends");
        assert!(
            output.status.success(),
            "psql refuses: {}\n{text}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// Runs the server, and ends it when this process does, whatever way that is: its input then ends.
fn keeper(programs: &Path, folder: &Path, user: Option<(u32, u32)>) -> Child {
    let script = r#"
        data="$1/pg/data"
        "$0/initdb" -D "$data" -U postgres -A trust -E UTF8 --no-locale -N >"$1/pg/init.log" 2>&1 || exit 1
        "$0/postgres" -D "$data" -k "$1/pg" -c listen_addresses= -c fsync=off -c full_page_writes=off \
            -c synchronous_commit=off -c max_connections=200 -c shared_buffers=64MB -c autovacuum_naptime=10s \
            -c unix_socket_permissions=0777 >"$1/pg/server.log" 2>&1 &
        server=$!
        cat >/dev/null
        kill -INT $server
        wait $server
        rm -rf "$1/pg/"*
    "#;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).arg(programs).arg(folder).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command.process_group(0).spawn().expect("a shell runs")
}

impl Drop for Standin {
    fn drop(&mut self) {
        // Where the server itself ends, so does the database.
        let text = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
        let _ = self.server.program("psql", "postgres").args(["-c", &text]).output();
        let _ = fs::remove_dir_all(&self.control);
    }
}

impl Standin {
    fn on(server: &'static Postgres) -> Self {
        Self::copied(server, "template_standin")
    }

    /// Another service that begins with what this one holds. Nobody may be in this one meanwhile.
    pub(crate) fn copy(&self) -> Self {
        let end = Instant::now() + PATIENCE;
        let sessions =
            format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'", self.database);
        while self.server.sql("postgres", &sessions) != "0" {
            assert!(Instant::now() < end, "sessions of what is to be copied stay open");
            std::thread::yield_now();
        }
        Self::copied(self.server, &self.database)
    }

    fn copied(server: &'static Postgres, template: &str) -> Self {
        static DATABASES: AtomicU64 = AtomicU64::new(0);
        // One at a time: a template may not be in use while it is copied.
        static ONE: Mutex<()> = Mutex::new(());
        let database = format!("s{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        server.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE {template}"));
        drop(one);
        let control = server.folder.join("control").join(&database);
        fs::create_dir_all(control.join("trips")).expect("a folder to steer by");
        Self {
            server,
            connect_string: format!("//localhost/{database}"),
            library: server.library.clone(),
            control,
            database,
            faults: Mutex::default(),
            numbers: AtomicU64::default(),
            held_at: Mutex::default(),
        }
    }

    /// Runs PostgreSQL's SQL beside the stand-in: to look, to move the clock, to kill.
    pub(crate) fn sql(&self, text: &str) -> String {
        self.server.sql(&self.database, text)
    }

    /// Injects one fault, such as `on=OCITransCommit nth=2 times=1 do=lose-after`, and returns its id.
    pub(crate) fn inject(&self, fault: &str) -> String {
        let id = format!("f{}", self.numbers.fetch_add(1, Ordering::Relaxed));
        let mut faults = self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        faults.push(format!("id={id} {fault}"));
        self.write(&faults);
        id
    }

    /// Ends one fault.
    pub(crate) fn mend(&self, id: &str) {
        let mut faults = self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        faults.retain(|fault| !fault.starts_with(&format!("id={id} ")));
        self.write(&faults);
    }

    /// How often a fault hit so far.
    pub(crate) fn hits(&self, id: &str) -> usize {
        let fired = fs::read_to_string(self.control.join("fired")).unwrap_or_default();
        fired.lines().filter(|line| line.starts_with(&format!("id={id} "))).count()
    }

    fn write(&self, faults: &[String]) {
        let new = self.control.join("faults.new");
        fs::write(&new, faults.join("\n")).expect("faults are written");
        fs::rename(new, self.control.join("faults")).expect("faults are put in place");
    }

    /// Moves the database's clock.
    pub(crate) fn forward(&self, pause: Duration) {
        let ms = pause.as_millis();
        self.sql(&format!(
            "UPDATE standin.setting SET clock_offset = clock_offset + interval '{ms} milliseconds'"
        ));
    }

    /// Holds the database's clock at a time, in microseconds since 1970, until it is held at a later one.
    pub(crate) fn hold_clock(&self, at_us: i64) {
        let mut held_at = self.held_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if held_at.is_some_and(|held_at| held_at >= at_us) {
            return;
        }
        let file = self.control.join("clock");
        let new = self.control.join("clock.new");
        fs::write(&new, at_us.to_string()).expect("a time is written");
        fs::rename(new, &file).expect("a time is put in place");
        if held_at.is_none() {
            self.sql(&format!("UPDATE standin.setting SET clock_file = '{}'", file.display()));
        }
        *held_at = Some(at_us);
    }

    /// Starts or stops the queue.
    pub(crate) fn queue(&self, enqueue: bool, dequeue: bool) {
        self.sql(&format!(
            "UPDATE standin.setting SET enqueue_enabled = {enqueue}, dequeue_enabled = {dequeue}"
        ));
    }

    /// Ends all sessions, as an administrator does; returns how many.
    pub(crate) fn kill_sessions(&self) -> usize {
        let killed = self.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = 'oci-standin'",
        );
        killed.parse().expect("a count")
    }

    /// Round trips so far of all connections whose `module/action` contains `name`, by what they were for.
    pub(crate) fn trips(&self, name: &str) -> std::collections::BTreeMap<String, u64> {
        let mut sums = std::collections::BTreeMap::new();
        for entry in fs::read_dir(self.control.join("trips")).expect("the folder of trips") {
            let text = fs::read_to_string(entry.expect("an entry").path()).unwrap_or_default();
            let mut lines = text.lines();
            if !lines.next().unwrap_or_default().contains(name) {
                continue;
            }
            for line in lines.take_while(|line| *line != "end") {
                if let Some((what, count)) = line.split_once(' ') {
                    *sums.entry(what.to_owned()).or_default() += count.parse::<u64>().unwrap_or(0);
                }
            }
        }
        sums
    }
}

/// The root of the repository: the stand-in's own tests are built two folders below it.
fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    if own.ends_with(SOURCE) { own.ancestors().nth(2).expect("two folders up") } else { own }
}

/// Takes away what test programs left that are gone.
fn tidied() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process =
            name.to_str().and_then(|name| name.strip_prefix("standin-")?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The folder of PostgreSQL's programs, the newest one.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            path.join("bin/postgres").exists().then(|| (version, path.join("bin")))
        })
        .collect();
    found.sort();
    // MERGE came with 15.
    found.pop().filter(|(version, _)| *version >= 15).map(|(_, path)| path)
}

/// PostgreSQL does not run as root, so root lends it Debian's user.
fn server_user() -> Option<(u32, u32)> {
    let own = fs::metadata("/proc/self").ok()?;
    if std::os::unix::fs::MetadataExt::uid(&own) != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Builds the library, where it is not built yet, into the product's own target folder.
fn built() -> PathBuf {
    let root = root();
    let target = root.join("target/oci-standin");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(root.join(SOURCE).join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&target).current_dir(root);
    // What the outer build was asked for is not for this one.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_") && name != "CARGO_HOME" || name == "RUSTFLAGS" {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the stand-in builds");
    target.join("debug/libclntsh.so")
}
