//! Registries with one mistake each: one in memory that loses, hides or mixes up something.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;

use super::Verdict;
use crate::backend::registry::{BackendRegistry, FleetChange, FleetState, Registry};
use crate::conformance::backend_registry::{RegistryUnderTest, all};
use crate::error::Result;
use crate::job::ServerId;

/// The mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    LosesUpdates,
    HalfMade,
    AnswersWithBefore,
    KeepsToItself,
    SortsByAddress,
    NoHints,
    ForgetsAll,
    ForgetsDraining,
    ForgetsRemovals,
    ForgetsHealth,
}

const BUGS: [(&str, Bug); 10] = [
    ("of two changes at once one is lost", Bug::LosesUpdates),
    ("the changes before a refused one are made", Bug::HalfMade),
    ("the answer is the fleet before the change", Bug::AnswersWithBefore),
    ("other servers do not see a change", Bug::KeepsToItself),
    ("backends are told by their addresses", Bug::SortsByAddress),
    ("nobody is told of changes", Bug::NoHints),
    ("a registry that is opened anew is empty", Bug::ForgetsAll),
    ("a registry that is opened anew has no drained backends", Bug::ForgetsDraining),
    ("a registry that is opened anew has no removed backends", Bug::ForgetsRemovals),
    ("a registry that is opened anew knows no failures", Bug::ForgetsHealth),
];

/// Tries the suite on the sound registry, then on every mutant.
pub async fn run() -> Verdict {
    all(&Mutant::new(Bug::None)).await;
    let mut verdict = Verdict::new("BackendRegistry");
    for (name, bug) in BUGS {
        verdict.try_on(name, all(&Mutant::new(bug))).await;
    }
    verdict
}

#[derive(Debug, Clone)]
struct Mutant {
    bug: Bug,
    registry: Arc<Mutex<Registry>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Mutant {
    fn new(bug: Bug) -> Self {
        Self { bug, registry: Arc::default(), changed: Arc::new(watch::Sender::new(0)) }
    }

    fn registry(&self) -> Registry {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, registry: Registry) {
        *self.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
    }

    fn told(&self, registry: &Registry) -> FleetState {
        let mut backends = registry.backends();
        if self.bug == Bug::SortsByAddress {
            backends.sort_by(|a, b| a.place.cmp(&b.place));
        }
        FleetState::new(backends)
    }
}

#[async_trait]
impl BackendRegistry for Mutant {
    async fn fleet(&self, _server: &ServerId) -> Result<FleetState> {
        Ok(self.told(&self.registry()))
    }

    async fn change_fleet(
        &self,
        _server: &ServerId,
        changes: &[FleetChange],
        at: Timestamp,
    ) -> Result<FleetState> {
        let before = self.registry();
        let mut after = before.clone();
        if self.bug == Bug::LosesUpdates {
            tokio::task::yield_now().await;
        }
        let made = if self.bug == Bug::HalfMade {
            changes.iter().try_for_each(|change| {
                after.change(std::slice::from_ref(change), at)?;
                self.set(after.clone());
                Ok(())
            })
        } else if self.bug == Bug::LosesUpdates {
            after.change(changes, at).map(|_| self.set(after.clone()))
        } else {
            let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
            let made = registry.change(changes, at).map(drop);
            after = registry.clone();
            made
        };
        made?;
        if self.bug != Bug::NoHints {
            self.changed.send_modify(|count| *count = count.wrapping_add(1));
        }
        Ok(self.told(if self.bug == Bug::AnswersWithBefore { &before } else { &after }))
    }

    fn fleet_changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[async_trait]
impl RegistryUnderTest for Mutant {
    async fn handle(&self) -> Arc<dyn BackendRegistry> {
        if self.bug == Bug::KeepsToItself {
            return Arc::new(Self { registry: Arc::default(), ..self.clone() });
        }
        Arc::new(self.clone())
    }

    async fn reopen(&self) -> Arc<dyn BackendRegistry> {
        let mut backends = self.registry().backends();
        for backend in &mut backends {
            match self.bug {
                Bug::ForgetsDraining => backend.draining = false,
                Bug::ForgetsRemovals => backend.removed.clear(),
                Bug::ForgetsHealth => backend.health = Default::default(),
                _ => {}
            }
        }
        backends.retain(|_| self.bug != Bug::ForgetsAll);
        self.set(Registry::new(backends));
        Arc::new(self.clone())
    }
}
