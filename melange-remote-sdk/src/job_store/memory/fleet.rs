//! The fleet.

use super::*;
use crate::backend::registry::{BackendRegistry, FleetChange, FleetState};

impl State {
    /// The fleet as a server sees it.
    fn fleet_of(&self, server: &ServerId) -> FleetState {
        let mut fleet = FleetState::new(self.fleet.backends());
        fleet.elsewhere = self.set.running_elsewhere(server);
        fleet
    }
}

#[async_trait]
impl BackendRegistry for MemoryJobStore {
    async fn fleet(&self, server: &ServerId) -> Result<FleetState> {
        Ok(self.lock().fleet_of(server))
    }

    async fn change_fleet(
        &self,
        server: &ServerId,
        changes: &[FleetChange],
        at: Timestamp,
    ) -> Result<FleetState> {
        self.change(|state| {
            let changed = state.fleet.change(changes, at)?;
            state.set.changes.backends |= !changed.is_empty();
            state.set.changes.events.extend(changed.events);
            Ok(state.fleet_of(server))
        })
    }

    fn fleet_changed(&self) -> watch::Receiver<u64> {
        self.shared.hints.subscribe(Subject::Backends)
    }
}
