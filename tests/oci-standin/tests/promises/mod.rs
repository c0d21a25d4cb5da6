//! The promises, by what they are about. This module connects.

use oracle::sql_type::{OracleType, ToSql};
use oracle::{Connection, Connector, InitParams, SqlValue};

use crate::oracle_standin::{self, Standin};

mod faults;
mod queue;
mod scripts;
mod sessions;
mod statements;

/// A stand-in with a connection, or nothing where there is no PostgreSQL.
macro_rules! standin_or_skip {
    () => {
        match super::started() {
            Some(standin) => standin,
            None => return,
        }
    };
}
use standin_or_skip;

fn started() -> Option<Standin> {
    let standin = oracle_standin::start()?;
    let mut parameters = InitParams::new();
    parameters.oracle_client_lib_dir(&standin.library).unwrap().init().unwrap();
    Some(standin)
}

fn connect(standin: &Standin) -> Connection {
    Connection::connect("sentinel_svc", "secret", &standin.connect_string).unwrap()
}

/// A value that is bound as this type.
struct As<T>(T, OracleType);

impl<T: ToSql> ToSql for As<T> {
    fn oratype(&self, connection: &Connection) -> oracle::Result<OracleType> {
        (&self.0, &self.1).oratype(connection)
    }

    fn to_sql(&self, value: &mut SqlValue<'_>) -> oracle::Result<()> {
        (&self.0, &self.1).to_sql(value)
    }
}

/// A text as VARCHAR2, the only way in which the project binds one.
fn varchar(value: &str) -> As<&str> {
    As(value, OracleType::Varchar2(200))
}

fn wallet(standin: &Standin) -> Connection {
    let mut connector = Connector::new("", "", &standin.connect_string);
    connector.external_auth(true).connect().unwrap()
}

/// Oracle's number of an error, also of one that ODPI-C wrapped.
fn code<T>(done: Result<T, oracle::Error>) -> i32 {
    done.map(|_| ()).unwrap_err().oci_code().unwrap_or(0)
}

fn dpi_code<T>(done: Result<T, oracle::Error>) -> i32 {
    done.map(|_| ()).unwrap_err().dpi_code().unwrap_or(0)
}
