//! What a manifest cannot say: the packages whose files are made or changed by code.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::deb::{Deb, DebKind, read_files};
use crate::manifest::{Make, Spec};
use crate::paths::{MULTIARCH, base_name, map_path};
use crate::tree::{Node, Tree};

/// What the changes need to know.
#[derive(Debug)]
pub struct Surroundings {
    /// The version of the Python there is.
    pub python: String,
    /// The file name of the public key.
    pub key_name: String,
    /// The public key.
    pub public_key: Vec<u8>,
    /// The Debian package of the C library.
    pub libc: Deb,
}

/// Adds to a package's files what its manifest entry asks for.
pub fn apply(tree: &mut Tree, spec: &Spec, around: &Surroundings) -> Result<()> {
    match spec.make {
        Some(Make::Baselayout) => baselayout(tree),
        Some(Make::Busybox) => busybox_paths(tree, around)?,
        Some(Make::CertificateBundle) => certificate_bundle(tree)?,
        Some(Make::Keys) => {
            tree.set_file(&format!("etc/apk/keys/{}", around.key_name), 0o644, around.public_key.clone());
        }
        Some(Make::Perl) => flatten_perl(tree)?,
        Some(Make::Python) => upstream_python(tree, &around.python)?,
        None => {}
    }
    for (path, target) in &spec.links {
        tree.set_link(path, target);
    }
    for (path, text) in &spec.scripts {
        tree.set_file(path, 0o755, text.as_bytes());
    }
    for (path, text) in &spec.files {
        tree.set_file(path, 0o644, text.as_bytes());
    }
    Ok(())
}

const DIRECTORIES: &[&str] = &[
    "dev",
    "etc",
    "etc/profile.d",
    "home",
    "opt",
    "proc",
    "run",
    "run/lock",
    "sys",
    "usr/bin",
    "usr/include",
    "usr/lib",
    "usr/local/bin",
    "usr/local/lib",
    "usr/share",
    "var/cache",
    "var/empty",
    "var/log",
    "var/spool",
];

const LINKS: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("etc/mtab", "/proc/mounts"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib"),
    ("sbin", "usr/bin"),
    ("usr/lib64", "lib"),
    ("usr/local/lib64", "lib"),
    ("usr/sbin", "bin"),
    ("var/lock", "../run/lock"),
    ("var/run", "../run"),
];

const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\n\
         nobody:x:65534:65534:nobody:/dev/null:/bin/false\n\
         nonroot:x:65532:65532:nonroot:/home/nonroot:/bin/sh\n",
    ),
    ("etc/group", "root:x:0:root\ntty:x:5:\nnobody:x:65534:\nnonroot:x:65532:\n"),
    (
        "etc/os-release",
        "ID=wolfi\nNAME=\"Wolfi\"\nPRETTY_NAME=\"Test distribution in Wolfi's shape\"\nVERSION_ID=\"20230201\"\n",
    ),
    ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
    (
        "etc/profile",
        "export PATH=/usr/local/bin:/usr/bin:/bin\numask 022\n\
         for script in /etc/profile.d/*.sh; do [ -r \"$script\" ] && . \"$script\"; done\n",
    ),
    ("etc/profile.d/locale.sh", "export LANG=${LANG:-C.UTF-8}\n"),
    ("etc/shells", "/bin/sh\n/bin/ash\n/bin/bash\n"),
    ("etc/protocols", "ip\t0\tIP\nicmp\t1\tICMP\ntcp\t6\tTCP\nudp\t17\tUDP\n"),
    ("etc/services", "ssh\t22/tcp\ndomain\t53/tcp\ndomain\t53/udp\nhttp\t80/tcp\nhttps\t443/tcp\n"),
];

fn baselayout(tree: &mut Tree) {
    for path in DIRECTORIES {
        tree.add_directory(path, 0o755);
    }
    tree.add_directory("root", 0o700);
    tree.add_directory("tmp", 0o1777);
    tree.add_directory("var/tmp", 0o1777);
    for (path, target) in LINKS {
        tree.set_link(path, target);
    }
    // Debian's library directory, flattened into usr/lib.
    tree.set_link(&format!("usr/lib/{MULTIARCH}"), ".");
    for (path, text) in FILES {
        tree.set_file(path, 0o644, *text);
    }
    tree.set_file("etc/shadow", 0o600, "root:*::0:::::\nnobody:!::0:::::\nnonroot:!::0:::::\n");
}

/// `/etc/busybox-paths.d/busybox` names the links busybox wants. Busybox itself knows them; it is run with the
/// dynamic linker of its own suite, as the machine's C library may be older.
fn busybox_paths(tree: &mut Tree, around: &Surroundings) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("busybox");
    put_program(
        &program,
        tree.file("usr/bin/busybox").context("the busybox package has no usr/bin/busybox")?,
    )?;
    let libraries = ["ld-linux-x86-64.so.2", "libc.so.6", "libresolv.so.2"];
    let wanted = |path: &str| libraries.contains(&base_name(path));
    read_files(&around.libc.path, wanted, |entry| match entry.kind {
        DebKind::File(data) => put_program(&directory.path().join(base_name(&entry.path)), &data),
        _ => Ok(()),
    })?;
    let output = Command::new(directory.path().join(libraries[0]))
        .arg("--library-path")
        .args([directory.path(), &program])
        .arg("--list-full")
        .output()
        .context("cannot run the repository's dynamic linker")?;
    ensure!(
        output.status.success(),
        "busybox --list-full failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listing = String::from_utf8(output.stdout).context("busybox's list is no UTF-8")?;
    let mut paths: Vec<String> = listing.lines().map(|path| map_path(path.trim(), &around.python)).collect();
    paths.push("usr/bin/busybox".to_owned());
    paths.sort_unstable();
    paths.dedup();
    ensure!(paths.iter().any(|path| path == "usr/bin/sh"), "busybox does not list a shell");
    let list: String = paths.iter().map(|path| format!("/{path}\n")).collect();
    tree.set_file("etc/busybox-paths.d/busybox", 0o644, list);
    Ok(())
}

