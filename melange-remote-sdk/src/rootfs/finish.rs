//! What apko does to a tree after the last package: accounts, path changes, checksum sidecars of CA bundles,
//! busybox links, the loader's cache.

use std::collections::BTreeMap;

use serde::Serialize;

use super::assembly::{Assembly, Input};
use super::ldcache;
use crate::apk::checksum;
use crate::apk::dependency::Dependency;
use crate::error::{Error, Result};
use crate::melange::plan::PlanPath;

/// The shell of accounts that name none.
const DEFAULT_SHELL: &str = "/bin/sh";

/// Bundles of certificates whose checksums stand beside them.
const CA_BUNDLES: [&str; 4] = [
    "etc/ssl/certs/ca-certificates.crt",
    "var/lib/ecs/deps/execute-command/certs/tls-ca-bundle.pem",
    "kaniko/ssl/certs/ca-certificates.crt",
    "etc/ssl/certs/java/cacerts",
];

/// Finishes the tree and returns the contents of `/etc/passwd` and `/etc/group`.
pub(super) fn finish(assembly: &mut Assembly, input: &Input) -> Result<(String, String)> {
    let accounts = accounts(assembly, input)?;
    image_description(assembly, input)?;
    for path in &input.environment.paths {
        change_path(assembly, path)?;
    }
    for bundle in CA_BUNDLES {
        if let Some(bytes) = assembly.read(bundle)? {
            let (folder, base) = super::assembly::split(bundle);
            let line = format!("{}  {base}\n", checksum::sha256_hex(&bytes));
            assembly.put_file(&format!("{folder}/.{base}.sha256"), 0o444, line.as_bytes())?;
        }
    }
    busybox_links(assembly)?;
    if assembly.read("etc/ld.so.conf")?.is_some() {
        let cache = ldcache::make(assembly, input.arch)?;
        assembly.put_file("etc/ld.so.cache", 0o644, &cache)?;
    }
    Ok(accounts)
}

fn accounts(assembly: &mut Assembly, input: &Input) -> Result<(String, String)> {
    let text = |assembly: &mut Assembly, path: &str| -> Result<String> {
        let bytes = assembly.read(path)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut group = text(assembly, "etc/group")?;
    for entry in &input.environment.groups {
        refuse_separators(&entry.name)?;
        group.push_str(&format!("{}:x:{}:{}\n", entry.name, entry.gid, entry.members.join(",")));
    }
    let mut passwd = text(assembly, "etc/passwd")?;
    let shadow = text(assembly, "etc/shadow")?;
    let mut shadow: String = shadow.lines().map(without_last_change).collect();
    for user in &input.environment.users {
        for field in [&user.name, &user.home, &user.shell] {
            refuse_separators(field)?;
        }
        passwd.push_str(&format!(
            "{}:x:{}:{}:Account created by apko:{}:{}\n",
            user.name, user.uid, user.gid, user.home, user.shell
        ));
        shadow.push_str(&format!("{}:!:::::::\n", user.name));
    }
    for (path, mode, content) in
        [("etc/group", 0o644, &group), ("etc/passwd", 0o644, &passwd), ("etc/shadow", 0o640, &shadow)]
    {
        // What a package made keeps its mode.
        let found = assembly.follow(path)?.and_then(|real| assembly.nodes.get(&real));
        let mode = found.map_or(mode, |node| node.mode);
        assembly.put_file(path, mode, content.as_bytes())?;
    }
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, uid, gid, _, home, ..] = fields[..] else { continue };
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { continue };
        let home = crate::melange::plan::clean_path(home);
        if home != "/dev/null" && home != "/" && assembly.follow(&home)?.is_none() {
            assembly.put_directory(&home, 0o700, uid, gid)?;
        }
    }
    Ok((passwd, group))
}

/// A line of `/etc/shadow` as apko writes it again: it does not keep when the password was changed.
fn without_last_change(line: &str) -> String {
    let mut fields: Vec<&str> = line.trim().split(':').collect();
    if let [_, _, changed, _, _, _, _, _, _] = &mut fields[..] {
        *changed = "";
    }
    format!("{}\n", fields.join(":"))
}

fn refuse_separators(field: &str) -> Result<()> {
    if field.contains([':', '\n']) {
        return Err(Error::invalid(format!("the account field {field:?} holds a colon or a newline")));
    }
    Ok(())
}

