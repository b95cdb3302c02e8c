//! Servers that are killed while they build: every job ends once and whole, and nothing is left behind.

use std::path::PathBuf;

use super::servers::{Database, Servers, distro, needed};

async fn a_server_is_killed_again_and_again(distro: PathBuf, database: Option<String>) {
    let folder = tempfile::tempdir().unwrap();
    let mut servers = Servers::new(folder.path(), distro, database);
    servers.start("one");
    let ids = servers.submit("one", 0..servers.size.jobs).await;
    let apart = servers.size.apart;
    servers
        .disturb(apart, |servers| {
            servers.kill("one");
            servers.start("one");
        })
        .await;
    servers.check("one", &ids).await;
    servers.check_left_overs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_again_and_again_loses_nothing() {
    let Some(distro) = distro() else { return };
    a_server_is_killed_again_and_again(distro, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_postgresql_that_is_killed_again_and_again_loses_nothing() {
    let Some((distro, postgres)) = distro().zip(needed("MELANGE_TEST_POSTGRES")) else { return };
    let database = Database::new(&postgres);
    a_server_is_killed_again_and_again(distro, Some(database.url.clone())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_a_database_and_one_may_die_and_one_may_leave() {
    let Some((distro, postgres)) = distro().zip(needed("MELANGE_TEST_POSTGRES")) else { return };
    let database = Database::new(&postgres);
    let folder = tempfile::tempdir().unwrap();
    let mut servers = Servers::new(folder.path(), distro, Some(database.url.clone()));
    servers.start("one");
    servers.start("two");
    let half = servers.size.jobs / 2;
    let mut ids = servers.submit("one", 0..half).await;
    ids.extend(servers.submit("two", half..servers.size.jobs).await);
    let moments = servers.size.moments(servers.size.apart);
    tokio::time::sleep(moments[0]).await;
    servers.kill("one");
    tokio::time::sleep(moments[1]).await;
    // One more server while this one is about to go; it takes up what the killed one left on the machine.
    servers.start("one");
    servers.stop("two").await;
    servers.check("one", &ids).await;
    servers.start("two");
    assert_eq!(servers.succeeded("two").await, ids.len());
    servers.check_left_overs().await;
}
