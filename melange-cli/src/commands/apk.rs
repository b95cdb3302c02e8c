//! `melange apk …`: packages and repositories, looked at by our own reader and solver.

use std::path::{Path, PathBuf};

use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::apk::signature::Keyring;
use melange_remote_sdk::apk::version::Version;
use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::melange::plan::PlanEnvironment;
use melange_remote_sdk::rootfs::Assembler;
use melange_remote_sdk::rootfs::repository::LocalAccess;
use melange_remote_sdk::solver::Policy;

use super::{print_line, read};
use crate::args::{ApkCommand, Output, ResolveArgs};
use crate::exit::Exit;

pub(super) async fn run(command: ApkCommand) -> Result<Exit> {
    match command {
        ApkCommand::Resolve(args) => resolve(&args).await,
        ApkCommand::Version { a, b } => version(&a, &b),
        ApkCommand::Info { file, output } => info(&file, output),
        ApkCommand::Verify { files, keyring, allow_untrusted } => verify(&files, &keyring, allow_untrusted),
        ApkCommand::Install { root, resolve } => install(&root, &resolve).await,
    }
}

/// An assembler whose downloads go to the user's cache.
fn assembler(args: &ResolveArgs) -> Result<Assembler> {
    let cache = super::local::state_dir(None)?;
    Ok(Assembler::new(&cache, super::local::fetcher()?, LocalAccess::Any, !args.repositories.allow_untrusted))
}

fn environment(args: &ResolveArgs) -> Result<PlanEnvironment> {
    let repositories = args
        .repositories
        .repositories
        .iter()
        .map(|line| super::local::absolute(line))
        .collect::<Result<_>>()?;
    let keyring =
        args.repositories.keyring.iter().map(|line| super::local::absolute(line)).collect::<Result<_>>()?;
    Ok(PlanEnvironment {
        repositories,
        keyring,
        packages: args.packages.clone(),
        ..PlanEnvironment::default()
    })
}

async fn resolve(args: &ResolveArgs) -> Result<Exit> {
    let policy = if args.pick { Policy::Apko } else { Policy::Apk };
    let resolution = assembler(args)?.resolve_with(&environment(args)?, args.arch, policy).await?;
    let mut names: Vec<String> = resolution
        .choices
        .iter()
        .map(|choice| {
            let repository = &resolution.repositories[choice.repository];
            let package = &repository.index.packages[choice.package];
            let tag = if repository.tag.is_empty() { String::new() } else { format!("@{}", repository.tag) };
            format!("{}{tag}-{}", package.name, package.version)
        })
        .collect();
    names.sort();
    names.iter().for_each(|name| print_line(name));
    Ok(Exit::Ok)
}

fn version(a: &str, b: &str) -> Result<Exit> {
    let parse = |text: &str| {
        Version::parse(text).ok_or_else(|| {
            Error::invalid(format!("{text:?} is not an apk version"))
                .hint("a version looks like `1.2.3-r0`, `1.2a`, `1.2_rc1` or `1.2_p20240101`")
        })
    };
    print_line(match parse(a)?.cmp(&parse(b)?) {
        std::cmp::Ordering::Less => "<",
        std::cmp::Ordering::Equal => "=",
        std::cmp::Ordering::Greater => ">",
    });
    Ok(Exit::Ok)
}

fn info(path: &Path, output: Output) -> Result<Exit> {
    let apk = ApkFile::open_control(path)?;
    let entries = apk.entries()?;
    if output == Output::Json {
        let scripts: Vec<&String> = apk.scripts.keys().collect();
        let value = serde_json::json!({
            "file": path.display().to_string(),
            "size_bytes": apk.size_bytes,
            "signed": apk.signature.is_some(),
            "checksum": melange_remote_sdk::apk::checksum::q1(&apk.control_sha1),
            "pkginfo": apk.info,
            "control": scripts,
            "files": entries,
        });
        print_line(
            &serde_json::to_string_pretty(&value).map_err(|e| Error::unexpected("cannot print").source(e))?,
        );
        return Ok(Exit::Ok);
    }
    print_line(apk.info.to_text().trim_end());
    for entry in entries {
        let link = if entry.link.is_empty() { String::new() } else { format!(" -> {}", entry.link) };
        print_line(&format!(
            "{} {}:{} {:>10} {}{link}",
            entry.mode, entry.uid, entry.gid, entry.size, entry.path
        ));
    }
    Ok(Exit::Ok)
}

fn verify(files: &[PathBuf], keys: &[PathBuf], allow_untrusted: bool) -> Result<Exit> {
    let mut keyring = Keyring::default();
    for path in keys {
        keyring.add(path.file_name().and_then(|name| name.to_str()).unwrap_or_default(), &read(path)?)?;
    }
    let mut failed = false;
    for path in files {
        let checked = ApkFile::open_control(path).and_then(|apk| {
            let mut files = 0usize;
            apk.for_each_entry(|_| files += 1)?;
            let by = if allow_untrusted { "not checked".to_owned() } else { apk.verify_signature(&keyring)? };
            Ok((files, by))
        });
        match checked {
            Ok((files, by)) => print_line(&format!("{}: ok, {files} files, signature: {by}", path.display())),
            Err(error) => {
                failed = true;
                eprint!("{}: {}", path.display(), crate::render::error(&error));
            }
        }
    }
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

async fn install(root: &Path, args: &ResolveArgs) -> Result<Exit> {
    if root.exists() && std::fs::read_dir(root).map_err(|e| Error::io("list", root, e))?.next().is_some() {
        return Err(Error::invalid(format!("{} is not empty", root.display())).hint("name a new folder"));
    }
    std::fs::create_dir_all(root).map_err(|e| Error::io("create", root, e))?;
    let (assembler, environment) = (assembler(args)?, environment(args)?);
    let resolution = assembler.resolve_with(&environment, args.arch, Policy::Apko).await?;
    let rootfs = assembler.assemble(&resolution, &environment, args.arch).await?;
    let status = std::process::Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(&rootfs.blob.path)
        .arg("-C")
        .arg(root)
        .status()
        .map_err(|e| Error::unexpected("cannot run tar").source(e))?;
    if !status.success() {
        return Err(Error::unexpected(format!("cannot unpack into {}", root.display())));
    }
    print_line(&format!("installed {} packages into {}", resolution.choices.len(), root.display()));
    Ok(Exit::Ok)
}
