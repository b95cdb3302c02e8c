//! What stores on databases have in common.

use std::borrow::Cow;
use std::fmt;

use sqlx::SqlStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use crate::error::{Error, ErrorKind};
use crate::limits;

/// The bounds of a store on a database.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DatabaseBounds {
    /// Jobs that may wait.
    pub pending: usize,
    /// Bytes of one log, all attempts together.
    pub log_bytes: u64,
}

impl Default for DatabaseBounds {
    fn default() -> Self {
        Self { pending: limits::DATABASE_PENDING_JOBS_MAX, log_bytes: limits::JOB_LOG_BYTES_MAX }
    }
}

/// A database that did not do what it was asked.
pub(super) fn unavailable(error: sqlx::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the job database does not work").source(error)
}

/// Brings a database to the newest of these versions, oldest first: what each is about, and its statements. Refuses a
/// database that is newer.
pub(super) fn migrator(versions: &[(&'static str, &'static str)]) -> Migrator {
    let migration = |(index, (about, statements)): (usize, &(&'static str, &'static str))| {
        let version = i64::try_from(index).unwrap_or(i64::MAX).saturating_add(1);
        Migration::new(
            version,
            Cow::Borrowed(*about),
            MigrationType::Simple,
            SqlStr::from_static(statements),
            false,
        )
    };
    Migrator::with_migrations(versions.iter().enumerate().map(migration).collect())
}

/// Why the database at this place was not brought to the newest version.
pub(super) fn migration_error(error: MigrateError, at: impl fmt::Display) -> Error {
    match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => {
            let message = format!("the job database has schema {version}, which this program does not know");
            Error::new(ErrorKind::Unsupported, message)
                .with("database", at)
                .hint("a newer melange-server wrote it: start that one, or give another --database")
        }
        MigrateError::Execute(error) => unavailable(error).with("database", at),
        other => {
            Error::new(ErrorKind::Unavailable, "the job database could not be brought to the present schema")
                .source(other)
                .with("database", at)
        }
    }
}
