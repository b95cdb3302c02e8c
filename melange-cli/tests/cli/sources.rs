//! Files beside a definition: a job of a farm and a build on this machine make the same packages of them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use melange_server::assembly;
use melange_server::config::Config;
use tokio_util::sync::CancellationToken;

use crate::support::{command, distro, text};

/// A real server with one sandbox; its tasks end with the runtime.
fn serve(runtime: &tokio::runtime::Runtime, folder: &Path, distro: &str) -> SocketAddr {
    let at = |name: &str| folder.join(name).display().to_string();
    let backends = "backends:\n  - addr: sandbox://local\n    arch: x86_64\n    maxJobs: 2\n";
    fs::write(folder.join("backends.yaml"), backends).unwrap();
    let key = format!("{distro}/keys/test-distro.rsa.pub");
    let (file, output, state) = (at("backends.yaml"), at("output"), at("server"));
    let args = [
        "melange-server",
        "--listen-addr",
        "127.0.0.1:0",
        "--database",
        "memory:",
        "--backends-config",
        &file,
        "--output-dir",
        &output,
        "--state-dir",
        &state,
        "--repository",
        distro,
        "--keyring",
        &key,
        "--namespace",
        "test",
    ];
    let mut config = Config::read(args.iter().map(Into::into), &|_| None).unwrap();
    config.build.sandbox_launcher = Some(env!("CARGO_BIN_EXE_melange").into());
    runtime.block_on(async {
        let parts = assembly::assemble(&config).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(melange_server::serve(listener, parts.app, CancellationToken::new()));
        tokio::spawn(async move { parts.scheduler.run(CancellationToken::new()).await });
        address
    })
}

const DEFINITION: &str = r#"package:
  name: NAME
  version: "1"
  epoch: 0
  copyright:
    - license: MIT
environment:
  contents:
    packages:
      - busybox
pipeline:
  - runs: |
      mkdir -p ${{targets.destdir}}/usr/share ${{targets.destdir}}/usr/bin
      echo before > text
      patch -p1 < patches/fix.patch
      test "$(cat text)" = after
      test "$(stat -c %a run patches/fix.patch | tr '\n' ' ')" = "755 644 "
      test ! -e link && test ! -e empty
      cp text ${{targets.destdir}}/usr/share/NAME
      cp -p run ${{targets.destdir}}/usr/bin/NAME
      find . -type f | grep -v melange | sort > ${{targets.destdir}}/usr/share/NAME.list
"#;

/// The files beside a definition, as a checkout with an unusual umask has them.
fn write_files(folder: &Path) {
    fs::create_dir_all(folder.join("patches")).unwrap();
    fs::create_dir_all(folder.join("empty")).unwrap();
    fs::write(folder.join("patches/fix.patch"), "--- a/text\n+++ b/text\n@@ -1 +1 @@\n-before\n+after\n")
        .unwrap();
    fs::write(folder.join("run"), "#!/bin/sh\necho runs\n").unwrap();
    symlink("/etc/hostname", folder.join("link")).unwrap();
    for (name, mode) in [("patches/fix.patch", 0o600), ("run", 0o700)] {
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn packages_of_a_farm_and_of_this_machine_are_equal_with_files_beside_the_definition() {
    let Some(distro) = distro() else { return };
    let distro = std::path::absolute(distro).unwrap().display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let url = format!("http://{}", serve(&runtime, at, &distro));
    let run = |args: &[&str]| {
        let output = command(at, args).env("MELANGE_SERVER", &url).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        output
    };
    let key = format!("{distro}/keys/test-distro.rsa.pub");
    write_files(&at.join("patched"));
    write_files(&at.join("elsewhere"));
    symlink("elsewhere", at.join("linked")).unwrap();
    for name in ["patched", "linked"] {
        let file = format!("{name}.yaml");
        fs::write(at.join(&file), DEFINITION.replace("NAME", name)).unwrap();
        let build = ["build", &file, "--arch", "x86_64", "-r", &distro, "-k", &key, "--namespace", "test"];
        run(&[&build[..], &["--source-dir", name, "--out-dir", "here"]].concat());
        let submitted = run(&["remote", "submit", &file, "--arch", "x86_64", "--wait"]);
        let said = text(&submitted.stderr);
        let known = name == "linked";
        let told = if known { "2 files of linked: known there already" } else { "sent 2 files of patched" };
        assert!(said.contains(told) && said.contains("1 link left out"), "{said}");
        run(&["remote", "get", "@last", "--out-dir", "there"]);
        let package = format!("x86_64/{name}-1-r0.apk");
        let read = |folder: &str| fs::read(at.join(folder).join(&package)).unwrap();
        assert!(read("here") == read("there"), "{name}: the packages differ");
    }
    let left = fs::read_dir(at.join("server/sources"))
        .unwrap()
        .flat_map(|own| fs::read_dir(own.unwrap().path()).unwrap());
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["lock"], "nothing of the jobs is left");
    runtime.shutdown_background();
}
