//! What apko does to a tree after the last package: accounts, path changes, checksum sidecars of CA bundles,
//! busybox links, the loader's cache.

use super::assembly::{Assembly, Input};
use super::ldcache;
use crate::apk::checksum;
use crate::apk::dependency::Dependency;
use crate::error::{Error, Result};
use crate::melange::plan::PlanPath;

const CA_BUNDLES: [&str; 4] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/ssl/certs/java/cacerts",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
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
    let mut shadow = text(assembly, "etc/shadow")?;
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
    assembly.put_file("etc/group", 0o644, group.as_bytes())?;
    assembly.put_file("etc/passwd", 0o644, passwd.as_bytes())?;
    assembly.put_file("etc/shadow", 0o640, shadow.as_bytes())?;
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

fn refuse_separators(field: &str) -> Result<()> {
    if field.contains([':', '\n']) {
        return Err(Error::invalid(format!("the account field {field:?} holds a colon or a newline")));
    }
    Ok(())
}

/// `/etc/apko.json`: what the image was made of.
fn image_description(assembly: &mut Assembly, input: &Input) -> Result<()> {
    let description = serde_json::json!({
        "contents": { "repositories": input.repositories, "packages": input.world },
        "archs": [input.arch.oci_name()],
    });
    assembly.put_file("etc/apko.json", 0o444, description.to_string().as_bytes())
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
