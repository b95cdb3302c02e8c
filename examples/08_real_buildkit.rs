//! A build on a real BuildKit daemon, without a server.
//!
//! Needs `MELANGE_TEST_DOCKER_SOCK` (the socket of a dockerd) and `MELANGE_TEST_DISTRO` (a repository made by
//! `cargo run -p test-distro -- make --out DIR`); `make test` provides both.
//!
//! `cargo run --example 08_real_buildkit`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::path::PathBuf;
use std::sync::Arc;

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::builder::{BuildEvent, BuildInput, BuildSink, BuildStatus, Builder};
use melange_remote_sdk::buildkit::{BuildkitOptions, BuildkitRunner};
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::engine::{EngineBuilder, EngineOptions, SingleRunner};
use melange_remote_sdk::limits::CACHE_BYTES_DEFAULT;
use melange_remote_sdk::melange::defaults::RepositoryDefaults;
use melange_remote_sdk::rootfs::Assembler;
use melange_remote_sdk::rootfs::fetch::NoNetwork;
use melange_remote_sdk::rootfs::repository::LocalAccess;
use tokio_util::sync::CancellationToken;

const DEFINITION: &str = r#"
package:
  name: greeting
  version: "1.0"
  epoch: 0
environment:
  contents:
    packages: [busybox]
pipeline:
  - runs: |
      mkdir -p ${{targets.destdir}}/usr/share
      uname -a | tee ${{targets.destdir}}/usr/share/greeting
"#;

/// Prints what happens.
struct Printer;

#[async_trait::async_trait]
impl BuildSink for Printer {
    fn emit(&self, event: BuildEvent) {
        match event {
            BuildEvent::StepStarted { name, .. } => println!("step {name}"),
            BuildEvent::Log { line, .. } => println!("  {line}"),
            _ => {}
        }
    }

    async fn ready(&self) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (Some(socket), Some(distro)) = (folder("MELANGE_TEST_DOCKER_SOCK"), folder("MELANGE_TEST_DISTRO"))
    else {
        return Err("MELANGE_TEST_DOCKER_SOCK or MELANGE_TEST_DISTRO is not set".into());
    };
    let state = tempfile::tempdir()?;
    let mut options = EngineOptions::new(state.path());
    let key = distro.join("keys/test-distro.rsa.pub");
    options.repository_defaults =
        RepositoryDefaults::new(vec![distro.display().to_string()], vec![key.display().to_string()]);
    let cache = StateCache::new(state.path(), CACHE_BYTES_DEFAULT);
    let assembler = Assembler::new(cache, Arc::new(NoNetwork), LocalAccess::Any);
    let address = format!("docker://{}", socket.display()).parse()?;
    let runner = Arc::new(BuildkitRunner::new(address, BuildkitOptions::default()));
    println!("the daemon builds for {:?}", runner.ping().await?.platforms);

    let builder = EngineBuilder::new(options, assembler, Arc::new(SingleRunner(runner)));
    let mut input = BuildInput::new(DEFINITION, Arch::X86_64);
    input.config_name = "greeting.yaml".to_owned();
    let outcome = builder.build(&input, Arc::new(Printer), CancellationToken::new()).await?;
    if outcome.status != BuildStatus::Succeeded {
        return Err(format!("{:?}", outcome.status).into());
    }
    for file in &outcome.files {
        println!("{} {} bytes, sha256 {}", file.name, file.size_bytes, file.sha256);
    }
    Ok(())
}
