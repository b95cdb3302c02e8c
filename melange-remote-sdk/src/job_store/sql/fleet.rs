//! The fleet: a document for each backend, changed by the rules of [`Registry`].

use std::collections::BTreeMap;

use sqlx::{Executor as _, Row};

use super::codec::{count, from_doc, to_doc};
use super::dialect::{Connection, Db};
use super::*;
use crate::backend::registry::{BackendRegistry, FleetChange, FleetState, RegisteredBackend, Registry};

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

/// How many jobs of other servers than this one run on backends.
async fn read_elsewhere<'c>(
    from: impl sqlx::Executor<'c, Database = Db>,
    server: &ServerId,
) -> sqlx::Result<BTreeMap<String, u32>> {
    let counts = "SELECT backend, count(*) AS running FROM jobs WHERE state = 2 AND backend IS NOT NULL \
                  AND server <> $1 GROUP BY backend";
    let rows = sqlx::query(counts).bind(server.as_str().to_owned()).fetch_all(from).await?;
    let count = |row: &StoredRow| {
        let running: i64 = row.try_get("running")?;
        Ok((row.try_get("backend")?, u32::try_from(running).unwrap_or(u32::MAX)))
    };
    rows.iter().map(count).collect()
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