/// `/etc/apko.json`: what the image was made of, in the order of apko's fields. Its environment variables are left out:
/// environments that differ in nothing else are one root filesystem.
#[derive(Serialize)]
struct ImageDescription<'a> {
    contents: ImageContents<'a>,
    entrypoint: BTreeMap<&'a str, &'a str>,
    accounts: ImageAccounts<'a>,
    archs: [&'a str; 1],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<ImagePath<'a>>,
}

#[derive(Serialize)]
struct ImageContents<'a> {
    repositories: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    keyring: &'a [String],
    packages: &'a [String],
}

#[derive(Serialize)]
struct ImageAccounts<'a> {
    #[serde(rename = "run-as", skip_serializing_if = "str::is_empty")]
    run_as: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<ImageUser<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<ImageGroup<'a>>,
}

#[derive(Serialize)]
struct ImageUser<'a> {
    username: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    shell: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    homedir: &'a str,
}

#[derive(Serialize)]
struct ImageGroup<'a> {
    groupname: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u32,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    members: &'a [String],
}

#[derive(Serialize)]
struct ImagePath<'a> {
    path: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "is_zero")]
    permissions: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    source: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what the serializer asks gets references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn image_description(assembly: &mut Assembly, input: &Input) -> Result<()> {
    let environment = &input.environment;
    let users = environment.users.iter().map(|user| ImageUser {
        username: &user.name,
        uid: user.uid,
        gid: user.gid,
        // As the definition has it, where the default is not written.
        shell: if user.shell == DEFAULT_SHELL { "" } else { &user.shell },
        homedir: &user.home,
    });
    let groups = environment.groups.iter();
    let groups =
        groups.map(|group| ImageGroup { groupname: &group.name, gid: group.gid, members: &group.members });
    let paths = environment.paths.iter().map(|path| ImagePath {
        path: &path.path,
        kind: &path.kind,
        uid: path.uid,
        gid: path.gid,
        permissions: path.mode,
        source: &path.source,
    });
    let description = ImageDescription {
        contents: ImageContents {
            repositories: &input.repositories,
            keyring: &environment.keyring,
            packages: &input.world,
        },
        entrypoint: BTreeMap::new(),
        accounts: ImageAccounts {
            run_as: &environment.run_as,
            users: users.collect(),
            groups: groups.collect(),
        },
        archs: [input.arch.oci_name()],
        paths: paths.collect(),
    };
    let mut text = serde_json::to_vec(&description)
        .map_err(|e| Error::unexpected("cannot describe the image").source(e))?;
    text.push(b'\n');
    assembly.put_file("etc/apko.json", 0o444, &text)
}

fn change_path(assembly: &mut Assembly, change: &PlanPath) -> Result<()> {
    let path = crate::melange::plan::clean_path(&change.path);
    let relative = path.trim_start_matches('/').to_owned();
    match change.kind.as_str() {
        "directory" => {
            assembly.put_directory(&relative, change.mode, change.uid, change.gid)?;
        }
        "empty-file" => assembly.put_file(&relative, change.mode, b"")?,
        "symlink" => return assembly.put_symlink(&relative, &change.source),
        "hardlink" => return assembly.put_hard_link(&relative, &change.source),
        "permissions" => {}
        other => {
            return Err(Error::invalid(format!("the path change {path} has the unknown type {other:?}"))
                .hint("use directory, empty-file, hardlink, symlink or permissions"));
        }
    }
    let Some(real) = assembly.follow(&relative)? else {
        return Err(Error::invalid(format!("the path {path} does not exist")));
    };
    if let Some(node) = assembly.nodes.get_mut(&real) {
        (node.mode, node.uid, node.gid) = (change.mode & 0o7777, change.uid, change.gid);
    }
    Ok(())
}

/// Links for the applets of busybox, from the list that its package ships.
fn busybox_links(assembly: &mut Assembly) -> Result<()> {
    if assembly.follow("bin/busybox")?.is_none() {
        return Ok(());
    }
    let owners: Vec<String> = assembly
        .installed
        .iter()
        .map(|package| &package.info)
        .filter(|info| {
            info.pkgname == "busybox"
                || info.provides.iter().any(|text| Dependency::parse(text).name.contains("busybox"))
        })
        .map(|info| info.pkgname.clone())
        .collect();
    for owner in owners {
        let Some(list) = assembly.read(&format!("etc/busybox-paths.d/{owner}"))? else { continue };
        let list = String::from_utf8_lossy(&list).into_owned();
        for path in list.lines().map(str::trim).filter(|path| !path.is_empty()) {
            if assembly.follow(path)?.is_none() {
                assembly.put_symlink(&crate::melange::plan::clean_path(path), "/bin/busybox")?;
            }
        }
    }
    Ok(())
}
