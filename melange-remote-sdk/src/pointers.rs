//! Contracts of what stands behind a pointer: an `Arc` or `Box` of an implementation is one too.
//!
//! So that a wrapper may own what it wraps or share it, and a `Box<dyn JobStore>` goes wherever a store goes.

/// Implements a contract for wrappers that hand every call on to what [`AsRef`] gives.
///
/// `Contract` alone means `Arc<T>` and `Box<T>`; further wrappers are named with the bound of their `T`. The calls are
/// listed as the contract declares them, the asynchronous ones first.
macro_rules! hand_on {
    ($contract:ident $(, $wrapper:ty where $bound:ident)*; $calls:tt) => {
        crate::pointers::hand_on!(@one $contract, [$contract + ?Sized], std::sync::Arc<T>; $calls);
        crate::pointers::hand_on!(@one $contract, [$contract + ?Sized], Box<T>; $calls);
        $(crate::pointers::hand_on!(@one $contract, [$bound], $wrapper; $calls);)*
    };
    (@one $contract:ident, [$($bound:tt)+], $wrapper:ty; {
        $(async fn $call:ident(&self $(, $arg:ident: $kind:ty)* $(,)?) $(-> $told:ty)?;)*
        $(fn $plain:ident(&self $(, $plain_arg:ident: $plain_kind:ty)* $(,)?) $(-> $plain_told:ty)?;)*
    }) => {
        #[async_trait::async_trait]
        impl<T: $($bound)+> $contract for $wrapper {
            $(async fn $call(&self $(, $arg: $kind)*) $(-> $told)? {
                AsRef::<T>::as_ref(self).$call($($arg),*).await
            })*
            $(fn $plain(&self $(, $plain_arg: $plain_kind)*) $(-> $plain_told)? {
                AsRef::<T>::as_ref(self).$plain($($plain_arg),*)
            })*
        }
    };
}

pub(crate) use hand_on;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use crate::artifact_storage::ArtifactStorage;
    use crate::artifact_storage::object::ObjectArtifactStorage;
    use crate::backend::{AlwaysReachable, BackendProbe};
    use crate::backend_selector::BackendSelector;
    use crate::backend_selector::round_robin::RoundRobin;
    use crate::builder::scripted::ScriptedBuilder;
    use crate::builder::{BuildSink, Builder, NullSink};
    use crate::clock::{Clock, SteadyClock};
    use crate::conformance;
    use crate::job_store::memory::MemoryJobStore;
    use crate::job_store::{JobReading, JobStore, ListQuery};

    #[tokio::test(start_paused = true)]
    async fn a_pointer_to_a_contract_keeps_it() {
        let store: Box<dyn JobStore> = Box::new(Arc::new(MemoryJobStore::default()));
        let reading: Arc<dyn JobReading> = Arc::new(store);
        assert!(reading.list(&ListQuery::newest(1)).await.unwrap().jobs.is_empty());

        let selector: Box<dyn BackendSelector> = Box::new(RoundRobin);
        conformance::backend_selector::all(&selector);
        let storage: Box<dyn ArtifactStorage> = Box::new(ObjectArtifactStorage::memory());
        conformance::artifact_storage::all(Arc::new(storage)).await;
        let clock: Box<dyn Clock> = Box::new(SteadyClock::starting_at(Timestamp::UNIX_EPOCH));
        assert_eq!(Arc::new(clock).now(), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn every_contract_holds_behind_pointers() {
        fn job_store<T: JobStore>() {}
        fn builder<T: Builder>() {}
        fn sink<T: BuildSink>() {}
        fn probe<T: BackendProbe>() {}
        job_store::<Arc<Box<MemoryJobStore>>>();
        builder::<Box<Arc<dyn Builder>>>();
        builder::<Arc<ScriptedBuilder>>();
        sink::<Box<NullSink>>();
        probe::<Arc<AlwaysReachable>>();
    }
}
