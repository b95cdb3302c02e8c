//! The sandbox as a user without rights: the same packages, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::isolation::RUN_AS;
use crate::support::events::{PATIENCE, wait_until};
use crate::support::farm::{Backend, Farm, KEY_NAME, Places, launcher, on_farm};
use crate::support::missing;
use crate::zoo::ZOO;

/// Debian's `nobody`.
const NOBODY: u32 = 65_534;
/// Ids that no account of a machine has, for its user namespace.
const SUBORDINATE: &str = "65534:2000000000:65536\n";
/// Opens every file of the kernel for writing; root of a user namespace may open none.
const WALK: &str = r#"
package:
  name: walk
  version: 1
  epoch: 0
environment:
  contents:
    packages:
      - busybox
pipeline:
  - name: look
    runs: |
      find /proc /sys -path '/proc/[0-9]*' -prune -o -type f -print > /files 2> /dev/null || true
      [ "$(wc -l < /files)" -gt 500 ]
      while read -r file; do
        if true 2> /dev/null >> "$file"; then echo "$file"; fi
      done < /files
      echo walked
"#;
/// Names the folder that the child works in.
const CHILD: &str = "MELANGE_TEST_UNPRIVILEGED";

/// This test starts its own binary again as `nobody`, in a mount namespace where `/etc/subuid` grants a range and
/// the distribution, the binary and a scratch folder are at places that `nobody` can reach, and again as root in
/// the same places. The umask is one that an operator might have set, and nothing of it shows.
#[test]
fn the_sandbox_needs_no_rights() {
    on_farm(async |farm| {
        if farm.runners.sandbox.is_none() {
            return;
        }
        if let Err(why) = possible() {
            missing(&why);
            return;
        }
        let (nobody, root) = (build_as(farm, NOBODY), build_as(farm, 0));
        assert_eq!(nobody.keys().collect::<Vec<_>>(), root.keys().collect::<Vec<_>>());
        assert!(root.keys().any(|name| name == "zoo-1.0.0-r3.apk"), "{:?}", root.keys());
        for (name, bytes) in &root {
            assert!(*bytes == nobody[name], "{name} differs");
        }
    });
}

/// Whether this machine can start the child.
fn possible() -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    if !status.lines().any(|line| line.starts_with("Uid:\t0\t")) {
        return Err(
            "the tests do not run as root, so every test of the sandbox is unprivileged already".into()
        );
    }
    for (file, package) in
        [("/etc/subuid", "uidmap"), ("/etc/subgid", "uidmap"), ("/usr/bin/setpriv", "util-linux")]
    {
        if !Path::new(file).exists() {
            return Err(format!("{file} is missing: install the package {package}"));
        }
    }
    let names = Command::new("setpriv")
        .args(["--reuid", &NOBODY.to_string(), "--clear-groups", "unshare", "--user", "true"])
        .status()
        .unwrap();
    if !names.success() {
        return Err("this kernel gives user namespaces to root alone".into());
    }
    Ok(())
}

/// The files that the child makes as another user, always in the same folder: its name is part of a package.
fn build_as(farm: &Farm, user: u32) -> BTreeMap<String, Vec<u8>> {
    let folder = std::env::temp_dir().join(format!("melange-remote-unprivileged-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let _removed = Removed(folder.clone());
    let folder = folder.as_path();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.join("ranges"), SUBORDINATE).unwrap();
    fs::write(folder.join(KEY_NAME), farm.key()).unwrap();
    fs::write(folder.join("binary"), "").unwrap();
    fs::write(folder.join("launcher"), "").unwrap();
    for name in ["distro", "state", "out"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    for name in ["state", "out", KEY_NAME] {
        chown(folder.join(name), Some(user), Some(user)).unwrap();
    }
    // On most machines everybody may open this device; here only in the child's own mount namespace.
    let script = "mknod tun c 10 200; chmod 666 tun; mount --bind tun /dev/net/tun; mount --bind ranges /etc/subuid; mount --bind ranges /etc/subgid; \
                  mount --bind \"$1\" distro; mount --bind \"$2\" binary; mount --bind \"$4\" launcher; umask 077; cd state; \
                  exec setpriv --reuid \"$3\" --regid \"$3\" --clear-groups \
                  ../binary --exact unprivileged::child --nocapture --ignored";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--", "sh", "-ec", script, "sh"])
        .arg(&farm.places.distro)
        .arg(std::env::current_exe().unwrap())
        .arg(user.to_string())
        .arg(launcher())
        .current_dir(folder)
        .env(CHILD, folder)
        .env("MELANGE_TEST_LAUNCHER", folder.join("launcher"))
        .env("HOME", folder.join("state"))
        .env("TMPDIR", folder.join("state"))
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    let files = fs::read_dir(folder.join("out")).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (name_of(&path), fs::read(&path).unwrap())).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Removes a folder, also when the test fails.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The child: one build in the sandbox, its files written to `out`.
#[tokio::test]
#[ignore = "run by the_sandbox_needs_no_rights"]
async fn child() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let places = Places {
        distro: folder.join("distro"),
        sandbox: folder.join("state/sandbox"),
        state: folder.join("state/engine"),
    };
    let key = fs::read_to_string(folder.join(KEY_NAME)).unwrap();
    let farm = Farm::new(places, &key, None);
    for (name, yaml) in [("zoo", ZOO), ("run-as", RUN_AS)] {
        let built = farm.build(Backend::Sandbox, name, yaml).await;
        for file in &built.outcome.files {
            let end = file.name.rsplit('/').next().unwrap();
            let end = if end.starts_with("APKINDEX") { format!("{name}-{end}") } else { end.to_owned() };
            fs::copy(&file.path, folder.join("out").join(end)).unwrap();
        }
        built.assert_succeeded();
    }
    if fs::metadata(folder.join("out")).unwrap().uid() != 0 {
        let walked = farm.build(Backend::Sandbox, "walk", WALK).await;
        walked.assert_succeeded();
        assert_eq!(walked.events.lines_of("walk: look"), ["walked"]);
    }
    // With it goes what waits for the next guest.
    drop(farm);
    let guests = folder.join("state/sandbox/guests");
    wait_until(PATIENCE, || fs::read_dir(&guests).unwrap().count() == 0).await;
}
