//! The fleet: a document for each backend, changed by the rules of [`Registry`].

use std::collections::BTreeMap;

use sqlx::{Executor as _, QueryBuilder, Row};

use super::codec::{count, from_doc, number, to_doc};
use super::dialect::{Connection, Db};
use super::*;
use crate::backend::registry::{BackendRegistry, FleetChange, FleetState, RegisteredBackend, Registry};
use crate::job::{BackendLoad, JobResources};

/// What runs on backends; conditions and the grouping follow. Sums are cast, for a database may widen them.
pub(super) const LOADS: &str = "SELECT backend, count(*) AS running, CAST(sum(cpu_millis) AS BIGINT) AS cpu_millis, \
     CAST(sum(memory_bytes) AS BIGINT) AS memory_bytes FROM jobs WHERE state = 2 AND backend IS NOT NULL";

/// What a row of [`LOADS`] says.
pub(super) fn load(row: &StoredRow) -> sqlx::Result<BackendLoad> {
    let running: i64 = row.try_get("running")?;
    let (cpu_millis, memory_bytes): (i64, i64) = (row.try_get("cpu_millis")?, row.try_get("memory_bytes")?);
    let mut used = JobResources::default();
    (used.cpu_millis, used.memory_bytes) = (number(cpu_millis), number(memory_bytes));
    Ok(BackendLoad::new(u32::try_from(running).unwrap_or(u32::MAX), used))
}

/// The backends, in the order in which they came. One whose document cannot be read must not keep all others from work.
async fn read_backends<'c>(from: impl sqlx::Executor<'c, Database = Db>) -> sqlx::Result<FleetState> {
    let mut fleet = FleetState::default();
    for row in sqlx::query("SELECT key, doc FROM backends ORDER BY number").fetch_all(from).await? {
        match from_doc::<RegisteredBackend>(row.try_get("doc")?) {
            Ok(backend) => fleet.backends.push(backend),
            Err(error) => _ = fleet.unreadable.insert(row.try_get("key")?, error.to_string()),
        }
    }
    Ok(fleet)
}

/// What jobs of other servers than this one run on backends.
async fn read_elsewhere<'c>(
    from: impl sqlx::Executor<'c, Database = Db>,
    server: &ServerId,
) -> sqlx::Result<BTreeMap<String, BackendLoad>> {
    let mut select: QueryBuilder<Db> = QueryBuilder::new(LOADS);
    select.push(" AND server <> ").push_bind(server.as_str().to_owned()).push(" GROUP BY backend");
    let rows = select.build().fetch_all(from).await?;
    rows.iter().map(|row| Ok((row.try_get("backend")?, load(row)?))).collect()
}

impl Session<'_> {
    async fn change_fleet(
        &mut self,
        server: &ServerId,
        changes: &[FleetChange],
        at: Timestamp,
    ) -> sqlx::Result<Result<FleetState>> {
        let before = read_backends(&mut *self.connection).await?;
        let mut registry = Registry::new(before.backends);
        let changed = match registry.change(changes, at) {
            Ok(changed) => changed,
            Err(error) => return Ok(Err(error)),
        };
        self.told.backends |= !changed.is_empty();
        for backend in &changed.changed {
            write_backend(self.connection, backend).await?;
        }
        for place in &changed.forgotten {
            let delete = sqlx::query("DELETE FROM backends WHERE key = $1").bind(place.key());
            self.connection.execute(delete).await?;
        }
        self.set.changes.events.extend(changed.events);
        let mut fleet = FleetState::new(registry.backends());
        fleet.elsewhere = read_elsewhere(&mut *self.connection, server).await?;
        fleet.unreadable = before.unreadable;
        Ok(Ok(fleet))
    }
}

async fn write_backend(connection: &mut Connection, backend: &RegisteredBackend) -> sqlx::Result<()> {
    let insert = "INSERT INTO backends (key, number, doc) VALUES ($1, $2, $3) \
                  ON CONFLICT (key) DO UPDATE SET number = excluded.number, doc = excluded.doc";
    let insert =
        sqlx::query(insert).bind(backend.place.key()).bind(count(backend.number)).bind(to_doc(backend)?);
    connection.execute(insert).await.map(drop)
}

#[async_trait]
impl BackendRegistry for Store {
    async fn fleet(&self, server: &ServerId) -> Result<FleetState> {
        let read = async {
            let mut fleet = read_backends(&self.readers).await?;
            fleet.elsewhere = read_elsewhere(&self.readers, server).await?;
            Ok(fleet)
        };
        read.await.map_err(unavailable)
    }

    async fn change_fleet(
        &self,
        server: &ServerId,
        changes: &[FleetChange],
        at: Timestamp,
    ) -> Result<FleetState> {
        let (server, changes) = (server.clone(), changes.to_vec());
        self.writer
            .call(Wanted::Unknown, Outlives::Machine, move |session| {
                Box::pin(async move { session.change_fleet(&server, &changes, at).await })
            })
            .await
    }

    fn fleet_changed(&self) -> watch::Receiver<u64> {
        self.hints.subscribe(Subject::Backends)
    }
}