fn put_program(path: &Path, data: &[u8]) -> Result<()> {
    std::fs::write(path, data)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

/// One file with all certificates, at the paths programs look for it.
fn certificate_bundle(tree: &mut Tree) -> Result<()> {
    let mut bundle = Vec::new();
    for (path, entry) in &tree.0 {
        if let Node::File(data) = &entry.node
            && path.starts_with("usr/share/ca-certificates/")
        {
            bundle.extend_from_slice(data.trim_ascii_end());
            bundle.push(b'\n');
        }
    }
    if bundle.is_empty() {
        bail!("the ca-certificates package has no certificates");
    }
    let newest = tree.newest();
    *tree = Tree::default();
    tree.set_file("etc/ssl/certs/ca-certificates.crt", 0o644, bundle);
    tree.set_link("etc/ssl/cert.pem", "certs/ca-certificates.crt");
    tree.set_link("etc/ssl/certs/ca-bundle.crt", "ca-certificates.crt");
    tree.set_link("etc/pki/tls/certs/ca-bundle.crt", "../../../ssl/certs/ca-certificates.crt");
    tree.0.values_mut().for_each(|entry| entry.mtime = Some(newest));
    Ok(())
}

/// Modules built here go where the base layout has a directory, not a link.
fn flatten_perl(tree: &mut Tree) -> Result<()> {
    let old = format!("/usr/lib/{MULTIARCH}/");
    let mut changed = 0;
    for (path, entry) in &mut tree.0 {
        if let Node::File(data) = &mut entry.node
            && ["Config.pm", "Config_heavy.pl"].contains(&base_name(path))
        {
            let text = std::str::from_utf8(data).with_context(|| path.clone())?;
            if text.contains(&old) {
                *data = text.replace(&old, "/usr/lib/").into_bytes();
                changed += 1;
            }
        }
    }
    ensure!(changed > 0, "perl's configuration has no Debian directories: has its layout changed?");
    Ok(())
}

/// Debian's Python installs modules below /usr/local and looks for them in dist-packages; Wolfi's does as upstream.
/// The site module is frozen into the interpreter, so what it says is overridden by a `sitecustomize`.
fn upstream_python(tree: &mut Tree, python: &str) -> Result<()> {
    const DEBIAN: &str = "prefix_scheme = 'posix_local'";
    const UPSTREAM: &str = "prefix_scheme = 'posix_prefix'";
    let library = format!("usr/lib/python{python}");
    let mut changed = 0;
    for path in [format!("{library}/sysconfig.py"), format!("{library}/sysconfig/__init__.py")] {
        if let Some(Node::File(data)) = tree.0.get_mut(&path).map(|entry| &mut entry.node) {
            let text = std::str::from_utf8(data).with_context(|| path.clone())?;
            ensure!(text.contains(DEBIAN), "{path} does not choose Debian's scheme: has its layout changed?");
            *data = text.replace(DEBIAN, UPSTREAM).into_bytes();
            changed += 1;
        }
    }
    ensure!(changed == 1, "the Python package has {changed} sysconfig modules");
    let customize = format!(
        "import site, sys\n\n\
         if sys.prefix == sys.base_prefix:\n\
         \x20   _packages = '/{library}/site-packages'\n\
         \x20   site.addsitedir(_packages)\n\
         \x20   site.getsitepackages = lambda prefixes=None: [_packages]\n"
    );
    tree.set_file(&format!("{library}/sitecustomize.py"), 0o644, customize);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_layout_has_its_links_and_parents() {
        let mut tree = Tree::default();
        baselayout(&mut tree);
        tree.add_parents().unwrap();
        assert_eq!(tree.0["usr/sbin"].node, Node::Symlink("bin".to_owned()));
        assert_eq!(tree.0["usr/lib/x86_64-linux-gnu"].node, Node::Symlink(".".to_owned()));
        assert_eq!(tree.0["tmp"].mode, 0o1777);
        assert_eq!(tree.0["var"].node, Node::Directory);
    }

    #[test]
    fn certificates_become_one_file() {
        let mut tree = Tree::default();
        tree.set_file("usr/share/ca-certificates/mozilla/b.crt", 0o644, "B\n\n");
        tree.set_file("usr/share/ca-certificates/mozilla/a.crt", 0o644, "A");
        tree.set_file("etc/other", 0o644, "x");
        certificate_bundle(&mut tree).unwrap();
        assert_eq!(tree.file("etc/ssl/certs/ca-certificates.crt"), Some(&b"A\nB\n"[..]));
        assert_eq!(tree.file("etc/other"), None);
    }

    #[test]
    fn python_and_perl_are_changed_or_refused() {
        let mut tree = Tree::default();
        assert!(upstream_python(&mut tree, "3.11").is_err());
        tree.set_file("usr/lib/python3.11/sysconfig.py", 0o644, "prefix_scheme = 'posix_local'\n");
        upstream_python(&mut tree, "3.11").unwrap();
        assert_eq!(
            tree.file("usr/lib/python3.11/sysconfig.py"),
            Some(&b"prefix_scheme = 'posix_prefix'\n"[..])
        );
        assert!(tree.file("usr/lib/python3.11/sitecustomize.py").is_some());
        assert!(flatten_perl(&mut tree).is_err());
    }
}
