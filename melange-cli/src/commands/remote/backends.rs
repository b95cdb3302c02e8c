//! `melange remote backends …`.

use jiff::Timestamp;
use melange_remote_sdk::api::v1::{BackendName, BackendView};
use melange_remote_sdk::error::Result;

use super::{client, show};
use crate::args::{BackendNameArgs, BackendsCommand, Output};
use crate::exit::Exit;
use crate::render;

pub(super) async fn run(command: BackendsCommand, output: Output) -> Result<Exit> {
    match command {
        BackendsCommand::List { arch, server } => {
            let arch = arch.map(|arch| arch.to_string());
            let response = client(&server)?.backends(arch.as_deref()).await?;
            show(output, &response, || render::backends(&response.backends, Timestamp::now()))?;
        }
        BackendsCommand::Add { addr, arch, labels, max_jobs, cpus, memory, server } => {
            let labels = labels.into_iter().collect();
            let backend =
                BackendView { addr, arch: arch.to_string(), labels, max_jobs, cpus, memory, state: None };
            let added = client(&server)?.add_backend(&backend).await?;
            show(output, &added, || format!("added {}", added.addr))?;
        }
        BackendsCommand::Drain { name, server } => {
            let view = client(&server)?.drain_backend(&name.into()).await?;
            show(output, &view, || format!("{} gets no further jobs", view.addr))?;
        }
        BackendsCommand::Enable { name, server } => {
            let view = client(&server)?.enable_backend(&name.into()).await?;
            show(output, &view, || format!("{} gets jobs again", view.addr))?;
        }
        BackendsCommand::Remove { addr, machine, server } => {
            let name = BackendName { addr, machine };
            client(&server)?.remove_backend(&name).await?;
            let removed = serde_json::json!({ "addr": name.addr, "removed": true });
            show(output, &removed, || format!("removed {}", name.addr))?;
        }
    }
    Ok(Exit::Ok)
}

impl From<BackendNameArgs> for BackendName {
    fn from(BackendNameArgs { addr, machine }: BackendNameArgs) -> Self {
        Self { addr, machine }
    }
}
