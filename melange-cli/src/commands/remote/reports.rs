//! `melange remote failures`, `changes`, `blockers` and `history`.

use jiff::Timestamp;
use melange_remote_sdk::client::Client;
use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::job::BuildId;

use super::{client, ids, show};
use crate::args::{Output, ReportCommand, ServerArgs};
use crate::exit::Exit;
use crate::render::reports as render;

pub(super) async fn run(command: ReportCommand, output: Output) -> Result<Exit> {
    match command {
        ReportCommand::Failures { build, server } => {
            let (client, id) = client_and_build(&server, &build).await?;
            let told = client.build_failures(id).await?;
            show(output, &told, || render::failures(&told))?;
        }
        ReportCommand::Changes { build, since, server } => {
            let (client, id) = client_and_build(&server, &build).await?;
            let since = match since {
                Some(since) => Some(build_id(&client, &since).await?),
                None => None,
            };
            let told = client.build_changes(id, since).await?;
            show(output, &told, || render::changes(&told))?;
        }
        ReportCommand::Blockers { build, server } => {
            let (client, id) = client_and_build(&server, &build).await?;
            let told = client.build_blockers(id).await?;
            show(output, &told, || render::blockers(&told))?;
        }
        ReportCommand::History { package, arch, limit, server } => {
            let arch = arch.map(|arch| arch.to_string());
            let told = client(&server)?.package_history(&package, arch.as_deref(), limit).await?;
            show(output, &told, || render::history(&told, Timestamp::now()))?;
        }
    }
    Ok(Exit::Ok)
}

async fn client_and_build(server: &ServerArgs, text: &str) -> Result<(Client, BuildId)> {
    let client = client(server)?;
    let id = build_id(&client, text).await?;
    Ok((client, id))
}

/// The build that a caller means by `text`.
pub(super) async fn build_id(client: &Client, text: &str) -> Result<BuildId> {
    ids::find_build(client, text).await?.ok_or_else(|| {
        let why =
            if text == ids::LAST { "is a job, and this takes a build" } else { "is not the id of a build" };
        Error::invalid(format!("{text:?} {why}")).hint("`melange remote builds` names them")
    })
}
