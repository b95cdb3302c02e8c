//! `melange remote backends …`.

use jiff::Timestamp;
use melange_remote_sdk::api::v1::BackendView;
use melange_remote_sdk::error::Result;

use super::{client, show};
use crate::args::{BackendsCommand, Output};
use crate::exit::Exit;
use crate::render;

pub(super) async fn run(command: BackendsCommand, output: Output) -> Result<Exit> {
    match command {
        BackendsCommand::List { arch, server } => {
            let arch = arch.map(|arch| arch.to_string());
            let response = client(&server)?.backends(arch.as_deref()).await?;
            show(output, &response, || render::backends(&response.backends, Timestamp::now()))?;
        }
        BackendsCommand::Add { addr, arch, labels, max_jobs, server } => {
            let labels = labels.into_iter().collect();
            let backend = BackendView { addr, arch: arch.to_string(), labels, max_jobs, state: None };
            let added = client(&server)?.add_backend(&backend).await?;
            show(output, &added, || format!("added {}", added.addr))?;
        }
        BackendsCommand::Drain { addr, server } => {
            let view = client(&server)?.drain_backend(&addr).await?;
            show(output, &view, || format!("{} gets no further jobs", view.addr))?;
        }
        BackendsCommand::Enable { addr, server } => {
            let view = client(&server)?.enable_backend(&addr).await?;
            show(output, &view, || format!("{} gets jobs again", view.addr))?;
        }
        BackendsCommand::Remove { addr, server } => {
            client(&server)?.remove_backend(&addr).await?;
            let removed = serde_json::json!({ "addr": addr, "removed": true });
            show(output, &removed, || format!("removed {addr}"))?;
        }
    }
    Ok(Exit::Ok)
}
